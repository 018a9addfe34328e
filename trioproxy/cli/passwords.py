"""Where passwords come from: a terminal without echo, standard input, or chance. Never the command line (case 106)."""

import getpass
import secrets
import string
import sys
from typing import Final

from auth.passwords import PASSWORD_BYTES_MAX
from trioproxy.cli.output import Failure, usage

__all__ = ["ask_for_password", "make_password", "read_password"]

# Letters and digits without those that look like others; nothing that a shell or a URL would change.
_ALPHABET: Final = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))
_GENERATED_CHARACTERS: Final = 20  # 116 bits


def make_password() -> str:
    """A random password."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_GENERATED_CHARACTERS))


def read_password(*, stdin: bool, repeat: bool) -> str:
    """The password, from standard input or the terminal.

    Args:
        stdin: one line from standard input; otherwise the terminal asks.
        repeat: ask twice, for a password that nobody can compare with anything.

    Raises:
        Failure: there is none, it cannot be one, or the two differ. Never repeats it.
    """
    password = _read_line() if stdin else ask_for_password(repeat=repeat)
    if not password:
        raise Failure("the password is empty")
    try:
        size = len(password.encode())
    except UnicodeEncodeError:  # a terminal in another character set
        raise Failure("the password is not UTF-8") from None
    if "\0" in password or size > PASSWORD_BYTES_MAX:
        raise Failure(f"a password has at most {PASSWORD_BYTES_MAX} bytes (RFC 1929) and no NUL")
    return password


def ask_for_password(*, repeat: bool) -> str:
    """Ask on the terminal, without echo.

    Raises:
        Failure: there is no terminal, or the two answers differ.
    """
    if not sys.stdin.isatty():
        raise usage("there is no terminal to ask for the password on; use --password-stdin")
    password = getpass.getpass("Password: ")
    if repeat and getpass.getpass("Again: ") != password:
        raise Failure("the two passwords differ; nothing was changed")
    return password


def _read_line() -> str:
    try:
        content = sys.stdin.buffer.read(PASSWORD_BYTES_MAX + 3).decode()
    except UnicodeDecodeError:
        raise Failure("the password is not UTF-8") from None
    line, _, rest = content.partition("\n")
    if rest:
        raise Failure("standard input holds more than one line; the password is one line")
    return line.removesuffix("\r")
