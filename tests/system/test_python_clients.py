"""python-socks on Trio and PySocks through the running server, over IPv4 and IPv6: TCP, names, UDP, refusals."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import socks
import trio
from python_socks import ProxyError
from python_socks.async_.trio import Proxy as TrioProxy

from tests.system.origins import blob, digest, tcp_origin, udp_echo
from tests.system.proxy import PASSWORD, USER, Proxy, authority, proxy_url
from tests.system.waiting import PATIENCE_S

LOGIN = f"{USER}:{PASSWORD}"


async def _connect(address: tuple[str, int], login: str | None, target: tuple[str, int]) -> trio.SocketStream:
    # python-socks knows no scheme socks5h: whether a name travels is said by `rdns`.
    proxy = TrioProxy.from_url(proxy_url(address, login, "socks5"), rdns=True)
    with trio.fail_after(PATIENCE_S):
        return trio.SocketStream(await proxy.connect(*target))


@pytest.mark.parametrize("login", [LOGIN, None], ids=["login", "anonymous"])
async def test_python_socks_on_trio(
    login_address: tuple[str, int], anonymous_address: tuple[str, int], echo: tuple[str, int], login: str | None
) -> None:
    """RFC 1928: CONNECT; 300 kB there and back, and after our end of sending the rest still arrives (case 95)."""
    sent = blob(300_000)
    stream = await _connect(login_address if login else anonymous_address, login, echo)
    received = bytearray()
    async with stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(sent)
            await stream.send_eof()

        nursery.start_soon(send)
        with trio.fail_after(PATIENCE_S):
            async for chunk in stream:
                received += chunk
    assert digest(bytes(received)) == digest(sent)


async def test_python_socks_by_name(proxy: Proxy, login_address: tuple[str, int]) -> None:
    """RFC 1928 section 5: the name is resolved by the proxy; 20 connections at the same time."""
    answers: list[bytes] = []

    async def talk(number: int) -> None:
        async with await _connect(login_address, LOGIN, ("localhost", port)) as stream:
            await stream.send_all(b"%04d" % number)
            answers.append(await stream.receive_some(4))

    with tcp_origin("127.0.0.1") as (_, port):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(talk, number)
    assert sorted(answers) == [b"%04d" % number for number in range(20)]


async def test_python_socks_wrong_password(login_address: tuple[str, int], echo: tuple[str, int]) -> None:
    """Case 27: a wrong password is refused."""
    with pytest.raises(ProxyError, match="authentication failure"):
        await _connect(login_address, f"{USER}:wrong", echo)


async def test_python_socks_refusals(login_address: tuple[str, int], family: str) -> None:
    """Case 20: the reply codes of a denied target (02), and of 0.0.0.0 or ::, which the floor forbids (02)."""
    for host in (family, "::" if ":" in family else "0.0.0.0"):
        with pytest.raises(ProxyError, match="not allowed by ruleset") as caught:
            await _connect(login_address, LOGIN, (host, 25))
        assert caught.value.error_code == 2


@pytest.mark.parametrize("login", [(USER, PASSWORD), (None, None)], ids=["login", "anonymous"])
def test_pysocks(proxy: Proxy, echo: tuple[str, int], family: str, login: tuple[str | None, str | None]) -> None:
    """RFC 1928: CONNECT. BND is the address that the server used towards the target (CASES 1.9)."""
    listener = (0 if login[0] else 2) + (":" in family)
    with proxy.connect(echo, listener=listener, user=login[0], password=login[1]) as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        bound_host, bound_port = sock.get_proxy_sockname()  # type: ignore[attr-defined]  # it is a socksocket
        assert (bound_host, bound_port > 0) == (family, True)


def test_pysocks_refusals(proxy: Proxy, family: str) -> None:
    """Case 20, 27: wrong password, denied, refused; PySocks names each by its code."""
    listener = int(":" in family)
    with pytest.raises(socks.ProxyError, match="SOCKS5 authentication failed"):
        proxy.connect((family, 9), listener=listener, password="wrong")
    with pytest.raises(socks.ProxyError, match="0x02: Connection not allowed by ruleset"):
        proxy.connect((family, 25), listener=listener)
    with pytest.raises(socks.ProxyError, match="0x05: Connection refused"):
        proxy.connect((family, 9), listener=listener)


@contextmanager
def _datagram_socket(address: tuple[str, int], login: tuple[str | None, str | None]) -> Iterator[socket.socket]:
    # IPv4 towards the proxy only: PySocks cannot take apart the socket name of an IPv6 datagram socket.
    with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.set_proxy(socks.SOCKS5, *address, True, *login)
        sock.settimeout(PATIENCE_S)
        sock.bind((address[0], 0))  # asks for the association
        yield sock


def test_pysocks_udp(proxy: Proxy, udp: tuple[str, int]) -> None:
    """RFC 1928 section 7: UDP ASSOCIATE, several sizes there and back, one record for the destination."""
    sizes = (0, 1, 1_200, 8_000)
    with _datagram_socket(proxy.addresses[0], (USER, PASSWORD)) as sock:
        for size in sizes:
            sock.sendto(blob(size), udp)
            packet, sender = sock.recvfrom(65_535)
            assert (packet, sender[:2]) == (b"echo:" + blob(size), udp)
    row = proxy.record(target=authority(udp))
    assert (row["command"], row["bytes_to_target"]) == ("UDP_ASSOCIATE", sum(sizes))
    assert row["bytes_to_client"] == sum(sizes) + len("echo:") * len(sizes)


def test_pysocks_udp_to_a_name(proxy: Proxy) -> None:
    """RFC 1928 section 7: a datagram for a name; the proxy resolves it, and the answer names the address."""
    with udp_echo("127.0.0.1") as (_, port), _datagram_socket(proxy.addresses[0], (USER, PASSWORD)) as sock:
        sock.sendto(b"by name", ("localhost", port))
        assert sock.recvfrom(100) == (b"echo:by name", ("127.0.0.1", port))


def test_pysocks_udp_is_not_for_everybody(proxy: Proxy) -> None:
    """Issue 2 item 6: no global rule allows UDP, so the association itself is refused to a client without login."""
    with pytest.raises(socks.ProxyError, match="0x02"), _datagram_socket(proxy.addresses[2], (None, None)):
        pytest.fail("the association was permitted")
