"""Tests of `trioproxy.policy.policy` where rules have hours, ask what a flow is, or permit under terms."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth import EntryRules, Identity
from tests.policy import oracle, strategies
from tests.policy.asking import decided, identity, outcome, policy, request
from trioproxy.policy import (
    AccessRequest,
    Floor,
    Permit,
    Policy,
    Reason,
    Refusal,
    RuleSet,
    Scope,
    Term,
    TimeZones,
)
from trioproxy.policy import policy as module
from trioproxy.policy.hours import Hours
from trioproxy.sniff import App, Finding

ALICE = identity("alice", ["staff"])
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = TimeZones(UTC, {"physics": BERLIN})
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
OFFICE = "tcp:*(*)->*(*) when=mon-fri@08:00-18:00"


def at(hour: int, minute: int = 0, day: int = 0) -> datetime:
    """A time of that week in UTC."""
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


def member_of_directory(*texts: str, tenant: str = "main") -> Identity:
    """Alice with rules of her own in a directory."""
    return attrs.evolve(identity("alice", tenant=tenant), rules=(EntryRules(None, "uid=alice", texts),))


# ---- hours


def test_a_rule_speaks_in_its_hours_alone() -> None:
    """Outside them it is as if it were not there: the next rule of the layer decides."""
    rules = policy({"user:alice": [OFFICE, "deny tcp:*(*)->*(25)", "tcp:*(*)->*(443)"]})
    assert decided(rules.judge(request("192.0.2.1", 25), at(12))) == ("permit", "user:alice", OFFICE)
    assert decided(rules.judge(request("192.0.2.1", 25), at(7, 59))) == ("rule", "user:alice", "deny tcp:*(*)->*(25)")
    assert decided(rules.judge(request("192.0.2.1"), at(18))) == ("permit", "user:alice", "tcp:*(*)->*(443)")


def test_only_a_rule_whose_own_hours_are_over_has_grace() -> None:
    """It must stand yet; whatever else stands against the flow, there is none."""
    patient, impatient = f"{OFFICE} grace=30s", "tcp:*(*)->*(*) when=mon-fri@09:00-17:00"
    evening, night = at(19), at(23)
    rules = policy({"global": [patient], "tenant:main": [impatient]})
    permit = rules.judge(request("1.1.1.1"), at(10))
    assert isinstance(permit, Permit)
    refusal = rules.judge(request("1.1.1.1"), evening)
    assert isinstance(refusal, Refusal)
    assert rules.grace_s([permit], refusal, evening) == 30
    assert rules.grace_s([], refusal, evening) == 0
    changed = policy({"tenant:main": [impatient]})  # the patient one is gone
    assert changed.grace_s([permit], refusal, evening) == 0
    begins = policy({"global": [patient, "deny tcp:*(*)->*(*) when=12:00-13:00"], "tenant:main": [impatient]})
    denied = attrs.evolve(refusal, reason=Reason.HOURS)
    assert begins.grace_s([permit], denied, at(12, 30)) == 0  # its own hours are not over
    assert rules.grace_s([permit], attrs.evolve(refusal, reason=Reason.RULE), night) == 0
    always = rules.judge(request("1.1.1.1"), at(10))
    assert isinstance(always, Permit)
    assert rules.grace_s([attrs.evolve(always, terms=())], refusal, evening) == 0


def test_hours_are_those_of_the_clock_of_the_tenant_of_who_asks() -> None:
    """The same rule, at the same moment, for two tenants; also where it stands in the global layer."""
    rules = policy({"global": [OFFICE]}, zones=ZONES)
    here, there = (request("192.0.2.1", who=identity("alice", tenant=tenant)) for tenant in ("main", "physics"))
    assert isinstance(rules.judge(here, at(7, 30)), Refusal)
    assert isinstance(rules.judge(there, at(7, 30)), Permit)
    assert isinstance(rules.judge(here, at(17, 30)), Permit)
    assert isinstance(rules.judge(there, at(17, 30)), Refusal)


def test_a_time_is_asked_for_only_where_rules_have_hours() -> None:
    """And then never guessed."""
    plain, timed = policy({"global": ["tcp:*(*)->*(*)"]}), policy({"user:bob": [OFFICE]})
    assert (plain.has_hours, timed.has_hours) == (False, True)
    assert (plain.wants_time(ALICE), timed.wants_time(ALICE)) == (False, True)
    assert isinstance(plain.judge(request("192.0.2.1")), Permit)
    with pytest.raises(AssertionError, match="nobody said what time it is"):
        timed.judge(request("192.0.2.1"))
    with pytest.raises(AssertionError, match="without a zone"):
        timed.judge(request("192.0.2.1"), datetime(2026, 11, 23, 12))  # noqa: DTZ001 - what is wrong is the test


def test_rules_of_a_directory_have_hours_as_well() -> None:
    """Policy itself may have none; whoever brings some is asked about."""
    rules = policy({}, zones=ZONES)
    timed, plain = member_of_directory(OFFICE), member_of_directory("tcp:*(*)->*(443)")
    assert (rules.has_hours, rules.wants_time(timed), rules.wants_time(plain)) == (False, True, False)
    assert (rules.wants_finding(timed), rules.wants_finding(member_of_directory("tcp:*(*)->*(*) app=tls"))) == (
        False,
        True,
    )
    assert outcome(rules.judge(request("192.0.2.1", who=timed), at(12))) == ("permit", "user:alice", OFFICE)
    assert outcome(rules.judge(request("192.0.2.1", who=timed), at(6)))[0] == "not at this hour"
    assert isinstance(rules.judge(request("192.0.2.1", who=plain)), Permit)
    with pytest.raises(AssertionError, match="nobody said what time it is"):
        rules.judge(request("192.0.2.1", who=timed))


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ({"global": [OFFICE]}, Reason.HOURS),
        ({"tenant:main": [OFFICE]}, Reason.HOURS),
        ({"group:staff": [OFFICE]}, Reason.HOURS),
        ({"global": [f"{OFFICE} user=alice"]}, Reason.HOURS),
        ({"global": [f"{OFFICE} group=staff"]}, Reason.HOURS),
        ({"user:bob": [OFFICE]}, Reason.NO_RULE),
        ({"tenant:physics": [OFFICE]}, Reason.NO_RULE),
        ({"global": ["tcp:*(*)->*(80) when=08:00-18:00"]}, Reason.NO_RULE),
        ({"global": ["deny tcp:*(*)->*(443)"], "user:alice": [OFFICE]}, Reason.RULE),
        ({"global": ["deny tcp:*(*)->*(443) when=00:00-06:30", "tcp:*(*)->*(443)"]}, Reason.HOURS),
        ({"global": ["deny tcp:*(*)->*(443) when=00:00-24:00", "tcp:*(*)->*(443)"]}, Reason.RULE),
        ({"global": ["deny tcp:*(*)->*(443) when=08:00-18:00", OFFICE]}, Reason.NO_RULE),
    ],
)
def test_a_refusal_of_the_hour_can_be_told_from_others(layers: dict[str, list[str]], reason: Reason) -> None:
    """HOURS: the same request would be permitted at another time of the week."""
    verdict = policy(layers).judge(request("192.0.2.1", who=ALICE), at(6))
    assert isinstance(verdict, Refusal)
    assert verdict.reason is reason


def test_only_so_many_times_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal costs no more than a limited number of verdicts, however many hours there are."""
    spans = [f"tcp:*(*)->*(80) when={hour:02}:30-{hour:02}:45" for hour in range(12)]
    rules = policy({"global": [*spans, "tcp:*(*)->*(443) when=20:00-21:00"]})
    verdict = rules.judge(request("192.0.2.1"), at(6))
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.HOURS
    monkeypatch.setattr(module, "HOURS_TRIED_MAX", 5)
    verdict = rules.judge(request("192.0.2.1"), at(6))
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.NO_RULE


def test_the_second_refusal_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which choices of hours there are is found out once: a flood of refusals must not hold everybody up."""
    rules = policy(
        {"global": [f"tcp:*(*)->10.{i}.0.0/16(*) when={i % 12:02}:{i:02}-{12 + i % 12}:{i:02}" for i in range(50)]}
    )
    asked, cover = [0], Hours.cover

    def counted(hours: Hours, minute: int) -> bool:
        asked[0] += 1
        return cover(hours, minute)

    monkeypatch.setattr(Hours, "cover", counted)
    assert isinstance(rules.judge(request("192.0.2.1"), at(6)), Refusal)
    first, asked[0] = asked[0], 0
    assert isinstance(rules.judge(request("192.0.2.1"), at(6)), Refusal)
    assert first > 1_000
    assert asked[0] <= 100


def test_the_floor_stays_the_floor() -> None:
    """No hour and no finding opens it."""
    rules = policy({"global": [OFFICE, "tcp:*(*)->*(*) app=tls"]})
    verdict = rules.judge(request("127.0.0.1", finding=Finding(App.SSH)), at(6))
    assert isinstance(verdict, Refusal)
    assert verdict.reason is Reason.FLOOR


@given(strategies.policies(), strategies.requests(), strategies.moments(), st.integers(0, 7 * 24 * 60))
def test_p3_hours_as_a_cause_mean_that_another_time_would_do(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, later: int
) -> None:
    """P3: a request that some other minute permits is refused for what it is, for the hour, and never for good."""
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    verdict = rules.judge(asked, now)
    other = rules.judge(asked, now + timedelta(minutes=later))
    if isinstance(verdict, Refusal) and isinstance(other, Permit):
        assert verdict.reason in (Reason.HOURS, Reason.APP)
    if isinstance(verdict, Refusal) and verdict.reason is Reason.HOURS:
        week = [now + timedelta(minutes=minute) for minute in range(0, 8 * 24 * 60, 30)]
        week += [moment + timedelta(minutes=1) for moment in week]
        assert any(isinstance(rules.judge(asked, moment), Permit) for moment in week)


# ---- the next border


def test_the_next_border_is_that_of_any_rule() -> None:
    """Of each layer by the clock of its tenant; a global rule for everybody by each clock."""
    tcp = "tcp:*(*)->*(*)"
    layers = {"user:alice": [f"{tcp} when=08:00-18:00"], "group:physics/staff": [f"{tcp} when=08:10-18:10"]}
    rules = policy(layers, zones=ZONES)
    assert rules.next_border(at(0)) == at(7, 10)
    assert rules.next_border(at(7, 10)) == at(8)
    everybody = policy({"global": [OFFICE]}, zones=ZONES)
    assert [everybody.next_border(at(hour)) for hour in (6, 7, 8, 17)] == [at(7), at(8), at(17), at(18)]
    one_user = policy({"global": ["tcp:*(*)->*(*) user=physics/alice when=mon-fri@08:00-18:00"]}, zones=ZONES)
    assert [one_user.next_border(at(hour)) for hour in (6, 7)] == [at(7), at(17)]


def test_without_hours_there_is_no_border() -> None:
    """Nothing to wake up for."""
    assert policy({"global": ["tcp:*(*)->*(*)"]}).next_border(at(0)) is None
    assert policy({"global": ["tcp:*(*)->*(*) when=00:00-24:00"]}).next_border(at(0)) is None


def test_hours_of_a_directory_have_borders_while_somebody_has_them() -> None:
    """They are those of the identities that are online."""
    rules = policy({"global": [OFFICE]})
    online = [member_of_directory("tcp:*(*)->*(*) when=07:15-07:45"), ALICE]
    assert [rules.next_border(at(7), online), rules.next_border(at(7))] == [at(7, 15), at(8)]
    physics = [member_of_directory("tcp:*(*)->*(*) when=07:15-07:45", tenant="physics")]
    assert policy({}, zones=ZONES).next_border(at(0), physics) == at(6, 15)


@given(
    strategies.policies(), strategies.requests() | strategies.requests(unknown=True), strategies.moments(), st.data()
)
def test_p3_no_verdict_changes_before_the_next_border(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime, data: st.DataObject
) -> None:
    """P3: who judges again at each border misses nothing."""
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    border = rules.next_border(now, [asked.identity])
    wait = timedelta(days=9) if border is None else border - now
    later = now + data.draw(st.floats(0, 1, exclude_max=True)) * wait
    assert rules.judge(asked, now) == rules.judge(asked, later)


# ---- terms


def test_a_permit_has_no_terms_unless_a_rule_sets_some() -> None:
    """The usual case."""
    verdict = policy({"global": ["tcp:*(*)->*(*) log=yes"]}).judge(request("192.0.2.1"))
    assert isinstance(verdict, Permit)
    assert (verdict.terms, verdict.sniff) == ((), False)


@pytest.mark.parametrize(
    "option", ["rate=1Mbit", "rate=1Mbit burst=1MB", "quota=1GB/day", "when=00:00-24:00 grace=5m", "scan=ignore"]
)
def test_the_terms_of_the_deciding_rule_come_with_the_permit(option: str) -> None:
    """With the rule itself, so that whoever shapes or counts need not read text."""
    rules = policy({"user:alice": [f"tcp:*(*)->*(*) {option}"]})
    verdict = rules.judge(request("192.0.2.1"), at(0))
    assert isinstance(verdict, Permit)
    (term,) = verdict.terms
    assert term == Term("user:alice", f"tcp:*(*)->*(*) {option}", rules.rule_sets[Scope.parse("user:alice")][0])
    assert term.rule is rules.rule_sets[Scope.parse("user:alice")][0]


def test_the_terms_of_all_layers_hold_together() -> None:
    """Of each layer's deciding rule, from the outermost; not of rules that do not decide."""
    slow, daily = "tcp:*(*)->*(*) rate=1Mbit", "tcp:*(*)->*(*) quota=1GB/day"
    rules = policy(
        {
            "user:alice": [daily],
            "global": ["tcp:*(*)->*(443)", slow],
            "tenant:main": [slow],
            "group:staff": ["any:*(*)->*(*)"],
        }
    )
    verdict = rules.judge(request("192.0.2.1", who=ALICE))
    assert isinstance(verdict, Permit)
    assert [(term.scope, term.text) for term in verdict.terms] == [("tenant:main", slow), ("user:alice", daily)]
    assert verdict.rule == "tcp:*(*)->*(443)"


def test_what_holds_for_an_address_inside_an_address_holds_too() -> None:
    """The IPv4 address behind NAT64 may be slow, or have to be looked at; nothing is said twice."""
    wide, slow = "tcp:*(*)->::/0(*) quota=1GB/day", "tcp:*(*)->8.0.0.0/8(*) rate=1Mbit"
    verdict = policy({"global": [wide, slow]}).judge(request("64:ff9b::8.8.8.8"))
    assert isinstance(verdict, Permit)
    assert [term.text for term in verdict.terms] == [wide, slow]
    both = policy({"global": ["tcp:*(*)->*(*) rate=1Mbit"]}).judge(request("64:ff9b::8.8.8.8"))
    assert isinstance(both, Permit)
    assert len(both.terms) == 1
    look = policy({"global": [wide, "tcp:*(*)->8.0.0.0/8(*) app=tls"]}).judge(request("64:ff9b::8.8.8.8"))
    assert isinstance(look, Permit)
    assert (look.sniff, look.terms) == (True, ())


def test_the_terms_of_several_entries_of_a_directory_hold_together() -> None:
    """Two groups of one name in different places: what one limits, the other does not undo."""
    texts = (
        "tcp:*(*)->*(443)",
        "tcp:*(*)->*(*) rate=1Mbit",
        "tcp:*(*)->*(*) quota=1GB/day",
        "tcp:*(*)->*(*) rate=1Mbit",
    )
    entries = tuple(EntryRules("staff", f"cn=staff,ou={number}", (text,)) for number, text in enumerate(texts))
    who = attrs.evolve(ALICE, rules=entries)
    for layers in ({}, {"global": ["tcp:*(*)->*(80) app=tls"]}):  # without and with rules that ask
        verdict = policy(layers).judge(request("192.0.2.1", who=who))
        assert isinstance(verdict, Permit)
        assert verdict.rule == texts[0]
        assert [term.text for term in verdict.terms] == [texts[2], texts[1]]


@given(strategies.policies(), strategies.requests(), strategies.moments())
def test_p3_terms_are_those_of_the_layers_that_allow(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime
) -> None:
    """P3: against the naive scan, for an address without another one inside."""
    asked = attrs.evolve(asked, address=request("93.184.216.34").address)
    verdict = Policy(rule_sets, Floor(), strategies.ZONES).judge(asked, now)
    local = strategies.local(now, asked.identity)
    expected = []
    for scope in oracle.layers_of(asked.identity):
        written = oracle.directory_rules(asked.identity, scope)
        votes = oracle.layer_votes(rule_sets.get(scope, RuleSet()), written, asked, asked.address, local)
        limiting = {str(rule) for rule in votes if rule.rate or rule.quota or rule.hours or rule.scan_ignored}
        expected += [(str(scope), text) for text in sorted(limiting)]
    if isinstance(verdict, Permit):
        assert expected == [(term.scope, term.text) for term in verdict.terms]


# ---- findings


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ({"global": ["tcp:*(*)->*(*) app=tls"]}, Reason.APP),
        ({"global": ["deny tcp:*(*)->*(*) app=ssh", "tcp:*(*)->*(*)"]}, Reason.APP),
        ({"global": ["deny tcp:*(*)->*(443)", "tcp:*(*)->*(*) app=tls"]}, Reason.RULE),
        ({"global": ["tcp:*(*)->*(80) app=tls"]}, Reason.NO_RULE),
        ({"global": ["tcp:*(*)->*(*) app=tls when=08:00-18:00"]}, Reason.NO_RULE),
        ({"global": ["tcp:*(*)->*(*) app=ssh when=08:00-18:00"]}, Reason.HOURS),
    ],
)
def test_a_refusal_of_the_traffic_can_be_told_from_others(layers: dict[str, list[str]], reason: Reason) -> None:
    """APP: as long as nobody had looked it was not refused."""
    rules = policy(layers)
    verdict = rules.judge(request("192.0.2.1", finding=Finding(App.SSH)), at(6))
    assert isinstance(verdict, Refusal)
    assert verdict.reason is reason


def test_a_finding_that_nobody_asks_for_changes_nothing() -> None:
    """Who has looked for another reason is judged as everybody else."""
    rules = policy({"global": ["tcp:*(*)->*(443)"]})
    asked = [request("192.0.2.1", port, finding=Finding(App.SSH)) for port in (443, 80)]
    assert [outcome(rules.judge(one))[0] for one in asked] == ["permit", "no rule allows it"]


@given(strategies.policies(), strategies.requests(), strategies.moments())
def test_p3_a_cause_is_named_only_for_a_refusal_that_it_makes(
    rule_sets: dict[Scope, RuleSet], asked: AccessRequest, now: datetime
) -> None:
    """P3: APP exactly where it was not refused before the look."""
    rules = Policy(rule_sets, Floor(), strategies.ZONES)
    verdict = rules.judge(asked, now)
    before = rules.judge(attrs.evolve(asked, finding=None), now)
    if isinstance(verdict, Refusal):
        assert (verdict.reason is Reason.APP) == (isinstance(before, Permit) and rules.wants_finding(asked.identity))
