"""Groups, found in a directory made of entries here: searches are really encoded, and their filters evaluated."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.backend import Cause, EntryRules
from auth.ldap import LdapSettings
from auth.ldap.dn import DN
from auth.ldap.failure import DirectoryError
from auth.ldap.groups import DEPTH_MAX, GROUPS_MAX, GroupFinder, Groups, Look
from auth.ldap.messages import Entry, Search, encode_search
from tests.auth.ldap.asn1 import Tree, filter_of, search_of

BASE = "ou=groups,dc=a"
ALICE = "uid=alice,ou=people,dc=a"
PROXY = f"cn=system-proxy,{BASE}"
IN_CHAIN = "1.2.840.113556.1.4.1941"
AND, OR, EQUAL, EXTENSIBLE = 0xA0, 0xA1, 0xA3, 0xA9


class Directory:
    """Groups by their DN, each with attributes; remembers what was looked for."""

    def __init__(self, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        self.asked: list[Search] = []
        self._names = {dn: DN.parse(dn if len(dn) < 4096 else f"cn=far,{BASE}") for dn in groups}
        self._groups = {dn: {name.lower(): _encoded(has[name]) for name in has} for dn, has in groups.items()}
        self._matching: dict[tuple[str, str], set[str]] = defaultdict(set)
        for dn, has in groups.items():
            for name, values in [*has.items(), ("cn", [self._names[dn].value_of("cn")])]:
                for value in filter(None, values):
                    self._matching[name.lower(), value.lower()].add(dn)

    def look(self, search: Search, *, may_be_missing: bool = False) -> Sequence[Entry]:
        """All below the base, or the base itself, that the filter matches, with what was asked for."""
        self.asked.append(search)
        if search == Search(BASE, "(objectClass=*)", ("objectClass",), 1, subtree=False):
            return [Entry(BASE, {})]
        data = encode_search(1, search)
        wanted = {str(name).lower() for name in search_of(data)["attributes"]}
        base = DN.parse(search.base)
        return [
            Entry(dn, {name: values for name, values in self._groups[dn].items() if name in wanted})
            for dn in self._found(filter_of(data))
            if (self._names[dn].is_below(base) if search.subtree else self._names[dn] == base)
        ]

    def _found(self, tree: Tree) -> set[str]:
        match tree:
            case (0xA0, terms):
                return set.intersection(*map(self._found, terms))
            case (0xA1, terms):
                return set.union(*map(self._found, terms))
            case (0xA3, ((_, name), (_, value))):
                return self._matching[name.decode().lower(), value.decode().lower()]
            case (0xA9, ((_, rule), (_, name), (_, value))):
                assert rule == IN_CHAIN.encode()
                return self._above(name.decode().lower(), value.decode().lower())
        raise AssertionError(tree)

    def _above(self, name: str, member: str) -> set[str]:
        """Groups with this member, however deep."""
        found: set[str] = set()
        left = [member]
        while left:
            more = self._matching[name, left.pop()] - found
            found |= more
            left += [dn.lower() for dn in more]
        return found


def _encoded(values: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(value.encode() for value in values)


def group(*members: str, kind: str = "groupOfNames", **more: Sequence[str]) -> dict[str, Sequence[str]]:
    """A group with these members."""
    return {"objectClass": [kind], "member": list(members), **more}


def dn_of(name: str) -> str:
    """A group directly below the base."""
    return f"cn={name},{BASE}"


def finder(proxy_group: str = "system-proxy", *, admits_nonmembers: bool = True, **changes: Any) -> GroupFinder:
    """A finder for these settings, of all groups."""
    least = {"urls": ("ldaps://a",), "user_base": "ou=people,dc=a", "group_base": BASE}
    settings = LdapSettings(**{**least, **changes})
    return GroupFinder(settings, settings.profile(), proxy_group, admits_nonmembers=admits_nonmembers)


def answering(*entries: Entry) -> Look:
    """A directory that finds the same whatever is looked for."""

    def look(search: Search, *, may_be_missing: bool = False) -> Sequence[Entry]:
        return entries

    return look


def find(
    groups: Mapping[str, Mapping[str, Sequence[str]]], member_of: Sequence[str] = (), **changes: Any
) -> tuple[Groups, list[Search]]:
    """The groups of alice, and what was asked for them."""
    directory = Directory(groups)
    user = Entry(ALICE, {"memberof": _encoded(member_of)} if member_of else {})
    return finder(**changes).find(user, b"alice", directory.look), directory.asked


def names(groups: Mapping[str, Mapping[str, Sequence[str]]], **changes: Any) -> set[str]:
    """The names alone."""
    return set(find(groups, **changes)[0].names)


# ---- by the members of groups


def test_member() -> None:
    """One search, by member and uniqueMember; groups of others, and what is no group, are not among them."""
    found, asked = find(
        {
            PROXY: group(ALICE),
            dn_of("Staff"): {"objectClass": ["groupOfUniqueNames"], "uniqueMember": [ALICE]},
            dn_of("others"): group("uid=bob,ou=people,dc=a"),
            dn_of("printer"): group(ALICE, kind="device"),
            "cn=admins,ou=elsewhere,dc=a": group(ALICE),
        }
    )
    assert found == Groups(frozenset({"system-proxy", "staff"}), (), ())
    (search,) = asked
    assert (search.base, search.subtree, search.size_limit, search.attributes) == (BASE, True, GROUPS_MAX, ("cn",))


def test_nothing() -> None:
    """In no group."""
    assert find({})[0] == Groups(frozenset(), (), ())


@pytest.mark.parametrize(
    "dn",
    [
        "uid=a*,dc=a",
        "uid=a)(member=*,dc=a",
        "uid=a\\2Ab,dc=a",
        "cn=M\u00fcller\\, Hans,dc=a",
        "uid=a\\00,dc=a",
        "uid=(|(cn=*)),dc=a",
    ],
)
@pytest.mark.parametrize("nested", ["no", "matching-rule"])
def test_hostile_dns(dn: str, nested: str) -> None:
    """A user's DN arrives as a value, octet by octet (case 49)."""
    directory = Directory({dn_of("a"): group(dn, kind="group"), dn_of("b"): group("uid=other,dc=a", kind="group")})
    found = finder(nested_groups=nested, group_filter="(objectClass=group)").find(Entry(dn, {}), b"a", directory.look)
    assert found.names == {"a"}


@pytest.mark.parametrize("name", [b"alice", b"*", b"a)(cn=*", b"\\2a", b"jos\xc3\xa9"])
def test_member_uid(name: bytes) -> None:
    """By the name as the entry spells it, octet by octet; what `member` says is not asked."""
    directory = Directory(
        {
            dn_of("a"): {"objectClass": ["posixGroup"], "memberUid": [name.decode()]},
            dn_of("b"): {"objectClass": ["posixGroup"], "memberUid": ["bob"], "member": [ALICE]},
        }
    )
    assert finder(flavour="rfc2307").find(Entry(ALICE, {}), name, directory.look).names == {"a"}
    assert len(directory.asked) == 1


def test_matching_rule() -> None:
    """Active Directory looks into groups itself: one search with its rule, no other (CASES 2.3)."""
    found, asked = find(
        {
            dn_of("inner"): group(ALICE, kind="group"),
            dn_of("outer"): group(dn_of("inner"), kind="group"),
            PROXY: group(dn_of("outer"), kind="group"),
            dn_of("others"): group("uid=bob,ou=people,dc=a", kind="group"),
        },
        flavour="active-directory",
    )
    assert found.names == {"inner", "outer", "system-proxy"}
    (search,) = asked
    assert filter_of(encode_search(1, search)) == (
        AND,
        (
            (EQUAL, ((4, b"objectClass"), (4, b"group"))),
            (OR, ((EXTENSIBLE, ((0x81, IN_CHAIN.encode()), (0x82, b"member"), (0x83, ALICE.encode()))),)),
        ),
    )


# ---- by the groups that the user lists


def test_member_of() -> None:
    """What lies below the base, by DN; nobody is asked (case 48)."""
    listed = [
        dn_of("Staff"),
        "CN=System-Proxy , OU=Groups,DC=A",
        "cn=admins,ou=elsewhere,dc=a",
        "cn=x,ou=xgroups,dc=a",
        "cn=y\\,ou\\=groups,dc=a",
        f"cn=deep,ou=more,{BASE}",
        dn_of("staff"),
    ]
    found, asked = find({}, listed, membership="memberof")
    assert found.names == {"staff", "system-proxy", "deep"}
    assert not asked
    assert finder(membership="memberof").user_attributes == ("memberOf",)
    assert finder().user_attributes == ()


@pytest.mark.parametrize("name", ["memberof;range=0-1499", "memberof;range=0-*", "memberof;lang-en"])
def test_member_of_in_parts(name: str) -> None:
    """Active Directory gives 1,500 values and an option; a part of the groups may leave out the one that denies."""
    user = Entry(ALICE, {"memberof": (dn_of("a").encode(),), name: (dn_of("b").encode(),)})
    with pytest.raises(DirectoryError, match="part of its groups") as caught:
        finder(membership="memberof").find(user, b"alice", Directory({}).look)
    assert (caught.value.cause, caught.value.advice) == (Cause.AMBIGUOUS, 'set membership = "member"')


@pytest.mark.parametrize("value", [b"", b"system-proxy", b"cn=\xff", b"cn=a,b"])
def test_member_of_unreadable(value: bytes) -> None:
    """What is no name is passed over: whoever may make groups can make one with a name of any length.

    Where groups have rules, its rules may deny something: then nobody can tell.
    """
    user, look = Entry(ALICE, {"memberof": (value, PROXY.encode())}), Directory({PROXY: group()}).look
    found = finder(membership="memberof").find(user, b"alice", look)
    assert found.names == {"system-proxy"}
    assert [passed[-29:] for passed in found.passed_over] == ["(it is no distinguished name)"]
    with pytest.raises(DirectoryError, match="cannot be read") as caught:
        finder(membership="memberof", rules_attribute="rule").find(user, b"alice", look)
    assert caught.value.cause is Cause.AMBIGUOUS


def test_member_of_with_rules() -> None:
    """The groups' rules are looked for, fifty groups at a time; namesakes elsewhere bring nothing."""
    groups = {dn_of(f"g{number}"): group(rule=[f"allow {number}"]) for number in range(120)}
    namesake = {f"cn=g1,ou=more,{BASE}": group(rule=["allow everything"])}
    found, asked = find(
        {**groups, **namesake}, [*groups, "cn=z,ou=elsewhere,dc=a"], membership="memberof", rules_attribute="rule"
    )
    assert len(asked) == 3
    assert {rule.entry for rule in found.rules} == set(groups)
    assert {rule.group for rule in found.rules} == found.names


def test_member_of_by_another_attribute() -> None:
    """A group whose DN begins with something else is read by itself, and its rules are heard."""
    odd, gone = f"ou=quarantine,{BASE}", dn_of("gone")
    groups = {odd: group(cn=["quarantine"], rule=["deny x"]), dn_of("a"): group(rule=["allow a"])}
    found, asked = find(groups, [odd, dn_of("a"), gone], membership="memberof", rules_attribute="rule")
    assert found.names == {"quarantine", "a"}
    assert {rule.texts for rule in found.rules} == {("deny x",), ("allow a",)}
    assert found.passed_over == (f"{gone} (group_filter does not find it)",)
    assert [(search.base, search.subtree) for search in asked] == [(BASE, True), (odd, False), (gone, False)]


@pytest.mark.parametrize("name", ["a/b", "R&D: blocked", "a\\,b", "system-proxy,ou=more"])
@pytest.mark.parametrize("membership", ["member", "memberof"])
def test_rules_of_a_group_without_a_name_here(name: str, membership: str) -> None:
    """It has no layer. What it allows is not missed much; what it denies would be allowed, so nobody can tell."""
    dn = dn_of(name)
    settings: dict[str, Any] = {"membership": membership, "rules_attribute": "rule"}
    found, _ = find({dn: group(ALICE, rule=["allow x"])}, [dn], **settings)
    assert (found.names, len(found.passed_over)) == (frozenset(), 1)
    with pytest.raises(DirectoryError, match="denies something, but has no name here") as caught:
        find({dn: group(ALICE, rule=["allow x", "{1} deny x"])}, [dn], **settings)
    assert caught.value.cause is Cause.AMBIGUOUS
    assert find({dn: group(ALICE, rule=["deny x"])}, [dn], membership=membership)[0].names == frozenset()


# ---- names


@pytest.mark.parametrize(
    ("dn", "name"),
    [
        (PROXY, "system-proxy"),
        ("CN=SYSTEM-PROXY, OU=Groups, DC=A", "system-proxy"),
        ("cn=\\73ystem\\2dproxy,ou=groups,dc=a", "system-proxy"),
        (dn_of("system-proxy2"), "system-proxy2"),
        (dn_of("xsystem-proxy"), "xsystem-proxy"),
        (f"cn=system-proxy,ou=more,{BASE}", None),
        (f"ou=more+cn=system-proxy,{BASE}", None),
        (f"cn=#0c0c73797374656d2d70726f7879,{BASE}", None),
        (dn_of("a/b"), None),
        (dn_of("a\\,b"), None),
        (dn_of("a\\5Cb"), None),
        (dn_of("a\\00"), None),
        (dn_of("\u200bsystem-proxy"), None),
        (dn_of("x" * 256), None),
        (dn_of("\\ff"), None),
        (f"cn=,{BASE}", None),
        (BASE, None),
    ],
)
@pytest.mark.parametrize("membership", ["member", "memberof"])
def test_names(dn: str, name: str | None, membership: str) -> None:
    """The proxy group is one DN; whatever else bears its name, or no name that we have, is passed over (case 48)."""
    found, _ = find({dn: group(ALICE)}, [dn], membership=membership)
    assert found.names == ({name} if name else set())
    assert [dn] * (name is None) == [passed.partition(" (")[0] for passed in found.passed_over]


def test_names_by_attribute() -> None:
    """Where the DN has another attribute, the entry's one value counts; two would leave us the choice."""
    found, _ = find(
        {
            f"ou=1,{BASE}": group(ALICE, cn=["Staff"]),
            f"ou=2,{BASE}": group(ALICE, cn=["a", "b"]),
            f"ou=3,{BASE}": group(ALICE),
            f"ou=4,{BASE}": group(ALICE, cn=["System-Proxy"]),
            f"ou=5+cn=In-DN,{BASE}": group(ALICE, cn=["other", "in-dn"]),
        }
    )
    assert found.names == {"staff", "in-dn"}
    assert [passed[:4] for passed in found.passed_over] == ["ou=2", "ou=3", "ou=4"]


def test_name_that_is_no_text() -> None:
    """Bytes that are no UTF-8 are nobody's name."""
    found = finder().find(Entry(ALICE, {}), b"a", answering(Entry(f"ou=1,{BASE}", {"cn": (b"\xff",)})))
    assert (found.names, len(found.passed_over)) == (frozenset(), 1)


@pytest.mark.parametrize(
    ("changes", "dn"),
    [
        ({}, PROXY),
        ({"proxy_group": "Internet Users"}, f"cn=internet users,{BASE}"),
        ({"group_name_attribute": "ou"}, f"ou=system-proxy,{BASE}"),
        ({"proxy_group_dn": f"cn=Proxy,ou=more,{BASE}"}, f"cn=proxy,ou=more,{BASE}"),
        ({"proxy_group": "a+b=c;#"}, f"cn=a\\2bb\\3dc\\;\\#,{BASE}"),
    ],
)
def test_proxy_group_dn(changes: dict[str, Any], dn: str) -> None:
    """By default it lies directly below the base; it goes by the tenant's name for it, whatever its own is."""
    made = finder(**changes)
    assert made.proxy_group_dn == DN.parse(dn)
    found = made.find(Entry(ALICE, {}), b"alice", Directory({dn: group(ALICE)}).look)
    assert found.names == {changes.get("proxy_group", "system-proxy").lower()}


@pytest.mark.parametrize("name", ["", "a/b", "a,b", " a", "\0"])
def test_no_proxy_group(name: str) -> None:
    """A tenant's group must have a name."""
    with pytest.raises(ValueError, match="group name"):
        finder(name)


# ---- groups of groups


def test_walk() -> None:
    """Level by level; a group in two others, and one that holds itself, come once."""
    found, asked = find(
        {
            dn_of("a"): group(ALICE),
            dn_of("b"): group(dn_of("a"), dn_of("b")),
            dn_of("c"): group(dn_of("A")),
            PROXY: group(dn_of("b"), dn_of("c")),
            dn_of("others"): group(dn_of("more")),
        },
        nested_groups="walk",
    )
    assert found.names == {"a", "b", "c", "system-proxy"}
    assert len(asked) == 4
    assert names({dn_of("a"): group(ALICE), PROXY: group(dn_of("a"))}) == {"a"}


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_ring(size: int) -> None:
    """A ring of groups ends where it began."""
    ring = {dn_of(f"g{n}"): group(dn_of(f"G{(n + 1) % size}"), *[ALICE][n:]) for n in range(size)}
    found, asked = find(ring, nested_groups="walk")
    assert found.names == {f"g{n}" for n in range(size)}
    assert len(asked) == size + 1


def test_depth() -> None:
    """Ten levels above the user's own groups."""
    chain = {dn_of("g0"): group(ALICE), **{dn_of(f"g{n}"): group(dn_of(f"g{n - 1}")) for n in range(1, 15)}}
    found, asked = find(chain, nested_groups="walk")
    assert found.names == {f"g{n}" for n in range(DEPTH_MAX + 1)}
    assert len(asked) == DEPTH_MAX + 1 == 11


def test_walk_asks_in_portions() -> None:
    """Many groups make several searches of fifty, none of which grows without end."""
    wide = {dn_of(f"g{n}"): group(ALICE) for n in range(120)}
    found, asked = find({**wide, PROXY: group(dn_of("g119"))}, nested_groups="walk")
    assert len(found.names) == 121
    assert len(asked) == 1 + 3 + 1


def test_walk_from_member_of() -> None:
    """Where users list their groups, groups of groups are searched."""
    found, _ = find(
        {dn_of("a"): group(), PROXY: group(dn_of("a"))}, [dn_of("a")], membership="memberof", nested_groups="walk"
    )
    assert found.names == {"a", "system-proxy"}


@given(st.integers(0, 2**36 - 1))
def test_walk_finds_what_can_be_reached(edges: int) -> None:
    """Any six groups in each other: those that a plain search of the graph reaches, and Active Directory's rule too."""
    inside = {n: [m for m in range(6) if edges >> (6 * n + m) & 1] for n in range(6)}
    groups = {dn_of(f"g{n}"): group(*[dn_of(f"g{m}") for m in inside[n]], *[ALICE][n:], kind="group") for n in range(6)}
    reached: set[int] = set()
    left = [0]
    while left:
        reached.add(one := left.pop())
        left += [n for n in range(6) if one in inside[n] and n not in reached]
    expected = {f"g{n}" for n in reached}
    assert expected == names(groups, nested_groups="walk", group_filter="(objectClass=group)")
    assert expected == names(groups, flavour="active-directory")


# ---- limits


def test_thousand_groups() -> None:
    """A thousand are taken, whichever way they are found."""
    many = {dn_of(f"g{n}"): group(ALICE) for n in range(GROUPS_MAX)}
    assert len(names(many)) == 1000
    assert len(find({}, list(many), membership="memberof")[0].names) == 1000


@pytest.mark.parametrize(
    "settings",
    [{}, {"membership": "memberof"}, {"nested_groups": "walk"}, {"membership": "memberof", "nested_groups": "walk"}],
)
def test_more_than_a_thousand_groups(settings: dict[str, str]) -> None:
    """Not some of them: the one that was left out may be the one that denies."""
    many = {dn_of(f"g{n}"): group(ALICE) for n in range(GROUPS_MAX + 1)}
    with pytest.raises(DirectoryError, match="more than 1000 groups") as caught:
        find(many, list(many), **settings)
    assert caught.value.cause is Cause.AMBIGUOUS
    assert "group_base" in caught.value.advice


@pytest.mark.parametrize("level", [1, 9, 10])
def test_more_than_a_thousand_groups_above(level: int) -> None:
    """The same if they come with groups of groups, also on the last level."""
    chain = {dn_of("c0"): group(ALICE), **{dn_of(f"c{n}"): group(dn_of(f"c{n - 1}")) for n in range(1, level)}}
    many = {dn_of(f"g{n}"): group(dn_of(f"c{level - 1}")) for n in range(GROUPS_MAX + 1 - level)}
    with pytest.raises(DirectoryError, match="more than 1000 groups"):
        find({**chain, **many}, nested_groups="walk")
    many.popitem()
    assert len(names({**chain, **many}, nested_groups="walk")) == 1000


def test_more_than_are_taken_are_not_looked_for() -> None:
    """The searches end where it is clear that there are too many, and namesakes elsewhere are not kept meanwhile."""
    listed = [dn_of(f"g{n}") for n in range(GROUPS_MAX + 1)]
    directory = Directory({})
    user = Entry(ALICE, {"memberof": _encoded(listed)})
    with pytest.raises(DirectoryError, match="more than 1000 groups"):
        finder(membership="memberof", rules_attribute="rule").find(user, b"alice", directory.look)
    assert directory.asked == []
    chain = {dn_of(f"a{n}"): group(ALICE) for n in range(100)}
    above = {dn_of(f"b{n}"): group(dn_of("a0")) for n in range(GROUPS_MAX)}
    directory = Directory({**chain, **above})
    with pytest.raises(DirectoryError, match="more than 1000 groups"):
        finder(nested_groups="walk").find(Entry(ALICE, {}), b"alice", directory.look)
    assert len(directory.asked) <= 1 + 2


def _fail(_search: Search, *, may_be_missing: bool = False) -> Sequence[Entry]:
    raise DirectoryError("no answer", Cause.TIMEOUT)


@pytest.mark.parametrize("settings", [{}, {"flavour": "rfc2307"}, {"flavour": "active-directory"}])
def test_no_answer(settings: dict[str, Any]) -> None:
    """Whoever cannot tell says so; nobody is in no groups for that."""
    with pytest.raises(DirectoryError, match="no answer"):
        finder(**settings).find(Entry(ALICE, {}), b"alice", _fail)


def test_no_answer_on_the_way_up() -> None:
    """The same in the middle of a walk."""
    directory = Directory({dn_of("a"): group(ALICE)})

    def look(search: Search, *, may_be_missing: bool = False) -> Sequence[Entry]:
        return _fail(search) if directory.asked else directory.look(search)

    with pytest.raises(DirectoryError, match="no answer"):
        finder(nested_groups="walk").find(Entry(ALICE, {}), b"alice", look)


@pytest.mark.parametrize("dn", ["", "staff", "cn=a,b", "cn=" + "x" * 5_000])
def test_entry_without_name(dn: str) -> None:
    """A group whose name cannot be read is passed over, unless it denies something."""
    found = finder().find(Entry(ALICE, {}), b"alice", answering(Entry(dn, {})))
    assert (found.names, len(found.passed_over)) == (frozenset(), 1)
    assert len(found.passed_over[0]) < 150
    ruled = Entry(dn, {"rule": (b"deny any:*(*)->*(*)",)})
    with pytest.raises(DirectoryError, match="no name here") as caught:
        finder(rules_attribute="rule").find(Entry(ALICE, {}), b"alice", answering(ruled))
    assert caught.value.cause is Cause.AMBIGUOUS


# ---- the proxy group comes first


HOSTILE = {
    "a name of any length": {f"cn={'x' * 5_000},{BASE}": group(ALICE, rule=["deny x"])},
    "many rules": {dn_of("x"): group(ALICE, rule=[f"rule {n}" for n in range(257)])},
    "many groups": {dn_of(f"x{n}"): group(ALICE) for n in range(GROUPS_MAX + 1)},
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("membership", ["member", "memberof", "memberuid"])
def test_who_is_no_member_is_none_whatever_others_write(hostile: str, membership: str) -> None:
    """One search, of the proxy group alone: no group that somebody else makes keeps a removed user in."""
    groups = {
        dn: {**has, "objectClass": ["groupOfNames", "posixGroup"], "memberUid": ["alice"]}
        for dn, has in HOSTILE[hostile].items()
    }
    groups[PROXY] = group("uid=bob,ou=people,dc=a", memberUid=["bob"], rule=[])
    directory = Directory(groups)
    user = Entry(ALICE, {"memberof": tuple(dn.encode() for dn in HOSTILE[hostile])})
    made = finder(membership=membership, rules_attribute="rule", admits_nonmembers=False)
    assert made.find(user, b"alice", directory.look) == Groups(frozenset(), (), ())
    assert [(search.base, search.subtree) for search in directory.asked] == [
        *([(PROXY, False)] if membership != "memberof" else []),
        (BASE, False),
    ]


def test_membership_of_groups_in_groups() -> None:
    """Active Directory's rule is asked of the proxy group alone; a walk has to see all that is above the user."""
    groups = {dn_of("a"): group(ALICE, kind="group"), PROXY: group(dn_of("a"), kind="group")}
    directory = Directory(groups)
    made = finder(flavour="active-directory", admits_nonmembers=False)
    assert made.find(Entry(ALICE, {}), b"alice", directory.look).names == {"a", "system-proxy"}
    assert [(search.base, search.subtree) for search in directory.asked] == [(PROXY, False), (BASE, True)]
    assert made.find(Entry("uid=bob,dc=a", {}), b"bob", directory.look).names == frozenset()
    assert directory.asked[2].base == PROXY
    many = {dn_of("x"): group(ALICE, rule=[f"rule {n}" for n in range(257)]), dn_of("a/b"): group(ALICE, rule=["deny"])}
    walking = finder(nested_groups="walk", rules_attribute="rule", admits_nonmembers=False)
    found = walking.find(Entry(ALICE, {}), b"alice", Directory(many).look)
    assert (found.names, found.rules, len(found.passed_over)) == (frozenset({"x"}), (), 1)


def test_a_base_that_is_gone_throws_nobody_out() -> None:
    """Half a replica, a mistake in group_base: that is for us to mend, and says nothing about the user."""

    def look(search: Search, *, may_be_missing: bool = False) -> Sequence[Entry]:
        return () if may_be_missing else _fail(search)

    with pytest.raises(DirectoryError, match="no answer"):
        finder(admits_nonmembers=False).find(Entry(ALICE, {}), b"alice", look)


# ---- rules


@given(st.permutations(["b", "a", "d", "c"]))
def test_rules(order: list[str]) -> None:
    """Each group's own, in one order however they were found; a group without rules brings none."""
    rules = {"a": ["allow a", "deny a"], "b": ["{1}allow b", "deny b"], "c": [], "d": ["deny d"]}
    groups = {dn_of(name): group(ALICE, rule=rules[name]) for name in order}
    found, (search,) = find(groups, rules_attribute="rule")
    assert search.attributes == ("cn", "rule")
    assert found.rules == (
        EntryRules("a", dn_of("a"), ("deny a", "allow a")),
        EntryRules("b", dn_of("b"), ("allow b", "deny b")),
        EntryRules("d", dn_of("d"), ("deny d",)),
    )


def test_rules_of_one_name_in_two_places() -> None:
    """Two groups may lend one name; both are heard."""
    found, _ = find(
        {dn_of("staff"): group(ALICE, rule=["deny x"]), f"cn=Staff,ou=more,{BASE}": group(ALICE, rule=["deny y"])},
        rules_attribute="rule",
    )
    assert found.names == {"staff"}
    assert {rule.texts for rule in found.rules} == {("deny x",), ("deny y",)}


def test_too_many_rules() -> None:
    """A group with more rules than are asked lets nobody in."""
    with pytest.raises(DirectoryError, match="257 rules"):
        find({dn_of("a"): group(ALICE, rule=[f"allow {n}" for n in range(257)])}, rules_attribute="rule")
