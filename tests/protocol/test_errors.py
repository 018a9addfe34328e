"""Each mistake of a client has one answer."""

import copy

import pytest

from trioproxy.protocol import (
    ANSWERS,
    AuthenticationReply,
    AuthenticationStatus,
    LocalProtocolError,
    Method,
    MethodSelection,
    ProtocolError,
    RemoteProtocolError,
    Reply,
    ReplyMessage,
    Violation,
)

_SILENT = {Violation.HTTP, Violation.TLS, Violation.NOT_SOCKS, Violation.TRUNCATED, Violation.TOO_MUCH_EARLY_DATA}


def test_every_violation_has_an_answer() -> None:
    """RFC 1928 section 6: no mistake may leave the server without knowing what to say."""
    assert set(Violation) == set(ANSWERS)


@pytest.mark.parametrize(
    ("violation", "answer"),
    [
        (Violation.SOCKS4, "00 5b 00 00 00 00 00 00"),
        (Violation.NO_METHODS, "05 ff"),
        (Violation.BAD_SUBNEGOTIATION_VERSION, "01 01"),
        (Violation.BAD_REQUEST_VERSION, "05 01 00 01 00 00 00 00 00 00"),
        (Violation.UNKNOWN_COMMAND, "05 07 00 01 00 00 00 00 00 00"),
        (Violation.RESERVED_NOT_ZERO, "05 01 00 01 00 00 00 00 00 00"),
        (Violation.UNKNOWN_ADDRESS_TYPE, "05 08 00 01 00 00 00 00 00 00"),
        (Violation.EMPTY_NAME, "05 01 00 01 00 00 00 00 00 00"),
        (Violation.PORT_ZERO, "05 01 00 01 00 00 00 00 00 00"),
        *((violation, "") for violation in Violation if violation in _SILENT),
    ],
)
def test_answer(violation: Violation, answer: str) -> None:
    """Case 3 to 7: the octets that each mistake is answered with."""
    assert bytes.fromhex(answer) == RemoteProtocolError(violation).answer


def test_answers_are_messages() -> None:
    """RFC 1928 section 6: what is answered to a mistake is what the messages would say."""
    said = {
        MethodSelection(Method.NO_ACCEPTABLE_METHODS).encode(),
        AuthenticationReply(AuthenticationStatus.FAILURE).encode(),
        *(ReplyMessage(reply).encode() for reply in Reply if reply is not Reply.SUCCEEDED),
    }
    spoken = {answer for violation, answer in ANSWERS.items() if violation not in _SILENT | {Violation.SOCKS4}}
    assert spoken <= said


def test_counters_have_names_of_their_own() -> None:
    """Case 4: one counter for each kind of mistake, whose name a metric can carry."""
    names = [violation.value for violation in Violation]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalnum() and name.islower() for name in names)


def test_text_names_the_mistake_and_the_octet() -> None:
    """Case 6: a log tells Tor's command 0xF0 from noise."""
    assert str(RemoteProtocolError(Violation.UNKNOWN_COMMAND, 0xF0)) == "unknown_command (0xf0)"
    assert str(RemoteProtocolError(Violation.TRUNCATED)) == "truncated"


def test_error_survives_copying() -> None:
    """An error keeps what it says when it travels between contexts that copy it."""
    error = copy.copy(RemoteProtocolError(Violation.TLS, 0x16))
    assert (error.violation, error.octet) == (Violation.TLS, 0x16)


def test_whose_fault() -> None:
    """The client's mistake is never taken for ours, and both are ProtocolErrors."""
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert issubclass(LocalProtocolError, ProtocolError)
    assert not issubclass(LocalProtocolError, RemoteProtocolError)
