"""Places: as many as the limits say, refusals counted, nothing kept for who has left."""

import resource
from collections import Counter

from trioproxy.limits import Minute, Occupancy, Pace, descriptors_max, raise_descriptor_limit


def test_each_key_has_its_own_places() -> None:
    """One key at its limit takes nothing from another; the refusal is counted."""
    counters: Counter[str] = Counter()
    places = Occupancy("sessions", counters, each_max=2)
    assert [places.enter("a"), places.enter("a"), places.enter("a"), places.enter("b")] == [True, True, False, True]
    assert counters == {"sessions_limit_each": 1}
    places.leave("a")
    assert places.enter("a")


def test_keys_that_left_use_no_memory() -> None:
    """Only who holds a place is remembered."""
    places = Occupancy("x", Counter(), each_max=2)
    for key in range(100):
        assert places.enter(key)
        places.leave(key)
    assert places.total == 0
    assert places._taken == {}


def test_limits_may_change_while_places_are_taken() -> None:
    """A reload lowers a limit: who is in stays in, nobody new comes in."""
    places = Occupancy("x", Counter(), each_max=2)
    assert places.enter("a")
    assert places.enter("a")
    places.each_max = 1
    assert not places.enter("a")
    places.leave("a")
    assert not places.enter("a")
    places.leave("a")
    assert places.enter("a")


def test_pace_allows_many_at_once_and_then_a_rate() -> None:
    """Law 12: two at once, then one each half second; what was not used is kept, but never more than two."""
    pace = Pace(at_once=2.0, per_s=2.0)
    assert [pace.take(now_s) for now_s in (10.0, 10.0, 10.0, 10.4, 10.5, 10.6)] == [
        True,
        True,
        False,
        False,
        True,
        False,
    ]
    assert [pace.take(now_s) for now_s in (99.0, 99.0, 99.0)] == [True, True, False]


def test_descriptor_limit_is_raised_to_what_is_allowed() -> None:
    """The soft limit becomes the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert raise_descriptor_limit() == hard
        assert descriptors_max() == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_minute_is_counted_by_seconds() -> None:
    """What was in the same second goes together, and not before all of it is a minute ago."""
    minute = Minute()
    assert [minute.take(3, now_s) for now_s in (10.2, 10.9, 11.0, 11.5)] == [True, True, True, False]
    assert [minute.total(now_s) for now_s in (70.9, 71.0, 71.9, 72.0)] == [3, 1, 1, 0]
    assert not minute.take(0, 72.0)
