"""The interface and its three answers."""

import attrs
import pytest

from auth import Backend, Credentials, Identity, Rejected, Rejection, Unavailable
from tests.auth.doubles import FakeBackend


def test_password_is_not_printed() -> None:
    """No `repr`, `str` or error text of credentials shows the password (case 36)."""
    said = Credentials("main", "alice", "PW-CANARY", "10.1.2.3")
    assert "CANARY" not in f"{said!r} {said} {[said]} {said=}"
    with pytest.raises(attrs.exceptions.FrozenInstanceError) as caught:
        said.password = "OTHER-CANARY"  # type: ignore[misc]
    assert "CANARY" not in str(caught.value)


def test_answers_are_told_apart() -> None:
    """Rejected and "could not tell" are different types, and neither is an identity (CASES 2.3)."""
    answers = [Identity("main", "alice"), Rejected(Rejection.WRONG_PASSWORD), Unavailable("down")]
    assert [[isinstance(answer, kind) for kind in (Identity, Rejected, Unavailable)] for answer in answers] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]


def test_what_is_a_backend() -> None:
    """Whatever has the three methods fits; what lacks one does not."""
    assert isinstance(FakeBackend(), Backend)
    assert not isinstance(object(), Backend)
