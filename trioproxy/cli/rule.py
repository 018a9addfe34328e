"""`trioproxy rule`: the rules of each layer."""

from collections.abc import Iterable
from typing import Annotated

from cyclopts import App, Parameter

from trioproxy.cli.explain import explain
from trioproxy.cli.output import Failure, say, show_json, show_table, usage, warn
from trioproxy.cli.place import HERE, Place, check_tenant, note_nobody, parse_scope, select_tenant
from trioproxy.config import Config, Tenant
from trioproxy.policy.grammar import RuleSyntaxError, parse_rule
from trioproxy.policy.rules import Rule
from trioproxy.policy.scope import Scope
from trioproxy.store import StoredRule, listing_order

__all__ = ["app"]

app = App(
    name="rule",
    help="Rules: what may be reached. A SCOPE is global, tenant:NAME, group:NAME or user:NAME.",
    help_epilogue="Example: `trioproxy rule add user:alice 'tcp:*(*)->*.example.org(443)'`",
)
app.command(
    explain,
    help_epilogue="Example: `trioproxy rule explain --user alice --source 10.1.2.3 tcp www.example.org:443`",
)


@app.command(help_epilogue="Example: `trioproxy rule add group:staff 'tcp:10.0.0.0/8(*)->internet(80,443)'`")
def add(scope: str, rule: str, /, *, position: int | None = None, place: Place = HERE) -> None:
    """Add a rule to a layer. Inside a layer the first rule that fits decides.

    Args:
        scope: global, tenant:NAME, group:NAME or user:NAME.
        rule: [allow|deny] PROTOCOL:SOURCE(PORTS)->DESTINATION(PORTS), in quotes because of the shell.
        position: the place in the layer, from 1 on; by default the end.
        place: which installation.
    """
    config = place.load()
    layer = parse_scope(scope, config)
    parsed = _parse_rule(rule, config)
    with place.open_store(config, create=True) as store:
        try:
            stored = store.rules.add(layer, parsed, position)
        except ValueError as error:
            raise Failure(str(error)) from error
        rules = store.rules.of(layer)
        where = [rule.id for rule in rules].index(stored.id) + 1
        say(f"rule {stored.id} added to {layer} at place {where}: {stored.text}")
        same = [str(rule.id) for rule in rules if rule.text == stored.text and rule.id != stored.id]
        if same:
            warn(f"{layer} has the same rule already: {', '.join(same)}; the first one decides")
        note_nobody([layer], config, store)


@app.command(name="list", help_epilogue="Example: `trioproxy rule list group:staff --json`")
def list_rules(
    scope: str | None = None,
    /,
    *,
    tenant: str | None = None,
    all_tenants: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    place: Place = HERE,
) -> None:
    """List the rules of one layer, or those of a tenant with the global ones.

    Args:
        scope: one layer; left out: all of a tenant and the global one.
        tenant: whose rules; by default those of the tenant main.
        all_tenants: those of every tenant.
        as_json: print JSON.
        place: which installation.
    """
    config = place.load()
    if sum((scope is not None, tenant is not None, all_tenants)) > 1:
        raise usage("SCOPE, --tenant and --all-tenants exclude each other")
    layer = parse_scope(scope, config) if scope is not None else None
    shown = None if all_tenants else {"", select_tenant(tenant, config)}
    with place.open_store(config) as store:
        everything = store.rules.all()
        if layer is not None:
            layers = {layer: everything.get(layer, ())}
        else:
            layers = {key: rules for key, rules in everything.items() if shown is None or key.tenant in shown}
        if layer is not None and not layers[layer]:
            note_nobody([layer], config, store)
    if as_json:
        show_json(
            [
                {"id": rule.id, "scope": str(key), "place": number, "rule": rule.text}
                for key, rules in layers.items()
                for number, rule in enumerate(rules, start=1)
            ]
        )
    elif any(layers.values()):
        _show(layers)
    elif layer is not None:
        say(f"no rules in {layer}")
    elif shown is None:
        say(f"no rules in any layer{_so(config.tenants().values())}")
    else:
        home = select_tenant(tenant, config)
        say(f"no rules, neither global ones nor in tenant {home}{_so([config.tenants()[home]])}")
        if any(everything.values()):
            warn("other tenants have rules: --all-tenants shows them")


@app.command(help_epilogue="Example: `trioproxy rule remove 12 13`")
def remove(number: int, /, *more: int, place: Place = HERE) -> None:
    """Remove rules by the ids that `rule list` shows: all of those given, or none.

    Args:
        number: the id of a rule.
        more: further ids.
        place: which installation.
    """
    config = place.load()
    with place.open_store(config) as store:
        removed = store.rules.remove([number, *more])
    for scope in sorted(removed, key=listing_order):
        for rule in removed[scope]:
            say(f"rule {rule.id} removed from {scope}: {rule.text}")


def _parse_rule(text: str, config: Config) -> Rule:
    try:
        rule = parse_rule(text)
    except RuleSyntaxError as error:
        pointer = " " * (error.column - 1) + "^"
        raise Failure(
            f"this rule is wrong at column {error.column}, expected {error.expected}", f"    {text}", f"    {pointer}"
        ) from error
    for owner in (rule.user, rule.group):
        if owner is not None:
            check_tenant(owner.tenant, config)
    return rule


def _show(layers: dict[Scope, tuple[StoredRule, ...]]) -> None:
    rows = [
        [str(scope), str(number), str(rule.id), rule.text]
        for scope, rules in layers.items()
        for number, rule in enumerate(rules, start=1)
    ]
    show_table(["SCOPE", "PLACE", "ID", "RULE"], rows)


def _so(tenants: Iterable[Tenant]) -> str:
    """What it means that the store has no rules for them."""
    if all(tenant.backends == ("local",) for tenant in tenants):
        return ": nothing is allowed"
    return ": nothing is allowed but by rules of a directory"
