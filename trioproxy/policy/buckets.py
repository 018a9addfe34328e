"""Token buckets that shape flows, and how flows share them. For one thread; time comes in as monotonic seconds.

A bucket fills with `rate` bytes a second up to `burst`. One direction of a flow holds a `Gate` through all the buckets
that count for it: its rule's, its user's, its tenant's, the server's. A gate opens if each of them has enough, and then
takes the same from each; while one is empty the others keep what they have.

    gate.grant(now_s, wanted) -> n        move at most n bytes now, and give back at once what the kernel did not take
                              -> 0        the gate waits at the buckets gate.waits_at: ask their `ready` at next_s()
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
_EVERYBODY_S: Final = 0.5  # between these two: as much as lets everybody have a turn in this time

_SLICES: Final = (
    16  # without a queue no flow takes more of the burst at once, so that flows that begin together share it
)
_DATAGRAM_ROUND_S: Final = 0.05  # how often turns of datagrams are dealt out where no stream waits, whose timer does it

_DATAGRAM_LEAST: Final = 28  # bytes that one counts for at least: its headers, or empty ones would be free
_DATAGRAM_TURN_S: Final = 0.25  # a turn that was not used by then goes back: calls send every 20 ms, games every 100
# For flows of datagrams that begin while others take turns: a question for a name should not have to be asked twice.
_GUESTS_SHARE: Final = 1 / 8  # of the rate

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
        "_holding",
        "_queue",
        "_reserved",
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
        self._at_s = self._dealt_s = now_s
        self.tokens: float = burst
        self.busy = False
        self.round = 0
        self._queue: OrderedDict[_Seat, None] = OrderedDict()
        self._returned: OrderedDict[_Seat, None] = OrderedDict()  # had a turn, and went without: before the others
        self._streams = 0  # in the two
        self._enough = 0.0  # tokens with which the next in the queue can be served
        self._datagram_gates = 0
        self._holding: dict[_Seat, None] = {}  # flows of datagrams with a turn
        self._reserved = 0  # bytes of these turns
        self._guests = 0.0  # bytes for flows of datagrams that had no turn yet
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
            self.tokens = min(self.tokens + passed_s * self.rate, self.burst)
            self._at_s = now_s

    def wait(self, seat: "_Seat", *, first: bool = False) -> None:
        """Queue up: at the end, or before those that had no turn yet. For gates."""
        if not self.busy:
            self.busy = True
            self.round += 1  # turns of an earlier queue are void
            self._enough = self.least
            self._dealt_s = self._at_s
        (self._returned if first else self._queue)[seat] = None
        self._streams += seat.is_stream

    def forget(self, seat: "_Seat") -> None:
        """It waits no longer, and what is kept for it goes to others. For gates."""
        for queue in (self._returned, self._queue):
            if seat in queue:
                del queue[seat]
                self._streams -= seat.is_stream
                seat.gate = None
                self._enough = 0.0  # what it lacked the next one may not
        if seat in self._holding:
            del self._holding[seat]
            self._reserved -= seat.turn
            seat.turn = 0

    def expect_datagrams(self, gates: int) -> None:
        """So many more (or fewer) flows of datagrams pass here. For gates."""
        self._datagram_gates += gates

    def admits(self, seat: "_Seat", size: int) -> bool:
        """Whether there is room for a datagram of this flow; if not, the flow has its turn later. For gates."""
        if size > self.burst:
            return False
        if self.busy and not self._streams and self._at_s - self._dealt_s >= _DATAGRAM_ROUND_S:
            self._deal()
        if not self.busy and size <= self.tokens:
            return True
        seat.note(size)
        room = seat.turn
        if seat not in self._queue:
            self.wait(seat)
            room = max(room, int(self._guests))
        return size <= room and size <= self.tokens

    def take_datagram(self, seat: "_Seat", size: int) -> None:
        """Take what was admitted. For gates."""
        self.tokens -= size
        if not self.busy:
            return
        if size <= seat.turn:
            seat.turn -= size
            self._reserved -= size
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

    def _deal(self) -> list["Gate"]:
        """Give turns to those in the queue, as far as the tokens go; returns the streams that may go on."""
        if self._datagram_gates:
            self._look_after_datagrams()
        self._dealt_s = self._at_s
        if self._is_calm():
            self._end_turns()
            return []
        if not (self._returned or self._queue):  # datagrams may still use their turns
            return []
        self.round += 1
        left = self.tokens - self._reserved - self._guests
        fair, useful = self._turns(left)
        served: list[Gate] = []
        for queue in (self._returned, self._queue):
            while queue:
                seat = next(iter(queue))
                share = int(min(seat.wants, max(fair, useful)))
                missing = share - seat.reserved - left
                if missing > 0 and self.tokens == self.burst:  # it would never come
                    missing -= self._guests
                    left += self._guests
                    self._guests = 0.0
                if missing > 0:  # nobody overtakes, so that the tokens for this one can gather
                    # Of the tokens of now others may have a turn, which they take in a moment.
                    self._enough = min(share - seat.reserved + self._reserved + self._guests, self.burst)
                    return served
                del queue[seat]
                left -= share - seat.reserved
                self._give_turn(seat, share, served)
        self._enough = self.least  # for who comes next
        return served

    def _give_turn(self, seat: "_Seat", turn: int, served: list["Gate"]) -> None:
        gate, seat.gate = seat.gate, None
        if gate is None:
            self._reserved += turn - seat.turn
            self._holding[seat] = None
            seat.turn, seat.asked, seat.given_s = turn, 0, self._at_s
            return
        self._streams -= 1
        gate.waits_at.remove(self)
        seat.turn = turn
        if gate.waits_at:
            seat.round = _KEPT
        else:
            seat.round = self.round
            served.append(gate)

    def _turns(self, left: float) -> tuple[float, int]:
        """What each of the queue gets: no more than is fair, but no less than is useful.

        Fair is: who wants less gets that, and the others share the rest evenly. Useful is for all what it is for the
        largest datagram, or those with small ones would get less.
        """
        sharers = len(self._returned) + len(self._queue)
        useful = min(self._turn_most(), max(_TURN_LEAST, min(_TURN_MOST, int(self.rate * _EVERYBODY_S / sharers))))
        if sharers > self._streams:
            useful = min(self.burst, max(useful, *(seat.least for seat in self._queue)))
            for want in sorted(seat.wants for seat in (*self._returned, *self._queue)):
                if want * sharers >= left:
                    break
                left -= want
                sharers -= 1
            else:  # there is enough for all
                return math.inf, useful
        return left / sharers, useful

    def _look_after_datagrams(self) -> None:
        """Turns that were not used go back to all, and what is for newcomers grows."""
        for seat in [seat for seat in self._holding if self._at_s - seat.given_s >= _DATAGRAM_TURN_S]:
            del self._holding[seat]
            self._reserved -= seat.turn
            seat.turn = 0
        came = (self._at_s - self._dealt_s) * self.rate
        self._guests = min(self._guests + came * _GUESTS_SHARE, _BURST_LEAST, self.burst // 4)

    def _is_calm(self) -> bool:
        """Whether no stream waits, and the flows of datagrams want far less than there is."""
        if self._streams:
            return False
        # What a flow wants now counts, and not the turn that it had when it wanted more.
        unused = sum(seat.turn for seat in self._holding if seat not in self._queue)
        return sum(seat.wants for seat in self._queue) + unused <= self.tokens / 2

    def _end_turns(self) -> None:
        """From now on everybody helps himself."""
        for seat in (*self._queue, *self._holding):
            seat.turn = seat.asked = 0
        self._queue.clear()
        self._holding.clear()
        self._reserved, self._guests = 0, 0.0
        self.busy = False


class _Seat:
    """What a gate has at one bucket.

    Attributes:
        bucket: where.
        is_stream: and may wait; datagrams do not.
        gate: of a stream, while it waits.
        turn: bytes that it may take in turn.
        round: of streams: the turn is void if this is neither the bucket's nor `_KEPT`.
        given_s: of datagrams: when they had their turn.
        asked: bytes of datagrams since then.
        least: the largest datagram; 0 for streams.
    """

    __slots__ = ("asked", "bucket", "gate", "given_s", "is_stream", "least", "round", "turn")

    def __init__(self, bucket: Bucket, *, is_stream: bool) -> None:
        self.bucket = bucket
        self.is_stream = is_stream
        self.gate: Gate | None = None
        self.turn = 0
        self.round = 0
        self.given_s = 0.0
        self.asked = 0
        self.least = 0

    @property
    def wants(self) -> float:
        """How much is of use to it: streams take everything; for datagrams twice what came lately lets them grow."""
        return math.inf if self.is_stream else max(2 * self.asked, self.least)

    @property
    def reserved(self) -> int:
        """What the bucket keeps for it."""
        return 0 if self.is_stream else self.turn

    def limit(self, now_s: float) -> int:
        """How much of a stream may pass at once, if there are tokens; 0: it has to wait for its turn."""
        bucket = self.bucket
        bucket.refill(now_s)
        if not bucket.busy:
            self.turn = 0
            return bucket.slice
        if self.round not in (bucket.round, _KEPT):
            self.turn = 0
        return self.turn

    def note(self, size: int) -> None:
        """A datagram wants to pass."""
        self.asked += size
        self.least = max(self.least, size)


class Gate:
    """One direction of one stream, through one or more different buckets.

    Attributes:
        waits_at: the buckets in whose queues it is; none: it does not wait.
        owner: whatever the caller needs to find the flow again.
    """

    __slots__ = ("_seats", "owner", "waits_at")

    def __init__(self, buckets: Iterable[Bucket], owner: object = None) -> None:
        self._seats = tuple(_Seat(bucket, is_stream=True) for bucket in buckets)
        self.waits_at: list[Bucket] = []
        self.owner = owner

    def grant(self, now_s: float, wanted: int) -> int:
        """How many bytes may flow now, at most `wanted` (1 or more); 0: none before a `ready` has it."""
        if self.waits_at:
            return 0
        amount = wanted
        behind: list[_Seat] | None = None
        for seat in self._seats:
            limit = seat.limit(now_s)
            if not limit:
                behind = [*(behind or ()), seat]
            elif limit < amount:
                amount = limit
        if behind is not None:
            return self._wait(behind)
        for seat in self._seats:
            tokens = seat.bucket.tokens
            if tokens < amount:
                if tokens < seat.bucket.least:
                    return self._wait([seat])
                amount = int(tokens)
        self._take(amount)
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
        self.owner = None  # who would hold the gate, and be held by it
        if self.waits_at:
            for seat in self._seats:
                seat.bucket.forget(seat)
            self.waits_at.clear()

    def _take(self, amount: int) -> None:
        turn_over = False
        for seat in self._seats:
            bucket = seat.bucket
            bucket.tokens -= amount
            seat.round = bucket.round
            if bucket.busy:
                seat.turn -= amount
                turn_over |= not seat.turn
        if turn_over:  # everywhere: with remainders it would wait at one after the other instead of at all
            for seat in self._seats:
                seat.turn = 0

    def _wait(self, behind: list[_Seat]) -> int:
        """Queue up at these buckets; the turns at others are kept, or two of them would send it back and forth."""
        for seat in self._seats:
            seat.round = _KEPT
        for seat in behind:
            seat.gate = self
            self.waits_at.append(seat.bucket)
            seat.bucket.wait(seat, first=seat.turn > 0)
        return 0


class DatagramGate:
    """One direction of one flow of datagrams, through one or more different buckets."""

    __slots__ = ("_seats",)

    def __init__(self, buckets: Iterable[Bucket]) -> None:
        self._seats = tuple(_Seat(bucket, is_stream=False) for bucket in buckets)
        for seat in self._seats:
            seat.bucket.expect_datagrams(1)

    def take_whole(self, now_s: float, size: int) -> bool:
        """Whether a datagram of `size` bytes may flow now; if not, it is to be dropped.

        One that is larger than a burst never may.
        """
        size = max(size, _DATAGRAM_LEAST)
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
