"""Where an association sends: its destinations, each with a flow, judged again whenever the rules change."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TypeAlias

import attrs
import trio

from trioproxy.accounting import Flow, Termination, ended_by
from trioproxy.policy import IPAddress, Permit, Refusal, Verdict
from trioproxy.policy.shapes import DatagramShape
from trioproxy.protocol import Address, Command, encode_header
from trioproxy.relay.datagrams import SocketAddress
from trioproxy.sniff import App, Finding, datagram_app

__all__ = ["CLOSED_AT_ONCE", "Destination", "DestinationRights", "Destinations"]

CLOSED_AT_ONCE = 100  # flows ended, or judged, in one go

_Judge: TypeAlias = Callable[[str | None, IPAddress, int, int, Finding | None], Verdict]
_Admit: TypeAlias = Callable[[Flow, Permit, bool], DatagramShape | Termination | None]


@attrs.frozen
class DestinationRights:
    """What destinations need of the session they belong to.

    Attributes:
        judge: name or None, address, port, the client's port, what the first datagram was -> verdict. Without the last
            it may permit no more than to look.
        admit: a flow, its permit, whether its target is new -> what its datagrams have to pass, or why it may not be.
        new_flow: a fresh flow for a destination.
        finished: called with each flow that ended, and why.
        grace_s: a permit, and what forbids it now -> for how long it holds all the same.
    """

    judge: _Judge
    admit: _Admit
    new_flow: Callable[[], Flow]
    finished: Callable[[Flow, Termination], None]
    grace_s: Callable[[Permit, Refusal], float]


@attrs.define(eq=False)
class Destination:
    """One target of an association: where it is, its flow.

    Attributes:
        key: the header of what the client sends to it.
        answer_header: the header of what it answers.
        rules: by which state of the rules it was judged.
        finding: what the first datagram was; None: no rule has asked for it.
        shape: what its datagrams have to pass; None: nothing.
        sent_s: when something was sent to it last.
        grace_ends_s: its hours are over, and until then it may go on; None: they are not.
    """

    key: bytes
    name: str | None
    address: IPAddress
    sockaddr: SocketAddress
    answer_header: bytes
    flow: Flow
    rules: int
    finding: Finding | None
    shape: DatagramShape | None
    sent_s: float = 0.0
    grace_ends_s: float | None = None


class Destinations:
    """Those of one association.

    Args:
        rights: of its session.
        most: the one unused for longest makes room for a new one.
        judge_later: called with the time at which `judge_again` shall be called, of Trio's clock.

    Attributes:
        client_port: where the client sends from, which rules may name; 0: not known yet.
    """

    def __init__(self, rights: DestinationRights, most: int, judge_later: Callable[[float], None]) -> None:
        self.client_port = 0
        self._rights = rights
        self._most = most
        self._judge_later = judge_later
        self._known: OrderedDict[bytes, Destination] = OrderedDict()
        self._contacted: dict[SocketAddress, Destination] = {}
        self._rules = 0  # by which state of the rules, counted from the beginning, a destination was judged

    def __iter__(self) -> Iterator[Destination]:
        return iter(list(self._known.values()))

    def get(self, key: bytes) -> Destination | None:
        """The one that datagrams with this header go to."""
        return self._known.get(key)

    def answering(self, sender: SocketAddress) -> Destination | None:
        """The one that was contacted there."""
        return self._contacted.get(sender)

    def used(self, destination: Destination) -> None:
        """It is the last to make room."""
        self._known.move_to_end(destination.key)

    def contacted(self, destination: Destination, now_s: float) -> None:
        """Something was sent to it, so it may answer."""
        destination.sent_s = now_s
        self._contacted[destination.sockaddr] = destination

    def permit(self, name: str | None, address: IPAddress, port: int, data: bytes) -> Permit | None:
        """What permits a new one; None: nothing does.

        Args:
            name: that led there, if any.
            address: where it is.
            port: its port.
            data: the first datagram, looked at if a rule asks for it.
        """
        verdict = self._rights.judge(name, address, port, self.client_port, None)
        if isinstance(verdict, Permit) and verdict.sniff:
            verdict = self._rights.judge(name, address, port, self.client_port, Finding(datagram_app(data)))
        return verdict if isinstance(verdict, Permit) else None

    def open(self, asked: Address, permit: Permit, sockaddr: SocketAddress) -> Destination | Termination:
        """A new one, or why limits do not let it be.

        Args:
            asked: what the client's header says.
            permit: for it.
            sockaddr: where to send.
        """
        request, flow = permit.request, self._rights.new_flow()
        flow.verdict = permit
        shape = self._rights.admit(flow, permit, True)
        if isinstance(shape, Termination):
            return shape
        if len(self._known) >= self._most:
            self._forget(next(iter(self._known.values())), Termination.FORGOTTEN)
        flow.ask(Command.UDP_ASSOCIATE, asked.host, asked.port)
        key, answer_header = encode_header(asked), encode_header(Address(request.address, asked.port))
        name, address, finding = request.name, request.address, request.finding
        destination = Destination(key, name, address, sockaddr, answer_header, flow, self._rules, finding, shape)
        self._known[destination.key] = destination
        return destination

    def client_moved(self, port: int) -> None:
        """Rules may name the client's port: what was judged is judged anew when it is used."""
        self.client_port = port
        self._rules += 1

    def judge_again(self) -> Iterator[None]:
        """The rules have changed: from now on nothing passes by the old ones.

        Returns:
            Each step judges one destination and forgets it if it is no longer permitted. There may be thousands, so
            whoever goes through them lets others have their turn; a datagram does not wait for it.
        """
        self._rules += 1
        return self._judge_all()

    def _judge_all(self) -> Iterator[None]:
        for destination in self:
            if self._known.get(destination.key) is destination:
                self.still_permitted(destination)
            yield

    def is_judged(self, destination: Destination) -> bool:
        """By the rules of now."""
        return destination.rules == self._rules

    def still_permitted(self, destination: Destination) -> bool:
        """Whether its datagrams may pass by the rules of now; if not, it is forgotten."""
        if destination.rules == self._rules:
            return True
        destination.rules = self._rules
        verdict = self._judge(destination)
        if isinstance(verdict, Refusal):
            if self._may_go_on(destination, verdict):
                return True
            destination.flow.verdict = verdict
            self._forget(destination, ended_by(verdict))
            return False
        destination.flow.verdict, destination.grace_ends_s = verdict, None
        shape = self._rights.admit(destination.flow, verdict, False)
        if isinstance(shape, Termination):
            self._forget(destination, shape)
            return False
        if destination.shape is not None:
            destination.shape.leave()
        destination.shape = shape
        return True

    async def close(self, termination: Termination) -> None:
        """End every flow, some at a time."""
        for count, destination in enumerate(self, start=1):
            if self._known.get(destination.key) is destination:  # rules may change meanwhile, and quotas end
                self._forget(destination, termination)
            if count % CLOSED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        del self._judge_later  # whoever is called there holds us

    def _judge(self, destination: Destination) -> Verdict:
        name, address, port = destination.name, destination.address, destination.sockaddr[1]
        verdict = self._rights.judge(name, address, port, self.client_port, destination.finding)
        if isinstance(verdict, Permit) and verdict.sniff:  # nobody has looked, and it is too late now
            destination.finding = Finding(App.UNKNOWN)
            verdict = self._rights.judge(name, address, port, self.client_port, destination.finding)
        return verdict

    def _may_go_on(self, destination: Destination, refusal: Refusal) -> bool:
        """Whether only its hours are over, and its rule has patience yet."""
        permit, now_s = destination.flow.verdict, trio.current_time()
        grace_s = self._rights.grace_s(permit, refusal) if isinstance(permit, Permit) else 0
        if not grace_s:
            return False
        if destination.grace_ends_s is None:
            destination.grace_ends_s = now_s + grace_s
            self._judge_later(destination.grace_ends_s)
        return now_s < destination.grace_ends_s

    def _forget(self, destination: Destination, termination: Termination) -> None:
        del self._known[destination.key]
        if self._contacted.get(destination.sockaddr) is destination:
            del self._contacted[destination.sockaddr]
        if destination.shape is not None:
            destination.shape.leave()
        self._rights.finished(destination.flow, termination)
