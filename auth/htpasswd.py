"""Read an htpasswd file, as Apache's and nginx's password files are called: all of it, or nothing and every error."""

from typing import Final

from auth.names import canonical_username
from auth.passwords import DEFAULT_PASSWORDS

__all__ = ["HtpasswdError", "parse_htpasswd"]

_LINE_BYTES_MAX: Final = 1024  # a name of 255 bytes and the longest hash need half of it


class HtpasswdError(ValueError):
    """The file cannot be imported.

    Attributes:
        problems: line number, counted from 1, and what is wrong there; never repeats a line, it may hold a password.
    """

    def __init__(self, problems: tuple[tuple[int, str], ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"line {number}: {problem}" for number, problem in problems))


def parse_htpasswd(content: bytes) -> list[tuple[str, str]]:
    """The canonical user names and their hashes, in the order of the file. Empty lines and `#` lines are skipped.

    Raises:
        HtpasswdError: with every wrong line at once. Plain text and DES crypt are wrong: the one is no hash, and the
            other is cut at 8 characters and found by trying.
    """
    entries: dict[str, str] = {}
    line_of: dict[str, int] = {}
    problems: list[tuple[int, str]] = []
    # Split on LF alone: splitlines() would also end a line at a form feed inside one.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip() or line.startswith(b"#"):
            continue
        try:
            name, stored_hash = _parse_line(line)
        except ValueError as error:
            problems.append((number, str(error)))
            continue
        if name in entries:
            problems.append((number, f"this user is on line {line_of[name]} already"))
        entries[name] = stored_hash
        line_of[name] = number
    if problems:
        raise HtpasswdError(tuple(problems))
    return list(entries.items())


def _parse_line(line: bytes) -> tuple[str, str]:
    if len(line) > _LINE_BYTES_MAX:
        raise ValueError(f"longer than {_LINE_BYTES_MAX} bytes")
    try:
        text = line.decode().rstrip(" \t\r")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    fields = text.split(":")
    if len(fields) != 2:  # noqa: PLR2004 - name and hash; three are an htdigest file, whose hashes know another realm
        raise ValueError(f"expected NAME:HASH, found {len(fields)} fields")
    name, stored_hash = fields
    if stored_hash and not stored_hash.startswith(("$", "{SHA}", "*", "!")):
        raise ValueError("plain text or DES crypt, which are not imported; make a hash with `htpasswd -B`")
    problem = DEFAULT_PASSWORDS.problem(stored_hash)
    if problem is not None:
        raise ValueError(problem)
    return canonical_username(name), stored_hash
