"""The detector of scans: what it catches, what it leaves alone, how exact it is, and what it costs at most."""

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy import IPAddress
from trioproxy.policy.scans import Alarm, Outcome, ScanDetector, ScanKind, ScanSettings

SECRETS = [bytes([number]) * 16 for number in range(1, 41)]
SILENT = ScanSettings(targets_max=2_000, refused_max=2_000, ports_of_one_host_max=2_000, hosts_of_one_port_max=2_000)
HOST = IPv4Address("203.0.113.7")
NETWORK = IPv4Address("198.18.0.1")
Target = tuple[IPAddress, int]


def detector_of(settings: ScanSettings | None = None, secret: bytes = SECRETS[0]) -> ScanDetector:
    """With a fixed secret, so that every run is the same."""
    return ScanDetector(settings or ScanSettings(), secret)


def vertical() -> Iterator[Target]:
    """The ports of one host, one after the other."""
    return ((HOST, port) for port in range(1, 60_000))


def horizontal(first: IPAddress = NETWORK) -> Iterator[Target]:
    """One port of neighbouring hosts."""
    return ((first + number, 22) for number in range(100_000))


def scattered(seed: int = 1) -> Iterator[Target]:
    """Any hosts and ports."""
    random = Random(seed)
    while True:
        yield IPv4Address(random.getrandbits(32)), random.randrange(1, 65_536)


def attempts(
    detector: ScanDetector,
    targets: Iterable[Target],
    *,
    per_s: float,
    begin_s: float = 0.0,
    last_s: float = 10.0,
    outcome: Outcome = Outcome.CONNECTED,
    key: str = "alice",
) -> list[tuple[int, float, Alarm]]:
    """Try them at an even pace; returns the alarms, each with the number and the time of the attempt."""
    alarms = []
    for number, (address, port) in enumerate(targets, start=1):
        passed_s = number / per_s
        if passed_s > last_s:
            break
        alarm = detector.saw(key, address, port, outcome, begin_s + passed_s)
        if alarm is not None:
            alarms.append((number, passed_s, alarm))
    return alarms


def calling_program(seed: int = 3) -> list[Target]:
    """300 flows to 200 peers, at ports of their own."""
    random = Random(seed)
    peers: list[Target] = [(IPv4Address(random.getrandbits(32)), random.randrange(1_024, 65_536)) for _ in range(200)]
    return [*peers, *((address, port + 1) for address, port in peers[:100])]


def browser(seed: int = 4) -> list[Target]:
    """Many tabs: 70 hosts, some by both ports, all again and again."""
    random = Random(seed)
    hosts: list[IPAddress] = [IPv4Address(random.getrandbits(32)) for _ in range(70)]
    return [(host, 443) for host in hosts] * 4 + [(host, 80) for host in hosts[:20]] * 4


@pytest.mark.parametrize("per_s", [12, 50, 200, 1_000])
@pytest.mark.parametrize("begin_s", [0.0, 3.3, 1_000_004.9])
@pytest.mark.parametrize("outcome", [Outcome.CONNECTED, Outcome.REFUSED])
def test_a_sweep_of_ports_is_caught_within_five_seconds(per_s: float, begin_s: float, outcome: Outcome) -> None:
    """From 12 ports a second on; a scanner's thousand ports in 10 s are 100 a second."""
    (alarm,) = attempts(detector_of(), vertical(), per_s=per_s, begin_s=begin_s, outcome=outcome)
    number, passed_s, told = alarm
    assert passed_s <= 5.0
    assert 45 <= number <= 58
    assert told.kind in {ScanKind.PORTS_OF_ONE_HOST, ScanKind.FAILURES}
    assert told.key == "alice"
    assert told.begun_s == pytest.approx(begin_s + 1 / per_s)
    assert (told.figures.address, told.figures.port) == (HOST, number)


@pytest.mark.parametrize("first", [NETWORK, IPv6Address("2001:db8::1")])
def test_a_sweep_of_hosts_is_caught(first: IPAddress) -> None:
    """Those of one port, at 40 a second, within 5 s."""
    ((number, passed_s, alarm),) = attempts(detector_of(), horizontal(first), per_s=40)
    assert alarm.kind is ScanKind.HOSTS_OF_ONE_PORT
    assert passed_s <= 5.0
    assert 130 <= number <= 175
    assert alarm.figures.hosts_of_port in {150, 151}
    assert alarm.figures.ports_of_host <= 10
    assert alarm.figures.failures == 0


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.NO_ANSWER, Outcome.DENIED])
def test_many_failures_are_caught(outcome: Outcome) -> None:
    """Whichever way they fail, and wherever they were to go."""
    ((number, _, alarm),) = attempts(detector_of(), scattered(), per_s=20, outcome=outcome)
    assert alarm.kind is ScanKind.FAILURES
    assert 45 <= number <= 56
    assert alarm.figures.failures in {50, 51}


def test_many_targets_are_caught() -> None:
    """Of any kind: so is a calling program with 200 peers, and is therefore exempted by its rule."""
    ((number, _, alarm),) = attempts(detector_of(), calling_program(), per_s=30)
    assert alarm.kind is ScanKind.TARGETS
    assert 180 <= number <= 220
    assert alarm.figures.targets == pytest.approx(200, abs=2)


def test_a_calling_program_passes_where_there_is_room_for_it() -> None:
    """300 flows to 200 peers in 10 s are no sweep; only their number is unusual."""
    assert attempts(detector_of(ScanSettings(targets_max=400)), calling_program(), per_s=30) == []


def test_a_browser_passes() -> None:
    """Many tabs, reopened."""
    for secret in SECRETS:
        assert attempts(detector_of(secret=secret), browser(), per_s=36) == []


def test_trying_again_is_no_scan() -> None:
    """A program that asks for one denied target a hundred times a second."""
    assert attempts(detector_of(), [(HOST, 25)] * 1_000, per_s=100, outcome=Outcome.DENIED) == []


@pytest.mark.parametrize(
    ("targets", "outcome", "limit"),
    [
        (vertical, Outcome.CONNECTED, 50),
        (horizontal, Outcome.CONNECTED, 150),
        (scattered, Outcome.CONNECTED, 200),
        (scattered, Outcome.REFUSED, 50),
    ],
)
def test_what_is_slower_than_the_limits_is_not_caught(
    targets: Callable[[], Iterator[Target]], outcome: Outcome, limit: int
) -> None:
    """85 % of a limit in each window, for ten minutes: a patient scanner is none of ours."""
    for secret in SECRETS[:5]:
        assert attempts(detector_of(secret=secret), targets(), per_s=limit * 0.085, last_s=600, outcome=outcome) == []


@pytest.mark.parametrize(
    ("targets", "outcome", "limit"),
    [
        (vertical, Outcome.CONNECTED, 50),
        (horizontal, Outcome.CONNECTED, 150),
        (scattered, Outcome.CONNECTED, 200),
        (scattered, Outcome.REFUSED, 50),
    ],
)
def test_the_error_is_as_stated(targets: Callable[[], Iterator[Target]], outcome: Outcome, limit: int) -> None:
    """Over 40 secrets: on average the alarm comes within 4 % of the limit, with a standard deviation of 5 % or less."""
    numbers = [
        attempts(detector_of(secret=secret), targets(), per_s=300, outcome=outcome)[0][0] / (limit + 1)
        for secret in SECRETS
    ]
    assert statistics.mean(numbers) == pytest.approx(1.0, abs=0.04)
    assert statistics.pstdev(numbers) <= 0.05
    assert 0.85 <= min(numbers) <= max(numbers) <= 1.15


def test_limits_of_others_do_not_add_up() -> None:
    """With 1,500 targets at once a host or a port is still not mistaken for a sweep of a hundred."""
    detector = detector_of(ScanSettings(targets_max=2_000, ports_of_one_host_max=100))
    assert attempts(detector, scattered(), per_s=300, last_s=5.0) == []


@given(st.integers(0, 39), st.floats(0, 1e6), st.integers(0, 2**32), st.floats(0.5, 4.9))
def test_twice_the_limit_is_always_caught(secret: int, begin_s: float, seed: int, in_s: float) -> None:
    """60 ports of a host within half a window, whenever, and whatever else there was."""
    detector = detector_of(ScanSettings(targets_max=2_000, refused_max=2_000), SECRETS[secret])
    random = Random(seed)
    attempts(detector, scattered(seed), per_s=random.randint(1, 20), begin_s=begin_s)
    ports = ((HOST, port) for port in random.sample(range(1, 65_536), 62))
    assert attempts(detector, ports, per_s=62 / in_s, begin_s=begin_s + 10)


def test_one_alarm_for_one_scan() -> None:
    """However long it goes on, and whichever limits it passes; another one after a window of quiet."""
    detector = detector_of()
    targets = vertical()
    assert len(attempts(detector, targets, per_s=100, last_s=60, outcome=Outcome.REFUSED)) == 1
    assert attempts(detector, browser(), per_s=36, begin_s=75) == []
    ((_, _, alarm),) = attempts(detector, vertical(), per_s=100, begin_s=95)
    assert alarm.begun_s == pytest.approx(95.01)


def test_a_long_day_is_not_the_begin_of_a_scan() -> None:
    """What is told as the begin lies in the window."""
    detector = detector_of()
    attempts(detector, browser() * 100, per_s=5, last_s=600)
    ((_, passed_s, alarm),) = attempts(detector, vertical(), per_s=100, begin_s=600)
    assert alarm.begun_s == pytest.approx(600 + passed_s - 10)


def test_everybody_is_watched_alone() -> None:
    """What many do together is nobody's scan."""
    detector = detector_of()
    for number, (address, port) in enumerate(vertical()):
        if number == 1_000:
            break
        assert detector.saw(("main", number % 50), address, port, Outcome.REFUSED, number * 0.005) is None
    assert len(detector) == 50


def test_the_number_of_watched_is_limited() -> None:
    """The one seen longest ago goes, and loses what it did in this window; those that were quiet go by themselves."""
    detector = detector_of(ScanSettings(keys_max=100))
    attempts(detector, vertical(), per_s=100, last_s=0.4)
    for number in range(100):
        detector.saw(number, HOST, 80, Outcome.CONNECTED, 1.0)
    assert len(detector) == 100
    assert attempts(detector, vertical(), per_s=100, begin_s=1.0, last_s=0.4) == []
    for number in range(60):
        detector.saw(1_000 + number, HOST, 80, Outcome.CONNECTED, 30.0)
    assert len(detector) == 60


def test_a_user_costs_two_kibibytes() -> None:
    """The same whatever it does."""
    detector = detector_of()
    attempts(detector, scattered(), per_s=300, last_s=600, outcome=Outcome.REFUSED)
    (watch,) = detector._watches.values()
    parts = (watch.cells, watch._counters, watch._counters_before)
    assert sys.getsizeof(watch) + sum(map(sys.getsizeof, parts)) <= 2_048


def test_full_sketches_do_not_overflow() -> None:
    """100,000 targets in a window: cells and counters are full, and an alarm was told."""
    detector = detector_of(SILENT)
    ((_, _, alarm),) = attempts(detector, horizontal(), per_s=10_000)
    assert alarm.kind in {ScanKind.HOSTS_OF_ONE_PORT, ScanKind.TARGETS}
    assert attempts(detector, vertical(), per_s=10_000, begin_s=10.0, last_s=5.0) == []


def test_a_clock_that_goes_back_does_no_harm() -> None:
    """What was counted stays until the clock has caught up."""
    detector = detector_of()
    attempts(detector, vertical(), per_s=100, begin_s=100, last_s=0.4)
    assert len(attempts(detector, ((HOST, port) for port in range(1_000, 1_030)), per_s=100, begin_s=50)) == 1


def test_other_secrets_have_other_collisions() -> None:
    """So nobody can know which targets hide each other."""
    cells = set()
    for secret in SECRETS:
        detector = detector_of(secret=secret)
        detector.saw("alice", HOST, 80, Outcome.CONNECTED, 1.0)
        cells.add(next(iter(detector._watches.values())).cells.index(b"\x08"))
    assert len(cells) >= 35


@pytest.mark.parametrize("secret", [b"", bytes(15), bytes(65)])
def test_a_secret_has_a_length(secret: bytes) -> None:
    """Neither none nor more than the hash takes."""
    with pytest.raises(ValueError):  # noqa: PT011 - ours or hashlib's
        ScanDetector(ScanSettings(), secret)


@pytest.mark.parametrize(
    "wrong",
    [{"window_s": 0}, {"targets_max": 0}, {"refused_max": 2_001}, {"ports_of_one_host_max": -1}, {"keys_max": 0}],
)
def test_limits_have_limits(wrong: dict[str, int]) -> None:
    """A sketch has a size."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScanSettings(**wrong)
