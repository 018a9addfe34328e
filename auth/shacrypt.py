"""SHA-crypt hashes (`$5$`, `$6$`), checked by the system's `crypt_r` without holding the interpreter.

A default `$6$` hash costs 200 ms of work. The standard library's `crypt` and its successors hold the GIL all that time,
so every other session would stand still; passlib's own code is Python and slows them for twice as long. A call through
ctypes lets go of the GIL.
"""

import ctypes
import hmac
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from passlib.hash import sha256_crypt, sha512_crypt

__all__ = ["is_shacrypt", "verify_shacrypt"]

CryptFunction: TypeAlias = Callable[[bytes, bytes], bytes | None]

# libxcrypt as Debian, and as distributions name it that dropped the old interface.
_LIBRARIES: Final = ("libcrypt.so.1", "libcrypt.so.2")

# sizeof(struct crypt_data): 32 KiB in libxcrypt, 131,232 bytes in glibc before 2.38. Only `initialized` (0) is read.
_WORKSPACE_BYTES: Final = 256 * 1024


def is_shacrypt(stored_hash: str) -> bool:
    """Whether this hash is for `verify_shacrypt`."""
    return stored_hash.startswith(("$5$", "$6$"))


def verify_shacrypt(password: str, stored_hash: str) -> bool:
    """Whether `password` made `stored_hash`, a well-formed `$5$` or `$6$` hash. Blocks; call it in a thread."""
    if _crypt is None:
        handler = sha512_crypt if stored_hash.startswith("$6$") else sha256_crypt
        return bool(handler.verify(password, stored_hash))
    computed = _crypt(password.encode(), stored_hash.encode())
    return computed is not None and hmac.compare_digest(computed, stored_hash.encode())


def _load_crypt(libraries: Sequence[str]) -> CryptFunction | None:
    """The first library that has `crypt_r`, or None: then passlib's slower code serves (musl, macOS)."""
    for library in libraries:
        try:
            return _bind(ctypes.CDLL(library))
        except (OSError, AttributeError):  # no such library, or one without the function
            continue
    return None


def _bind(library: ctypes.CDLL) -> CryptFunction:
    crypt_r = library.crypt_r
    crypt_r.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
    crypt_r.restype = ctypes.c_char_p

    def crypt(password: bytes, setting: bytes) -> bytes | None:
        workspace = ctypes.create_string_buffer(_WORKSPACE_BYTES)  # one for each call, so threads share nothing
        result: bytes | None = crypt_r(password, setting, workspace)
        return result

    return crypt


_crypt = _load_crypt(_LIBRARIES)
