"""Tests of `trioproxy.policy.scope`."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import Identity
from tests.policy import strategies
from tests.policy.asking import identity
from trioproxy.policy import DEFAULT_TENANT, Scope, ScopeKind

SCOPES = st.one_of(
    st.just(Scope(ScopeKind.GLOBAL)),
    st.sampled_from(strategies.TENANTS).map(lambda tenant: Scope(ScopeKind.TENANT, tenant)),
    strategies.owners(ScopeKind.GROUP),
    strategies.owners(ScopeKind.USER),
)


@pytest.mark.parametrize(
    ("text", "scope", "owner"),
    [
        ("global", Scope(ScopeKind.GLOBAL), ""),
        ("tenant:physics", Scope(ScopeKind.TENANT, "physics"), "physics"),
        ("tenant:main", Scope(ScopeKind.TENANT, "main"), "main"),
        ("group:staff", Scope(ScopeKind.GROUP, "main", "staff"), "staff"),
        ("group:physics/staff", Scope(ScopeKind.GROUP, "physics", "staff"), "physics/staff"),
        ("user:alice", Scope(ScopeKind.USER, "main", "alice"), "alice"),
        ("user:physics/alice", Scope(ScopeKind.USER, "physics", "alice"), "physics/alice"),
        ("user:alice@example.org", Scope(ScopeKind.USER, "main", "alice@example.org"), "alice@example.org"),
    ],
)
def test_four_kinds_of_layers_are_written_as_the_design_says(text: str, scope: Scope, owner: str) -> None:
    """DESIGN section 3: global, tenant:NAME, group:NAME, user:NAME; a name alone belongs to the tenant main."""
    assert scope == Scope.parse(text)
    assert text == str(scope)
    assert owner == scope.owner


def test_a_name_may_say_the_default_tenant_and_any_case() -> None:
    """One spelling for each layer: a rule for `user:Main/Alice` must not be a layer that nobody ever has."""
    assert DEFAULT_TENANT == "main"
    assert Scope.parse("user:alice") == Scope.parse("user:Main/ALICE")
    assert Scope.parse("group:staff") == Scope.parse("group:main/Staff")
    assert Scope.parse("tenant:physics") == Scope.parse("tenant:Physics")


@pytest.mark.parametrize(
    "text",
    [
        *("", "Global", "global:x", "everybody", "users:alice", "tenant", "tenant:", "tenant:a/b", "user", "user:"),
        *(
            "user:/alice",
            "user:main/",
            "group:",
            "group:a/b/c",
            "user: alice",
            "user:al:ice",
            'user:al"ice',
            "user:a\0b",
        ),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """Unknown input is an error, never a layer that exists for nobody."""
    with pytest.raises(ValueError, match=r"scope|name"):
        Scope.parse(text)


def test_the_message_for_an_unknown_kind_lists_the_four_forms() -> None:
    """A person who mistypes a scope reads what may be written."""
    with pytest.raises(ValueError, match=r"'users:x' is no scope; write global, tenant:NAME, group:NAME or user:NAME"):
        Scope.parse("users:x")


@given(SCOPES)
def test_parse_and_print_are_inverse(scope: Scope) -> None:
    """P2 for scopes: they are keys in the store."""
    assert scope == Scope.parse(str(scope))


def test_a_user_has_the_global_layer_and_those_of_tenant_groups_and_user() -> None:
    """DESIGN section 3: four kinds of layers vote; groups in the order of their names."""
    layers = Scope.layers_of(identity("alice", ["staff", "it-ops"], "physics"))
    assert [str(layer) for layer in layers] == [
        "global",
        "tenant:physics",
        "group:physics/it-ops",
        "group:physics/staff",
        "user:physics/alice",
    ]


def test_who_is_outside_the_proxy_group_has_the_global_layer_alone() -> None:
    """`nonmembers = "global-rules"`; what a rule of that layer may name stays: the user, the groups and the tenant."""
    outside = attrs.evolve(identity("alice", ["staff"]), member=False)
    assert Scope.layers_of(outside) == (Scope(ScopeKind.GLOBAL),)
    assert Scope.around(outside) == Scope.layers_of(identity("alice", ["staff"]))


def test_a_client_without_login_has_the_global_layer_and_the_listeners_tenant() -> None:
    """DESIGN section 3: an anonymous client has the global layer and that of the listener's tenant."""
    assert [str(layer) for layer in Scope.layers_of(Identity("main", None))] == ["global", "tenant:main"]
