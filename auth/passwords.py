"""Password hashes: argon2id made, argon2id and what htpasswd files hold checked.

The rule of this module: whatever is asked, at least one argon2id verification is paid for, so that a missing user, a
locked account and a wrong password cost the same. (OpenSSH's dummy hash was of another kind than the real ones, which
told existing users from invented ones: CVE-2016-6210.) A hash of an imported kind costs its own check on top until its
owner's first login replaces it; that difference remains.
"""

import base64
import secrets
from typing import Any, Final

import attrs
from passlib.context import CryptContext

from auth.shacrypt import is_shacrypt, verify_shacrypt

__all__ = [
    "DEFAULT_PASSWORDS",
    "PASSWORD_BYTES_MAX",
    "Passwords",
    "Verification",
    "hash_password",
    "verify_password",
]

PASSWORD_BYTES_MAX: Final = 255  # RFC 1929 section 2: PLEN is one byte

# OWASP's smallest recommended argon2id: 20 ms of one core. The library's default, 64 MiB and 146-213 ms, would let
# 2 cores check about 18 logins a second, and a client logs in with every connection.
MEMORY_KIB: Final = 19_456
TIME_COST: Final = 2

_SCHEMES: Final = ("argon2", "bcrypt", "apr_md5_crypt", "ldap_sha1", "sha256_crypt", "sha512_crypt")

# A hash says what it costs to check. Above these (each about a second or 256 MiB) one login could use up the deadline
# or the memory of the whole server, so such a hash counts as unusable.
_ARGON2_MEMORY_KIB_MAX: Final = 262_144
_ARGON2_LANES_MAX: Final = 16  # each is a thread
_ROUNDS_MAX: Final = {"argon2": 10, "bcrypt": 14, "sha256_crypt": 1_000_000, "sha512_crypt": 1_000_000}

_BCRYPT_BYTES_MAX: Final = 72  # the algorithm reads no further; a longer password must not match by its beginning


@attrs.frozen
class Verification:
    """Whether a password is right, and the hash that should replace the stored one, if any."""

    ok: bool
    replacement: str | None = attrs.field(default=None, repr=False)


class Passwords:
    """Makes and checks password hashes at one cost, in any thread. Every method but `problem` takes its time.

    Args:
        memory_kib: argon2id memory.
        time_cost: argon2id passes.
    """

    def __init__(self, memory_kib: int = MEMORY_KIB, time_cost: int = TIME_COST) -> None:
        self._context = CryptContext(
            schemes=list(_SCHEMES),
            default="argon2",
            deprecated=["auto"],  # all but the default
            argon2__type="ID",
            argon2__memory_cost=memory_kib,
            argon2__time_cost=time_cost,
            argon2__parallelism=1,  # more lanes would only take the cores from the relays
        )
        # Random bytes where the digest belongs: costs what a real hash costs, and no password makes it.
        salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
        self._nobodys_hash = f"$argon2id$v=19$m={memory_kib},t={time_cost},p=1${salt}${digest}"

    def hash(self, password: str) -> str:
        """A new argon2id hash.

        Raises:
            ValueError: no client could send this password: it is empty, holds NUL, or has more than 255 bytes.
        """
        if not _is_password(password):
            raise ValueError(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes of UTF-8 and no NUL")
        made: str = self._context.hash(password)
        return made

    def problem(self, stored_hash: str | None) -> str | None:
        """Why no password can ever match this hash, or None if it is usable. Never repeats the hash."""
        if not stored_hash:
            return "no password is set"
        if stored_hash.startswith(("*", "!")):  # as in shadow(5)
            return "the password is locked"
        scheme: str | None = self._context.identify(stored_hash)
        if scheme is None:
            return "the hash is of an unknown kind"
        try:
            parsed = self._context.handler(scheme).from_string(stored_hash)
        except ValueError:
            return f"the {scheme} hash is malformed"
        return _problem_of_parsed(scheme, parsed)

    def verify(self, password: str, stored_hash: str | None) -> Verification:
        """Whether `password` belongs to `stored_hash`; None stands for a user who does not exist.

        A hash that is empty, locked, unknown or malformed matches nothing. A right password whose hash is not today's
        argon2id comes with a replacement.
        """
        if not _is_password(password) or stored_hash is None or self.problem(stored_hash) is not None:
            self.waste(password)
            return Verification(ok=False)
        matches = self._matches(password, stored_hash)
        outdated = bool(self._context.needs_update(stored_hash))
        if matches:
            return Verification(ok=True, replacement=self.hash(password) if outdated else None)
        if outdated:
            self.waste(password)  # the fast kinds would show by their speed; the right password pays for its new hash
        return Verification(ok=False)

    def waste(self, password: str) -> None:
        """Do the work of one verification, for nobody."""
        self._check(password if _is_password(password) else "-", self._nobodys_hash)

    def _matches(self, password: str, stored_hash: str) -> bool:
        if is_shacrypt(stored_hash):
            return verify_shacrypt(password, stored_hash)
        if stored_hash.startswith("$2") and len(password.encode()) > _BCRYPT_BYTES_MAX:
            return False
        return self._check(password, stored_hash)

    def _check(self, password: str, stored_hash: str) -> bool:
        # An error here is not a wrong password but our failure (out of memory, say): it goes up, and nobody gets in.
        return bool(self._context.verify(password, stored_hash))


def _problem_of_parsed(scheme: str, parsed: Any) -> str | None:  # noqa: ANN401 - passlib has no types
    """What is missing from a hash that reads well, or makes it too expensive to check."""
    if not parsed.checksum:
        return f"the {scheme} hash is malformed"
    costs = {
        "rounds": (getattr(parsed, "rounds", 0), _ROUNDS_MAX.get(scheme, 0)),
        "KiB of memory": (getattr(parsed, "memory_cost", 0), _ARGON2_MEMORY_KIB_MAX),
        "lanes": (getattr(parsed, "parallelism", 0), _ARGON2_LANES_MAX),
    }
    for unit, (asked, most) in costs.items():
        if asked > most:
            return f"the {scheme} hash asks for {asked:,} {unit}, more than the {most:,} allowed"
    return None


def _is_password(password: str) -> bool:
    # surrogatepass: a lone surrogate is no text, and must be refused rather than raise.
    size = len(password.encode("utf-8", "surrogatepass"))
    return 1 <= size <= PASSWORD_BYTES_MAX and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in password)


DEFAULT_PASSWORDS: Final = Passwords()


def hash_password(password: str) -> str:
    """`Passwords.hash` at the default cost.

    Raises:
        ValueError: no client could send this password.
    """
    return DEFAULT_PASSWORDS.hash(password)


def verify_password(password: str, stored_hash: str | None) -> Verification:
    """`Passwords.verify` at the default cost."""
    return DEFAULT_PASSWORDS.verify(password, stored_hash)
