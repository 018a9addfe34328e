"""Right logins remembered for a minute, so that a client that opens 50 connections pays for one argon2id.

The key holds everything that made the answer, each part with its length, under a key of this process: a directory
bridge once cut its key at 72 bytes and let people with long names in without a password (Okta, 2024). Only acceptances
are kept. Their time is bounded three ways: the time to live, the end of the account, and every change to the user.
"""

import hashlib
import hmac
import math
import secrets
from collections import defaultdict
from typing import Final
from weakref import WeakValueDictionary

import attrs

from auth.backend import Credentials, Identity

__all__ = ["Generation", "ResultCache"]

_KEY_BYTES: Final = 32  # as many as the digest has


@attrs.define(eq=False)
class Generation:
    """The time between two changes to one user.

    Attributes:
        over: something has changed since; what was asked before may hold no longer.
    """

    over: bool = False


@attrs.frozen
class _Entry:
    identity: Identity
    expires_s: float


class ResultCache:
    """Credentials, unreadable, to the identity they proved. For one thread; time comes in as `now_s`.

    A caller takes the user's `generation` before it asks the backends and hands it to `put`: an answer from before a
    change is not kept. Revocations therefore hold at once where the change is known, and after `ttl_s` at the latest
    elsewhere. Changes to other users overtake nobody: whoever binds to a directory cannot simply bind once more.

    Args:
        ttl_s: how long an acceptance holds.
        entries_max: beyond it the oldest acceptance goes.
        key: at least 32 random bytes; left out: new ones.
    """

    def __init__(self, ttl_s: float = 60.0, entries_max: int = 10_000, key: bytes | None = None) -> None:
        self._ttl_s = ttl_s
        self._entries_max = entries_max
        self._key = secrets.token_bytes(_KEY_BYTES) if key is None else key
        self._entries: dict[bytes, _Entry] = {}  # oldest first
        self._keys_of: defaultdict[tuple[str, str | None], set[bytes]] = defaultdict(set)
        # Of users who are being asked about right now: nobody else's can be overtaken, and so the table stays small.
        self._generations: WeakValueDictionary[tuple[str, str], Generation] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, credentials: Credentials, chain: str) -> bytes:
        """The look-up key: everything that the answer depends on.

        The source is part of it, so a user who may log in from one network only is asked again elsewhere.

        Args:
            credentials: what the client said.
            chain: which chain of backends would be asked (`Chain.label`).
        """
        parts = (credentials.tenant, chain, credentials.username, credentials.password, credentials.source)
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.digest()

    def generation(self, tenant: str, name: str) -> Generation:
        """The one that this user lives in; it says itself when it is over."""
        generation = self._generations.get((tenant, name))
        if generation is None:
            generation = self._generations[tenant, name] = Generation()
        return generation

    def get(self, key: bytes, now_s: float) -> Identity | None:
        """The identity proved under this key, if that still holds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now_s >= entry.expires_s:
            self._remove(key)
            return None
        return entry.identity

    def put(
        self, key: bytes, identity: Identity, generation: Generation, now_s: float, lifetime_s: float = math.inf
    ) -> None:
        """Remember an acceptance, unless the user has changed since or it holds no longer.

        Args:
            key: from `key`.
            identity: what the backends answered.
            generation: of its user, taken before they were asked.
            now_s: monotonic.
            lifetime_s: how long the account itself is still valid.
        """
        holds_s = min(self._ttl_s, lifetime_s)
        if generation.over or holds_s <= 0:
            return
        if key in self._entries:
            self._remove(key)
        elif len(self._entries) >= self._entries_max:
            self._remove(next(iter(self._entries)))
        self._entries[key] = _Entry(identity, now_s + holds_s)
        self._keys_of[identity.tenant, identity.user].add(key)

    def confirm(self, identity: Identity) -> None:
        """The user was looked up without a password: what is remembered and still holds is as young as that.

        It is remembered no longer for it, as nobody asked about the password. What is older and says something else
        goes; what is younger, or comes from another backend, stays as it is.
        """
        for key in tuple(self._keys_of.get((identity.tenant, identity.user), ())):
            entry = self._entries[key]
            if entry.identity.backend != identity.backend or entry.identity.verified_s > identity.verified_s:
                continue
            if entry.identity == identity:
                self._entries[key] = attrs.evolve(entry, identity=identity)
            else:
                self._remove(key)

    def drop_user(self, tenant: str, name: str) -> None:
        """Something about this user changed: forget what is known, and what is being asked right now."""
        generation = self._generations.pop((tenant, name), None)
        if generation is not None:
            generation.over = True
        for key in tuple(self._keys_of.get((tenant, name), ())):
            self._remove(key)

    def clear(self) -> None:
        """Anything may have changed."""
        for generation in self._generations.values():
            generation.over = True
        self._generations.clear()
        self._entries.clear()
        self._keys_of.clear()

    def _remove(self, key: bytes) -> None:
        identity = self._entries.pop(key).identity
        owner = (identity.tenant, identity.user)
        self._keys_of[owner].discard(key)
        if not self._keys_of[owner]:
            del self._keys_of[owner]
