"""A moment by which something must be done."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.backend import Cause
from auth.ldap import deadline
from auth.ldap.deadline import Deadline
from auth.ldap.failure import DirectoryError

seconds = st.floats(0, 1e6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Instead of the monotonic clock."""
    made = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: made.now_s))
    return made


def test_left(clock: SimpleNamespace) -> None:
    """It gets less, and is never nothing: a socket takes 0 for "do not wait" and less for a mistake."""
    end = Deadline.after(5.0)
    assert end.left_s() == 5.0
    clock.now_s = 1004.5
    assert end.left_s() == 0.5
    for now_s in (1005.0, 1005.1, 2000.0):
        clock.now_s = now_s
        with pytest.raises(DirectoryError, match="no answer in time") as caught:
            end.left_s()
        assert (caught.value.cause, caught.value.of_one_server) == (Cause.TIMEOUT, True)


def test_no_time_at_all(clock: SimpleNamespace) -> None:
    """Over before it began."""
    with pytest.raises(DirectoryError, match="no answer in time"):
        Deadline.after(0.0).left_s()


def test_within(clock: SimpleNamespace) -> None:
    """A part of a login has its own time, and never more than the login has."""
    login = Deadline.after(5.0)
    assert login.within(3.0) == Deadline(1003.0)
    clock.now_s = 1004.0
    assert login.within(3.0) == login
    clock.now_s = 1006.0
    assert login.within(3.0) == login


@given(seconds, st.lists(seconds, max_size=4))
def test_never_later(total_s: float, parts_s: list[float]) -> None:
    """However often it is cut, a deadline comes no later."""
    end = Deadline.after(total_s)
    cut = end
    for part_s in parts_s:
        before, cut = cut, cut.within(part_s)
        assert cut.at_s <= before.at_s
    assert cut.at_s <= end.at_s
