"""Flows that run through buckets on a simulated clock, served as a pump with a timer does it."""

from collections.abc import Callable, Iterable, Sequence

from trioproxy.policy.buckets import Bucket, DatagramGate, Gate

TICK_S = 0.05


class Stream:
    """A flow with a backlog, asking for `chunk` bytes at a time.

    Args:
        buckets: that count for it.
        chunk: bytes asked for in one call.
        per_s: how fast its source sends; None: as fast as it may.
        taken_of_chunk: the share of a grant that its kernel takes.
    """

    def __init__(
        self, buckets: Iterable[Bucket], *, chunk: int = 65_536, per_s: int | None = None, taken_of_chunk: float = 1.0
    ) -> None:
        self.gate = Gate(buckets, owner=self)
        self.chunk = chunk
        self.per_s = per_s
        self.taken_of_chunk = taken_of_chunk
        self.backlog = 0.0
        self.moved = 0
        self.calls = 0
        self.waited_since_s: float | None = None
        self.waited_longest_s = 0.0

    def arrive(self, passed_s: float) -> None:
        """What its source has sent meanwhile."""
        self.backlog = 10**15 if self.per_s is None else self.backlog + self.per_s * passed_s

    def move(self, now_s: float) -> None:
        """Carry what may be carried."""
        while self.step(now_s):
            pass

    def step(self, now_s: float) -> bool:
        """The same, with one call; whether another one makes sense."""
        granted = self.gate.grant(now_s, self.chunk) if self.backlog >= 1 else 0
        if granted:
            if self.waited_since_s is not None:
                self.waited_longest_s = max(self.waited_longest_s, now_s - self.waited_since_s)
                self.waited_since_s = None
            used = min(int(self.backlog), max(1, int(granted * self.taken_of_chunk)))
            self.gate.give_back(granted - used)
            self.backlog -= used
            self.moved += used
            self.calls += 1
        elif self.gate.waits_at and self.waited_since_s is None:
            self.waited_since_s = now_s
        return granted > 0


class Datagrams:
    """A flow of datagrams of one size at one pace, as a call or a flood."""

    def __init__(self, buckets: Iterable[Bucket], *, size: int, per_s: float) -> None:
        self.gate = DatagramGate(buckets)
        self.size = size
        self.every_s = 1 / per_s
        self.next_s = 0.0
        self.passed = 0
        self.dropped = 0

    @property
    def moved(self) -> int:
        """Bytes that passed."""
        return self.passed * self.size


def serve(bucket: Bucket, now_s: float) -> None:
    """What a pump's timer does."""
    while gates := bucket.ready(now_s):
        for gate in gates:
            assert isinstance(gate.owner, Stream)
            gate.owner.move(now_s)


def run(
    buckets: Sequence[Bucket],
    flows: Sequence[Stream | Datagrams],
    *,
    begin_s: float,
    end_s: float,
    tick_s: Callable[[int], float] = lambda _: TICK_S,
    each_tick: Callable[[float], None] = lambda _: None,
) -> None:
    """Let time pass from tick to tick; datagrams come in between, each at its own moment."""
    streams = [flow for flow in flows if isinstance(flow, Stream)]
    datagrams = [flow for flow in flows if isinstance(flow, Datagrams)]
    now_s, count = begin_s, 0
    while now_s < end_s:
        passed_s = tick_s(count)
        _send_datagrams(datagrams, now_s, now_s + passed_s)
        now_s, count = now_s + passed_s, count + 1
        for stream in streams:
            stream.arrive(passed_s)
        moving = streams
        while moving:  # one call, then the next flow's, as a pump does it
            moving = [stream for stream in moving if stream.step(now_s)]
        for bucket in buckets:
            serve(bucket, now_s)
        each_tick(now_s)


def _send_datagrams(flows: Sequence[Datagrams], begin_s: float, end_s: float) -> None:
    moments: list[tuple[float, int, Datagrams]] = []
    for number, flow in enumerate(flows):
        flow.next_s = max(flow.next_s, begin_s)
        while flow.next_s < end_s:
            moments.append((flow.next_s, number, flow))
            flow.next_s += flow.every_s
    for at_s, _, flow in sorted(moments, key=lambda moment: moment[:2]):
        if flow.gate.take_whole(at_s, flow.size):
            flow.passed += 1
        else:
            flow.dropped += 1
