"""What a failed login costs, and whether its time tells existing users from invented ones (case 28).

Run as `python -m tests.bench_auth [ROUNDS]`. It prints medians; it judges nothing, as a busy machine would.
"""

import statistics
import sys
import time

import attrs

from auth import Credentials, Identity
from auth.cache import ResultCache
from auth.chain import Chain
from auth.local import BackendContext, LocalBackend, LocalSettings, LocalUser
from auth.passwords import hash_password

__all__ = ["main"]

ROUNDS = 200  # as the case asks


def chain_of(*users: LocalUser) -> Chain:
    """The chain of a tenant with these local users, at full cost."""
    table = {(user.tenant, user.name): user for user in users}
    context = BackendContext(find_user=lambda tenant, name: table.get((tenant, name)))
    return Chain([("local", LocalBackend(LocalSettings(), context))], "system-proxy")


def main() -> None:
    """Interleave the kinds of logins, so that whatever else the machine does hits all of them alike."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    alice = LocalUser("main", "alice", hash_password("right"), frozenset({"system-proxy"}))
    users = (
        alice,
        attrs.evolve(alice, name="locked", password_hash="!"),
        attrs.evolve(alice, name="off", disabled=True),
    )
    chain = chain_of(*users)
    logins = {
        "right password": Credentials("main", "alice", "right"),
        "wrong password": Credentials("main", "alice", "wrong"),
        "wrong password of 255 bytes": Credentials("main", "alice", "x" * 255),
        "unknown user": Credentials("main", "nobody", "wrong"),
        "locked user": Credentials("main", "locked", "wrong"),
        "disabled user, right password": Credentials("main", "off", "right"),
    }
    times_s: dict[str, list[float]] = {kind: [] for kind in logins}
    for _ in range(rounds):
        for kind, said in logins.items():
            begin_s = time.perf_counter()
            chain.authenticate(said)
            times_s[kind].append(time.perf_counter() - begin_s)
    medians_s = {kind: statistics.median(times) for kind, times in times_s.items()}
    for kind, median_s in medians_s.items():
        against_wrong = median_s / medians_s["wrong password"] - 1
        line = f"{kind:30} {median_s * 1e3:7.2f} ms  {against_wrong:+7.1%} against a wrong password"
        sys.stdout.write(f"{line}\n")
    hit_s = cache_hit_s(logins["right password"], rounds)
    sys.stdout.write(f"{'from the cache':30} {hit_s * 1e6:7.2f} \u00b5s\n")


def cache_hit_s(said: Credentials, rounds: int) -> float:
    """Median time of making the key and finding the answer."""
    cache, times_s = ResultCache(), []
    key = cache.key(said, "system-proxy\0local")
    cache.put(
        key, Identity(said.tenant, said.username), cache.generation(said.tenant, said.username), time.perf_counter()
    )
    for _ in range(rounds * 10):
        begin_s = time.perf_counter()
        cache.get(cache.key(said, "system-proxy\0local"), begin_s)
        times_s.append(time.perf_counter() - begin_s)
    return statistics.median(times_s)


if __name__ == "__main__":
    main()
