"""Blocks: how they are written, whom they hit, when they end, and that they come before everything."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy import strategies
from tests.policy.asking import ANYTHING, identity, outcome, policy, request
from trioproxy.policy import (
    AccessRequest,
    Block,
    BlockKind,
    Blocks,
    BlockSubject,
    Floor,
    Policy,
    Reason,
    Refusal,
    RuleProtocol,
    RuleSet,
    Scope,
    ScopeKind,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BOB = identity("bob")
PHYSICIST = identity("alice", tenant="physics")
ANONYMOUS = identity(None)


def block(text: str, *, tenant: str | None = None, number: int = 1, ends_at: datetime | None = None) -> Block:
    """A block of `user alice`, `target example.org:25` ..."""
    kind, _, what = text.partition(" ")
    subject = BlockSubject.parse(BlockKind(kind), what)
    return Block(number, subject, tenant, "attack", "root", NOON, ends_at)


def is_blocked(text: str, asked: AccessRequest, tenant: str | None = None) -> bool:
    """Whether this block alone forbids it."""
    return Blocks([block(text, tenant=tenant)]).deciding(asked) is not None


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("user alice", "user alice"),
        ("user main/ALICE", "user alice"),
        ("user physics/Bob", "user physics/bob"),
        ("source 10.1.0.0/16", "source 10.1.0.0/16"),
        ("source 10.1.2.3/32", "source 10.1.2.3"),
        ("source 2001:db8::/32", "source 2001:db8::/32"),
        ("source ::ffff:10.1.2.3", "source 10.1.2.3"),
        ("source private", "source private"),
        ("target Example.ORG.", "target example.org"),
        ("target *.example.org:443", "target *.example.org:443"),
        ("target 10.0.0.0/8:25,587", "target 10.0.0.0/8:25,587"),
        ("target 10.0.0.1:8000-8010", "target 10.0.0.1:8000-8010"),
        ("target 2001:db8::/32", "target 2001:db8::/32"),
        ("target [2001:db8::1]:443", "target [2001:db8::1]:443"),
        ("target [2001:db8::1]", "target 2001:db8::1"),
        ("target [2001:db8::/32]:25", "target [2001:db8::/32]:25"),
        ("target *:25", "target *:25"),
        ("target internet:*", "target internet"),
        ("everything", "everything"),
    ],
)
def test_how_a_block_is_written(text: str, canonical: str) -> None:
    """Hosts and ports as in rules, brackets where an address has colons of its own."""
    assert str(block(text).subject) == canonical
    assert str(block(canonical).subject) == canonical


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("user", "", "a user name"),
        ("user", "a/b/c", "tenant name"),
        ("source", "", "expected a host"),
        ("source", "example.org", "names of clients are never looked up"),
        ("source", "10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("source", "10.0.0.0/8(*)->*(*)", "no spaces and no brackets"),
        ("target", "", "expected a host"),
        ("target", "127.1", "four decimal numbers"),
        ("target", "example.org:", "a port"),
        ("target", "example.org:70000", "ports from 1 to 65535"),
        ("target", "example.org:443 user=bob", "no spaces"),
        ("target", "a->b", "after the host"),
        ("target", "[2001:db8::1", "in brackets is written"),
        ("target", "[2001:db8::1]443", "in brackets is written"),
        ("target", "[2001:db8::1]:", "a port"),
        ("target", "ex\u202eample.org", "no spaces"),
        ("everything", "else", "stands alone"),
    ],
)
def test_what_is_no_block(kind: str, text: str, expected: str) -> None:
    """A typing mistake in the middle of an incident is said, and is not another block."""
    with pytest.raises(ValueError, match=expected):
        BlockSubject.parse(BlockKind(kind), text)


def subjects() -> st.SearchStrategy[BlockSubject]:
    """Every kind, of a world in which they often meet requests."""
    return st.one_of(
        st.builds(BlockSubject, st.just(BlockKind.USER), user=strategies.owners(ScopeKind.USER)),
        st.builds(BlockSubject, st.just(BlockKind.SOURCE), host=strategies.hosts(names_too=False)),
        st.builds(BlockSubject, st.just(BlockKind.TARGET), host=strategies.hosts(), ports=strategies.ports()),
        st.just(BlockSubject(BlockKind.EVERYTHING)),
    )


def blocks_of_all_kinds() -> st.SearchStrategy[list[Block]]:
    """Some blocks, of one tenant or of all, each with an id of its own."""
    one = st.builds(
        Block,
        st.just(0),
        subjects(),
        st.sampled_from([None, *strategies.TENANTS]),
        st.just("attack"),
        st.just("root"),
        st.just(NOON),
        st.none() | st.sampled_from([NOON + HOUR, NOON + 2 * HOUR]),
    )
    return st.lists(one, max_size=8).map(
        lambda found: [attrs.evolve(each, id=number) for number, each in enumerate(found, start=1)]
    )


@given(subjects())
def test_p2_the_text_of_a_subject_reads_back(subject: BlockSubject) -> None:
    """P2: what the list shows can be typed again, and the store holds it as text."""
    assert BlockSubject.parse(subject.kind, subject.text) == subject


@pytest.mark.parametrize(
    ("text", "asked", "hit"),
    [
        ("user alice", request("8.8.8.8"), True),
        ("user alice", request("8.8.8.8", who=BOB), False),
        ("user alice", request("8.8.8.8", who=PHYSICIST), False),
        ("user alice", request("8.8.8.8", who=ANONYMOUS), False),
        ("user physics/alice", request("8.8.8.8", who=PHYSICIST), True),
        ("source 10.1.0.0/16", request("8.8.8.8", source="10.1.2.3"), True),
        ("source 10.1.0.0/16", request("8.8.8.8", source="10.2.2.3"), False),
        ("source 10.1.0.0/16", request("10.1.2.3", source="10.2.2.3"), False),
        ("source 10.1.0.0/16", request("8.8.8.8", source="10.1.2.3", who=ANONYMOUS), True),
        ("source 10.1.0.0/16", request("8.8.8.8", source="::ffff:10.1.2.3"), True),
        ("source 10.1.0.0/16", request("8.8.8.8", source="64:ff9b::10.1.2.3"), True),
        ("source 2001:db8::/32", request("8.8.8.8", source="2001:db8::1"), True),
        ("target 8.8.8.0/24", request("8.8.8.8"), True),
        ("target 8.8.8.0/24", request("8.8.4.4"), False),
        ("target 8.8.8.0/24", request("::ffff:8.8.8.8"), True),
        ("target 8.8.8.0/24", request("64:ff9b::8.8.8.8"), True),
        ("target 8.8.8.0/24", request("2002:808:808::1"), True),
        ("target 8.8.8.0/24:53", request("8.8.8.8"), False),
        ("target 8.8.8.0/24:53,443", request("8.8.8.8"), True),
        ("target 2001:db8::/32", request("2001:db8::5"), True),
        ("target example.org", request("8.8.8.8", name="example.org"), True),
        ("target example.org", request("8.8.8.8", name="www.example.org"), False),
        ("target example.org", request("8.8.8.8"), False),
        ("target *.example.org", request("8.8.8.8", name="a.b.example.org"), True),
        ("target *.example.org", request("8.8.8.8", name="example.org"), False),
        ("target *.example.org:80", request("8.8.8.8", name="a.example.org"), False),
        ("target *:443", request("8.8.8.8"), True),
        ("target *:25", request("8.8.8.8", 0, protocol=RuleProtocol.BIND), False),
        ("target *", request("8.8.8.8", 0, protocol=RuleProtocol.BIND), True),
        ("everything", request("8.8.8.8", who=ANONYMOUS), True),
    ],
)
def test_whom_a_block_hits(text: str, asked: AccessRequest, hit: bool) -> None:
    """Users, sources and targets, in every spelling of an address."""
    assert is_blocked(text, asked) is hit


@pytest.mark.parametrize("text", ["source *", "target *", "target example.org", "everything"])
def test_109_a_block_of_one_tenant_leaves_others_alone(text: str) -> None:
    """Case 109: with a tenant it holds for that tenant's users and clients alone."""
    asked = request("8.8.8.8", name="example.org")
    assert is_blocked(text, asked, "main")
    assert not is_blocked(text, attrs.evolve(asked, identity=PHYSICIST), "main")
    assert is_blocked(text, attrs.evolve(asked, identity=PHYSICIST))


def naive(blocks: list[Block], asked: AccessRequest) -> Block | None:
    """What blocks mean: each asked by itself, as the rule that says the same would be."""
    return next((each for each in blocks if Blocks([each]).deciding(asked) is not None), None)


@given(blocks_of_all_kinds(), strategies.requests())
def test_the_oldest_that_fits_is_named(blocks: list[Block], asked: AccessRequest) -> None:
    """However many there are: the answer is that of asking one after the other."""
    assert Blocks(reversed(blocks)).deciding(asked) == naive(blocks, asked)


@given(blocks_of_all_kinds(), strategies.requests())
def test_what_is_known_earlier_is_never_wrong(blocks: list[Block], asked: AccessRequest) -> None:
    """A client that is kept out before it asks would be refused whatever it asked."""
    all_of_them = Blocks(blocks)
    who, source = asked.identity, asked.client_address
    by_source, by_identity = all_of_them.of_source(source, who.tenant), all_of_them.of_identity(who, source)
    by_name = all_of_them.of_name(who, source, asked.name or "x", asked.port)
    decided = all_of_them.deciding(attrs.evolve(asked, name=asked.name or "x"))
    numbers = [each.id if each is not None else 99 for each in (decided, by_name, by_identity, by_source)]
    assert numbers == sorted(numbers)
    before_login = all_of_them.of_source(source, None)
    assert before_login is None or (before_login.tenant is None and by_source is not None)


def test_who_is_kept_out_before_asking() -> None:
    """Listener and login may refuse early; a target is known only when it is asked for, a name before its look-up."""
    blocks = Blocks([block("target bad.example.org", number=1), block("user alice", number=2)])
    client = ip_address("10.0.0.1")
    assert blocks.of_source(client, "main") is None
    assert blocks.of_identity(BOB, client) is None
    hit = blocks.of_identity(identity("alice"), client)
    assert hit is not None
    assert hit.id == 2
    by_name = blocks.of_name(BOB, client, "bad.example.org", 443)
    assert by_name is not None
    assert by_name.id == 1
    assert blocks.of_name(BOB, client, "good.example.org", 443) is None


def test_blocks_end() -> None:
    """What has ended does nothing; without an end it holds; the next end says when to look again."""
    first, second = block("user alice", ends_at=NOON + HOUR), block("user bob", number=2, ends_at=NOON + 2 * HOUR)
    forever = block("everything", number=3)
    blocks = Blocks([forever, second, first])
    assert blocks.next_end == NOON + HOUR
    assert blocks.in_force(NOON) is blocks
    assert list(blocks.in_force(NOON + HOUR)) == [second, forever]
    assert list(blocks.in_force(NOON + 3 * HOUR)) == [forever]
    assert blocks.in_force(NOON + 3 * HOUR).next_end is None
    assert Blocks([forever]).in_force(NOON + 3 * HOUR) == Blocks([forever])


def test_what_blocks_are() -> None:
    """They compare by what they say, and have a text."""
    one, other = Blocks([block("user alice")]), Blocks([block("user alice")])
    assert one == other
    assert hash(one) == hash(other)
    assert one != Blocks()
    assert one != "blocks"
    assert len(one) == 1
    assert not Blocks()
    assert repr(one) == "Blocks(['block 1 of user alice: attack'])"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: block("user physics/bob", tenant="physics"), "block 1 of user physics/bob: attack"),
        (lambda: block("everything", tenant="physics"), "block 1 of everything in tenant physics: attack"),
        (lambda: block("target a.org:25"), "block 1 of target a.org:25: attack"),
    ],
)
def test_the_text_of_a_block(made: Callable[[], Block], text: str) -> None:
    """What stands in records: its number for `block remove`, what it is about, and why."""
    assert str(made()) == text


def test_a_block_comes_before_the_floor_and_every_rule() -> None:
    """The switch for emergencies: nothing that is written elsewhere undoes it."""
    rules = policy({"global": [ANYTHING], "user:alice": [ANYTHING]})
    stopped = rules.with_blocks(Blocks([block("user alice")]))
    asked, floor = request("8.8.8.8"), request("127.0.0.1")
    text = "block 1 of user alice: attack"
    assert Refusal(asked, Reason.BLOCKED, rule=text) == stopped.judge(asked) == stopped.explain(asked).verdict
    assert Refusal(floor, Reason.BLOCKED, rule=text) == stopped.judge(floor)
    assert outcome(stopped.judge(request("8.8.8.8", who=BOB)))[0] == "permit"
    assert outcome(rules.judge(asked))[0] == "permit"


def test_who_is_blocked_may_never() -> None:
    """No name is resolved and no association opened for somebody who is kept out."""
    rules = policy({"global": [ANYTHING]})
    client = ip_address("10.0.0.1")
    stopped = rules.with_blocks(Blocks([block("user alice"), block("target *", number=2)]))
    assert not stopped.may_ever(identity("alice"), client, RuleProtocol.TCP)
    assert stopped.may_ever(BOB, client, RuleProtocol.TCP)
    assert rules.may_ever(identity("alice"), client, RuleProtocol.TCP)


@given(strategies.policies(), strategies.requests(), blocks_of_all_kinds())
def test_p3_a_block_more_never_allows_more(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, blocks: list[Block]
) -> None:
    """P3: a block decides, or the verdict is that without any."""
    without = Policy(rule_sets, Floor())
    verdict = Policy(rule_sets, Floor(), blocks=Blocks(blocks)).judge(asked, NOON)
    decided = naive(blocks, asked)
    if decided is None:
        assert verdict == without.judge(asked, NOON)
    else:
        assert verdict == Refusal(asked, Reason.BLOCKED, rule=str(decided))
    assert verdict == without.with_blocks(Blocks(blocks)).judge(asked, NOON)
