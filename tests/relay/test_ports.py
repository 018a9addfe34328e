"""Relay ports: from the range, and not soon again for somebody else (case 75)."""

import errno
import socket
from ipaddress import ip_address

import pytest

from trioproxy.relay import RelayPorts, egress_address, listen_for_target, open_target_side
from trioproxy.relay.ports import QUARANTINE_S

LOCALHOST = ip_address("127.0.0.1")


def a_free_port() -> int:
    """A UDP port that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_any_free_port(address: str) -> None:
    """Without a range the kernel chooses; the socket is bound to our address and does not block."""
    with RelayPorts().bind(socket.SOCK_DGRAM, ip_address(address), None, "alice", 0) as sock:
        assert sock.getsockname()[0] == address
        assert not sock.getblocking()


def test_port_comes_from_the_range() -> None:
    """`udp_ports`: what the firewall lets through."""
    port = a_free_port()
    with RelayPorts().bind(socket.SOCK_DGRAM, LOCALHOST, range(port, port + 1), "alice", 0) as sock:
        assert sock.getsockname()[1] == port


def test_range_without_a_free_port() -> None:
    """Every port of the range is taken: an error, no socket."""
    port = a_free_port()
    with RelayPorts().bind(socket.SOCK_DGRAM, LOCALHOST, range(port, port + 1), "alice", 0):
        with pytest.raises(OSError, match="in use"):
            RelayPorts().bind(socket.SOCK_DGRAM, LOCALHOST, range(port, port + 1), "alice", 0)


def test_address_that_is_not_ours() -> None:
    """Nothing is tried again when the address itself is wrong."""
    with pytest.raises(OSError) as told:  # noqa: PT011 - the number is looked at below
        RelayPorts().bind(socket.SOCK_DGRAM, ip_address("192.0.2.200"), None, "alice", 0)
    assert told.value.errno == errno.EADDRNOTAVAIL


def test_case_75_port_is_not_given_to_another_user_within_60_s() -> None:
    """Case 75: late datagrams for one user must not reach the association of another."""
    port = a_free_port()
    ports, numbers = RelayPorts(), range(port, port + 1)
    ports.leave(port, "alice", 100.0)
    with pytest.raises(OSError, match="no free relay port"):
        ports.bind(socket.SOCK_DGRAM, LOCALHOST, numbers, "bob", 100.0 + QUARANTINE_S - 1)
    ports.bind(socket.SOCK_DGRAM, LOCALHOST, numbers, "alice", 101.0).close()
    ports.bind(socket.SOCK_DGRAM, LOCALHOST, numbers, "bob", 100.0 + QUARANTINE_S).close()


def test_quarantine_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more ports are remembered than there are, and those whose time is over are forgotten."""
    monkeypatch.setattr("trioproxy.relay.ports.QUARANTINE_MAX", 2)
    ports = RelayPorts()
    for port in (1, 2, 3):
        ports.leave(port, "alice", 0.0)
    assert list(ports._left) == [1, 2]
    ports.leave(3, "alice", QUARANTINE_S)
    assert list(ports._left) == [3]


def test_case_85_listens_before_anything_is_said() -> None:
    """Case 85: the socket of BIND takes a connection as soon as it exists."""
    with listen_for_target(LOCALHOST, RelayPorts(), None, "alice", 0) as listening, socket.socket() as target:
        target.connect(listening.getsockname())
        assert listening.getsockname()[1] >= 1024


def test_egress_address_is_what_the_routing_table_says() -> None:
    """The address of ours that a target on loopback can reach."""
    assert egress_address(LOCALHOST) == "127.0.0.1"
    assert egress_address(ip_address("::1")) == "::1"


def test_target_side_reaches_both_families() -> None:
    """One socket for IPv4 and IPv6 targets."""
    with open_target_side() as sock:
        assert sock.family is socket.AF_INET6
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0


def test_target_side_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernel knows no IPv6 relays IPv4."""
    real = socket.socket

    def without_ipv6(family: int, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *rest)

    monkeypatch.setattr("trioproxy.relay.udp.socket.socket", without_ipv6)
    with open_target_side() as sock:
        assert sock.family is socket.AF_INET


def test_owner_gets_its_own_ports_again() -> None:
    """Whoever opens and closes all day takes no more ports from a range than it uses at once."""
    first = a_free_port()
    ports, numbers = RelayPorts(), range(first, first + 50)
    for _ in range(200):
        with ports.bind(socket.SOCK_DGRAM, LOCALHOST, numbers, "mallory", 0) as sock:
            port = sock.getsockname()[1]
        ports.leave(port, "mallory", 0)
    assert len(ports._left) == 1
    ports.bind(socket.SOCK_DGRAM, LOCALHOST, numbers, "bob", 0).close()
