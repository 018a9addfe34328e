"""Passwords that were wrong a moment ago: asking again would only count against the account."""

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from typing import Final

from auth.backend import Credentials

__all__ = ["WrongPasswords"]

_ENTRIES_MAX: Final = 10_000  # about 1.5 MB; beyond it the oldest is forgotten and may be asked about again


class WrongPasswords:
    """Remembers them unreadable, for a few seconds: directories lock accounts, and programs try again and again.

    Args:
        keep_s: for how long.
    """

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._key = secrets.token_bytes(32)
        self._until_s: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, credentials: Credentials) -> bool:
        key = self._digest(credentials)
        with self._lock:
            until_s = self._until_s.get(key)
            if until_s is not None and time.monotonic() >= until_s:
                del self._until_s[key]
                return False
            return until_s is not None

    def add(self, credentials: Credentials) -> None:
        """These were wrong just now."""
        key = self._digest(credentials)
        with self._lock:
            self._until_s.pop(key, None)
            if len(self._until_s) >= _ENTRIES_MAX:
                self._until_s.popitem(last=False)
            self._until_s[key] = time.monotonic() + self._keep_s

    def _digest(self, credentials: Credentials) -> bytes:
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (credentials.tenant, credentials.username, credentials.password):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.digest()
