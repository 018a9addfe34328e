"""Token buckets that shape flows, and how flows share them. For one thread; time comes in as monotonic seconds.

A bucket fills with `rate` bytes a second up to `burst`. One direction of a flow holds a `Gate` through all the buckets
that count for it: its rule's, its user's, its tenant's, the server's. A gate opens if each of them has enough, and then
takes the same from each; while one is empty the others keep what they have.

    gate.grant(now_s, wanted) -> n        move at most n bytes now, and give back at once what the kernel did not take
                              -> 0        the gate waits at gate.waits_at: ask that bucket's `ready` at next_s()
    bucket.ready(now_s) -> gates          their turn has come: each asks again; call it until nobody is left

While nobody waits whoever comes first is served, in slices. As soon as somebody has to wait everybody else queues up
behind, and what has come in is dealt out in equal turns, first come, first served. A turn is so many bytes, however
many calls the flow needs for them; what it does not use goes to the others. Where there is too little for a useful turn
for each, some go without until the next time, instead of all getting crumbs.

Datagrams do not wait (`DatagramGate`), but their flows take turns as well, so that a flood does not drown a call.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

__all__ = ["Bucket", "DatagramGate", "Gate", "default_burst"]

# A bucket is asked every 20 to 50 ms, sometimes late by 150; a burst must hold what comes in meanwhile.
_BURST_S: Final = 0.25
_BURST_LEAST: Final = 2_048  # bytes: one datagram of an Ethernet passes at any rate

# A turn is at most this much of the rate: so what stays in the bucket for want of a whole turn is 2.5 % of a second.
_TURN_S: Final = 0.025
# Below 4 KiB the system calls of a turn cost more than its bytes; above 64 KiB larger turns gain nothing.
_TURN_LEAST: Final = 4_096
_TURN_MOST: Final = 65_536
_EVERYBODY_S: Final = 0.25  # between these two: as much as lets everybody have a turn in this time

_SLICES: Final = (
    16  # without a queue no flow takes more of the burst at once, so that flows that begin together share it
)
_DATAGRAM_ROUND_S: Final = 0.05  # how often turns of datagrams are dealt out where no stream waits, whose timer does it

_KEPT: Final = -1  # instead of a round: a turn that waits for another bucket


def default_burst(rate: int) -> int:
    """The burst for this rate if none is configured: a quarter of a second, and at least 2 KiB."""
    return max(int(rate * _BURST_S), _BURST_LEAST)


class Bucket:
    """Bytes that may flow: `rate` a second, and up to `burst` at once.

    In any window of t seconds at most `rate * t + burst` bytes are granted. If it is asked (`ready`) at least every
    `burst / rate` seconds, what comes in while there is demand is granted up to 5 % of one second; so a burst should
    be no less than a quarter of a second of the rate. A clock that goes back fills nothing until it has caught up.

    Attributes:
        rate: bytes a second.
        burst: bytes.
        tokens: bytes that may flow now; never negative.
        busy: somebody waits or was served in turn just now, so that nobody else may help himself. For gates.
        slice: bytes that one grant takes at most while it is not busy. For gates.
        least: bytes below which a grant is not worth its system calls. For gates.
        round: of the turns that were dealt out last. For gates.
    """

    __slots__ = (
        "_at_s",
        "_datagram_gates",
        "_dealt_s",
        "_enough",
        "_guests",
        "_queue",
        "_returned",
        "_streams",
        "burst",
        "busy",
        "least",
        "rate",
        "round",
        "slice",
        "tokens",
    )

    def __init__(self, rate: int, burst: int, now_s: float) -> None:
        self._at_s = now_s
        self.tokens: float = burst
        self.busy = False
        self.round = 0
        self._dealt_s = now_s
        self._queue: OrderedDict[_Seat, None] = OrderedDict()
        self._returned: OrderedDict[_Seat, None] = OrderedDict()  # had a turn, and went without: before the others
        self._streams = 0  # in the two
        self._datagram_gates = 0
        self._guests = 0  # bytes for flows of datagrams that have no turn yet
        self._enough = 0.0  # tokens with which the next in the queue can be served
        self._set(rate, burst)

    def set_rate(self, rate: int, burst: int, now_s: float) -> None:
        """From now on another rate; whoever waits goes on waiting for that. A burst that grew must fill first."""
        self.refill(now_s)
        self._set(rate, burst)
        self.tokens = min(self.tokens, burst)
        self._enough = 0.0

    def ready(self, now_s: float) -> list["Gate"]:
        """Whose turn it is, in fair order. Let each ask its gate again, then call this again until it returns nothing.

        A gate whose flow has nothing to move any more need not ask.
        """
        self.refill(now_s)
        return self._deal()

    def next_s(self, now_s: float) -> float | None:
        """When `ready` has somebody, if nothing else happens; None: nobody waits. Asking later does no harm."""
        if not self._streams:
            return None
        return max(now_s, self._at_s + (self._enough - self.tokens) / self.rate)

    def refill(self, now_s: float) -> None:
        """What has come in since the last time. For gates."""
        passed_s = now_s - self._at_s
        if passed_s > 0:
            tokens = self.tokens + passed_s * self.rate
            self.tokens = min(self.burst, tokens)
            self._at_s = now_s

    def wait(self, seat: "_Seat") -> None:
        """Queue up: at the end, or before those that had no turn yet. For gates."""
        if not self.busy:
            self.busy = True
            self._enough = 0.0
            self._dealt_s = self._at_s
        (self._returned if seat.turn else self._queue)[seat] = None
        self._streams += seat.gate is not None

    def forget(self, seat: "_Seat") -> None:
        """It waits no longer. For gates."""
        for queue in (self._returned, self._queue):
            if seat in queue:
                del queue[seat]
                self._streams -= seat.gate is not None

    def expect_datagrams(self, gates: int) -> None:
        """So many more (or fewer) flows of datagrams pass here. For gates."""
        self._datagram_gates += gates

    def admits(self, seat: "_Seat", size: int) -> bool:
        """Whether there is room for a datagram of this flow; if not, the flow has its turn later. For gates."""
        if size > self.burst:
            return False
        if not self.busy:
            if self.tokens >= size:
                return True
            self.wait(seat)
        elif not self._streams and self._at_s - self._dealt_s >= _DATAGRAM_ROUND_S:
            self._deal()
        seat.note(size)
        if self.busy and seat not in self._queue:
            self.wait(seat)
        room = seat.turn if seat.round == self.round else self._guests
        return size <= self.tokens and (size <= room or not self.busy)

    def take_datagram(self, seat: "_Seat", size: int) -> None:
        """Take what was admitted. For gates."""
        self.tokens -= size
        if seat.round == self.round:
            seat.turn -= size
        else:
            self._guests -= size

    def _set(self, rate: int, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        turn = self._turn_most()
        self.slice = max(turn, burst // _SLICES)
        self.least = min(turn, _TURN_LEAST)

    def _turn_most(self) -> int:
        return max(1, min(int(self.rate * _TURN_S), self.burst // 2))

    def _useful_turn(self, sharers: int) -> int:
        """The least turn that one of so many gets."""
        return min(self._turn_most(), max(_TURN_LEAST, min(_TURN_MOST, int(self.rate * _EVERYBODY_S / sharers))))

    def _deal(self) -> list["Gate"]:
        """Give turns to those in the queue, as far as the tokens go; the streams among them."""
        self._dealt_s = self._at_s
        if self._is_calm():
            self._queue.clear()
            self.busy = False
            return []
        sharers = len(self._returned) + len(self._queue) + bool(self._datagram_gates)
        least = self._useful_turn(sharers)
        wants = sorted(seat.wants for seat in (*self._returned, *self._queue))
        fair = _fair_share(self.tokens, wants, sharers)
        left = self.tokens
        self._guests = 0
        served: list[Gate] = []
        following = self.round + 1
        for queue in (self._returned, self._queue):
            while queue:
                seat = next(iter(queue))
                share = int(min(seat.wants, max(fair, seat.least or least)))
                if share > left:  # nobody overtakes, so that the tokens for this one can gather
                    self._enough = self.tokens - left + share
                    return served
                del queue[seat]
                left -= share
                self.round = following
                seat.turn, seat.round = share, following
                if seat.gate is None:
                    seat.asked = 0
                else:
                    self._streams -= 1
                    seat.gate.waits_at = None
                    served.append(seat.gate)
        if self._datagram_gates:
            self._guests = int(min(left, least))
        return served

    def _is_calm(self) -> bool:
        """Whether nobody waits, and the flows of datagrams want less than there is."""
        return not self._streams and sum(seat.wants for seat in self._queue) <= self.tokens


class _Seat:
    """What a gate has at one bucket.

    Attributes:
        bucket: where.
        gate: whose; None for datagrams, which do not wait.
        turn: bytes that it may still take in turn, if `round` is the bucket's or `_KEPT`.
        round: when that was given.
        asked: bytes of datagrams since the last turn.
        least: the largest datagram; 0 for streams.
    """

    __slots__ = ("asked", "bucket", "gate", "least", "round", "turn")

    def __init__(self, bucket: Bucket, gate: "Gate | None") -> None:
        self.bucket = bucket
        self.gate = gate
        self.turn = 0
        self.round = 0
        self.asked = 0
        self.least = 0

    @property
    def wants(self) -> float:
        """How much is of use to it: streams take everything; for datagrams twice what came lately lets them grow."""
        return math.inf if self.gate is not None else max(2 * self.asked, self.least)

    def note(self, size: int) -> None:
        """A datagram wants to pass."""
        self.asked += size
        self.least = max(self.least, size)


class Gate:
    """One direction of one stream, through one or more different buckets.

    Attributes:
        waits_at: the bucket in whose queue it is; None: it does not wait.
        owner: whatever the caller needs to find the flow again.
    """

    __slots__ = ("_seats", "owner", "waits_at")

    def __init__(self, buckets: Iterable[Bucket], owner: object = None) -> None:
        self._seats = tuple(_Seat(bucket, self) for bucket in buckets)
        self.waits_at: Bucket | None = None
        self.owner = owner

    def grant(self, now_s: float, wanted: int) -> int:
        """How many bytes may flow now, at most `wanted` (1 or more); 0: none before `waits_at` calls."""
        if self.waits_at is not None:
            return 0
        amount = wanted
        behind = None
        for seat in self._seats:
            bucket = seat.bucket
            bucket.refill(now_s)
            limit = bucket.slice
            if bucket.busy:
                if seat.turn and seat.round in (bucket.round, _KEPT):
                    limit = seat.turn
                else:
                    seat.turn = 0
                    behind = behind or seat
            amount = min(amount, limit)
        if behind is not None:
            return self._wait(behind)
        for seat in self._seats:
            tokens = seat.bucket.tokens
            if tokens < amount:
                if tokens < seat.bucket.least:
                    return self._wait(seat)
                amount = int(tokens)
        for seat in self._seats:
            bucket = seat.bucket
            bucket.tokens -= amount
            seat.turn = seat.turn - amount if bucket.busy else 0
            seat.round = bucket.round
        return amount

    def give_back(self, unused: int) -> None:
        """The kernel took so much less than was just granted. To be called before anybody else is granted anything."""
        for seat in self._seats:
            bucket = seat.bucket
            bucket.tokens = min(bucket.tokens + unused, bucket.burst)
            if bucket.busy:
                seat.turn += unused

    def leave(self) -> None:
        """The flow has ended: out of the queue."""
        if self.waits_at is not None:
            for seat in self._seats:
                seat.bucket.forget(seat)
            self.waits_at = None

    def _wait(self, at: _Seat) -> int:
        """Queue up at this bucket; the turns at others are kept, or two full buckets would send it back and forth."""
        for seat in self._seats:
            seat.round = _KEPT
        self.waits_at = at.bucket
        at.bucket.wait(at)
        return 0


class DatagramGate:
    """One direction of one flow of datagrams, through one or more different buckets."""

    __slots__ = ("_seats",)

    def __init__(self, buckets: Iterable[Bucket]) -> None:
        self._seats = tuple(_Seat(bucket, None) for bucket in buckets)
        for seat in self._seats:
            seat.bucket.expect_datagrams(1)

    def take_whole(self, now_s: float, size: int) -> bool:
        """Whether a datagram of `size` bytes may flow now; if not, it is to be dropped.

        One that is larger than a burst never may.
        """
        for seat in self._seats:
            seat.bucket.refill(now_s)
            if not seat.bucket.admits(seat, size):
                return False
        for seat in self._seats:
            seat.bucket.take_datagram(seat, size)
        return True

    def leave(self) -> None:
        """The flow has ended. To be called once."""
        for seat in self._seats:
            seat.bucket.forget(seat)
            seat.bucket.expect_datagrams(-1)


def _fair_share(tokens: float, wants: list[float], sharers: int) -> float:
    """The most that each may have, if who wants less gets that and the others share the rest evenly.

    Args:
        tokens: bytes to share.
        wants: in rising order.
        sharers: how many share: those who want something, and perhaps some who come later.
    """
    for want in wants:
        share = tokens / sharers
        if want >= share:
            return share
        tokens -= want
        sharers -= 1
    return math.inf
