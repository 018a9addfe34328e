"""Users that a program of the site knows: one question as a line of JSON, one answer, then it ends.

The program is started without a shell, gets the password on its standard input (what stands on a command line can be
read by everybody on the machine), and is killed with everything it has started when it takes too long.
"""

import json
import os
import select
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs

from auth import Answer, Cause, Credentials, Identity, Rejected, Rejection, Step, Unavailable
from auth.local import BackendContext
from auth.names import canonical_group

__all__ = ["ProgramBackend", "ProgramSettings"]

_ANSWER_BYTES_MAX: Final = 65_536  # 255 groups with names of the greatest length

# What the program may say, and what it means.
_REASONS: Final = {
    "unknown user": Rejection.UNKNOWN_USER,  # the only one that lets trioproxy ask the next backend
    "wrong password": Rejection.WRONG_PASSWORD,
    "disabled": Rejection.DISABLED,
    "expired": Rejection.EXPIRED,
}


def _check_command(_instance: object, _attribute: "attrs.Attribute[Any]", command: tuple[str, ...]) -> None:
    # No search along PATH: which program checks passwords must not depend on who started the server.
    if not command or not command[0].startswith("/"):
        raise ValueError("command: the first word is the absolute path of the program")
    if any("\0" in word for word in command):
        raise ValueError("command: no program can be given a NUL")


def _between(low: float, high: float) -> Any:  # noqa: ANN401 - a validator of attrs for int and float
    def check(_instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
        if not low <= value <= high:
            raise ValueError(f"{attribute.name}: {value:g} is not between {low:g} and {high:g}")

    return check


@attrs.frozen(kw_only=True)
class ProgramSettings:
    """The table `[auth.NAME]`. Types are checked by trioproxy, and a key that is not here is an error.

    Attributes:
        command: the program with its arguments.
        answer_s: it takes no longer.
        in_flight_max: how many of it run at once.
        revalidate_s: how often it is asked again about users with live sessions.
    """

    command: tuple[str, ...] = attrs.field(validator=_check_command)
    answer_s: float = attrs.field(default=3.0, validator=_between(0.01, 60))  # a login may take 5 s in all
    in_flight_max: int = attrs.field(default=8, validator=_between(1, 256))  # a process each
    revalidate_s: float = attrs.field(default=60.0, validator=_between(1, 3600))


class _ProgramError(Exception):
    """The program could not tell. Never carries what it was asked.

    Attributes:
        cause: for the counter, and for who looks for the mistake.
        advice: what to change.
    """

    def __init__(self, problem: str, cause: Cause, advice: str) -> None:
        super().__init__(problem)
        self.cause = cause
        self.advice = advice


class ProgramBackend:
    """What trioproxy builds from the table. Its methods are called from several threads at once."""

    settings_type: ClassVar[type] = ProgramSettings

    def __init__(self, settings: ProgramSettings, context: BackendContext) -> None:
        # No side effects here: `trioproxy check` builds a backend, too, and never opens it.
        self._settings = settings
        self._context = context
        self._closed = False

    @property
    def in_flight_max(self) -> int | None:
        """A number, as we wait for somebody else; None would mean that this backend computes."""
        return self._settings.in_flight_max

    @property
    def revalidate_s(self) -> float | None:
        """A number, as nobody tells us when the program has changed its mind."""
        return self._settings.revalidate_s

    def open(self) -> None:
        """Look whether the program is there.

        Raises:
            OSError: it is not; the server does not start, and says why.
        """
        program = Path(self._settings.command[0])
        if not (program.is_file() and os.access(program, os.X_OK)):
            raise OSError(f"command: {program} is no program that this user may run")
        self._closed = False

    def close(self) -> None:
        """Ask nothing more. What runs ends by itself, in answer_s at the latest."""
        self._closed = True

    def authenticate(self, credentials: Credentials) -> Answer:
        """A login. trioproxy has made sure that neither name nor password is empty, and checks our answer again."""
        question = {
            "question": "login",
            "tenant": credentials.tenant,
            "user": credentials.username,
            "password": credentials.password,
            "source": credentials.source,
        }
        return self._ask(question, credentials.tenant, credentials.username)

    def find(self, tenant: str, username: str) -> Answer:
        """Who this user is by now, without a password. `Rejected` ends the user's sessions, `Unavailable` does not."""
        return self._ask({"question": "find", "tenant": tenant, "user": username}, tenant, username)

    def _ask(self, question: dict[str, str], tenant: str, username: str) -> Answer:
        begun_s = time.monotonic()
        try:
            answer = _read(self._run(json.dumps(question).encode() + b"\n", begun_s), tenant, username)
        except _ProgramError as error:
            self._observe(begun_s, str(error), error.advice)
            return Unavailable(str(error), error.cause)
        self._observe(begun_s, "it has answered")
        return answer

    def _observe(self, begun_s: float, detail: str, advice: str = "") -> None:
        """Tell `trioproxy auth test` what was done; in a server nobody listens. Never put a password into a step."""
        self._context.observe(Step("program", time.monotonic() - begun_s, detail, advice, failed=bool(advice)))

    def _run(self, line: bytes, begun_s: float) -> bytes:
        """The program's whole output.

        Raises:
            _ProgramError: it does not start, takes too long, says too much, or ends with another code than 0.
        """
        if self._closed:
            raise _ProgramError("it is closed", Cause.OTHER, "log in again")
        try:
            process = subprocess.Popen(
                self._settings.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # the log is no place for what a program prints about passwords
                cwd="/",
                start_new_session=True,  # so that it can be killed together with its children
            )
        except OSError as error:
            raise _ProgramError(f"it does not start: {error.strerror}", Cause.CONNECT, "look at command") from None
        with process:
            try:
                return _converse(process, line, begun_s + self._settings.answer_s)
            except TimeoutError:
                limit = f"{self._settings.answer_s:g} s"
                raise _ProgramError(
                    f"no answer in {limit}", Cause.TIMEOUT, "raise answer_s, or make it quick"
                ) from None
            finally:
                if process.returncode is None:  # nobody has waited for it, so the number is still its own
                    os.killpg(process.pid, signal.SIGKILL)


def _converse(process: "subprocess.Popen[bytes]", line: bytes, deadline_s: float) -> bytes:
    """Ask, and read to the end of the output and of the program.

    Raises:
        TimeoutError: it takes too long.
        _ProgramError: it says too much, or fails.
    """
    assert process.stdin is not None  # noqa: S101 - both are pipes
    assert process.stdout is not None  # noqa: S101 - as above
    try:
        process.stdin.write(line)  # shorter than the pipe's 64 KiB, so this never waits
        process.stdin.close()
    except BrokenPipeError:
        pass  # it does not read what it is asked; its answer may be right all the same
    reader = select.poll()  # select() knows no descriptor above 1023
    reader.register(process.stdout, select.POLLIN)
    output = b""
    while len(output) <= _ANSWER_BYTES_MAX:
        if not reader.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
            raise TimeoutError
        some = os.read(process.stdout.fileno(), _ANSWER_BYTES_MAX + 1)
        if not some:
            break
        output += some
    else:
        raise _ProgramError(
            f"an answer of more than {_ANSWER_BYTES_MAX} bytes", Cause.PROTOCOL, "let it print one line of JSON"
        )
    try:
        code = process.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    if code != 0:
        raise _ProgramError(f"it ended with {code}", Cause.OTHER, "run it by hand and look at what it says")
    return output


def _read(output: bytes, tenant: str, username: str) -> Answer:
    """What the program means. Whatever is not exactly an answer lets nobody in.

    Raises:
        _ProgramError: it is no answer.
    """
    try:
        answer = json.loads(output)
        match answer:
            case {"answer": "yes"}:
                return _identity(answer, tenant, username)
            case {"answer": "no", "reason": str(reason)} if reason in _REASONS:
                return Rejected(_REASONS[reason])
            case {"answer": "unavailable", "problem": str(problem)}:
                raise _ProgramError(f"it says: {problem}", Cause.OTHER, "look at what the program itself depends on")
    except (ValueError, TypeError):  # no JSON, no UTF-8, no moment, no name of a group
        pass
    # The output is not repeated: it may hold what the program was told.
    raise _ProgramError("it gave no answer that means anything", Cause.PROTOCOL, "look at what answers there are")


def _identity(answer: dict[str, Any], tenant: str, username: str) -> Identity:
    """The user, with names in the one spelling that rules are compared with.

    Raises:
        ValueError: something in it is not what it must be.
        TypeError: the same.
    """
    valid_until = answer.get("valid_until")
    moment = None if valid_until is None else datetime.fromisoformat(valid_until)
    if moment is not None and moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    groups, epoch = answer.get("groups", []), answer.get("epoch", "")
    if not isinstance(epoch, str) or not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
        raise TypeError
    return Identity(tenant, username, frozenset(map(canonical_group, groups)), epoch=epoch, valid_until=moment)
