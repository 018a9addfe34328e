"""curl through the running server, over IPv4 and IPv6: both schemes, logins, refusals, many transfers at once."""

from pathlib import Path

import pytest

from tests.system.origins import GREETING, Web, blob, closed_port, digest, web_origin
from tests.system.proxy import PASSWORD, USER, Proxy, authority, proxy_url, run
from tests.system.waiting import until

PROXY_ERROR = 97  # CURLE_PROXY: the handshake with the proxy failed
LOGIN = f"{USER}:{PASSWORD}"


@pytest.mark.parametrize("login", [LOGIN, None], ids=["login", "anonymous"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_page_is_fetched(
    login_address: tuple[str, int], anonymous_address: tuple[str, int], web: Web, scheme: str, login: str | None
) -> None:
    """RFC 1928, 1929: CONNECT to an address, with a login and without, as curl speaks it (CASES 5a)."""
    address = login_address if login else anonymous_address
    done = run(["curl", "-sS", "-x", proxy_url(address, login, scheme), web.url()])
    assert (done.returncode, done.stdout.encode()) == (0, GREETING), done.stderr


@pytest.mark.parametrize("login", [LOGIN, None], ids=["login", "anonymous"])
def test_a_name_travels_to_the_proxy(
    proxy: Proxy, login_address: tuple[str, int], anonymous_address: tuple[str, int], login: str | None
) -> None:
    """RFC 1928 section 5: `socks5h` sends the name (ATYP 3), `socks5` the address that curl found."""
    address = login_address if login else anonymous_address
    with web_origin("127.0.0.1") as web:
        found = ["--resolve", f"localhost:{web.server_port}:127.0.0.1"]
        for scheme, asked in (("socks5h", "localhost"), ("socks5", "127.0.0.1")):
            url = web.url(host="localhost")
            done = run(["curl", "-sS", *found, "-x", proxy_url(address, login, scheme), url])
            assert (done.returncode, done.stdout.encode()) == (0, GREETING), done.stderr
            row = proxy.record(asked=f"{asked}:{web.server_port}")
            assert (row["target"], row["user"]) == (f"127.0.0.1:{web.server_port}", USER if login else None)


def test_a_wrong_password_is_refused(login_address: tuple[str, int], web: Web) -> None:
    """Case 27: `01 01`, which curl reports as such, and nothing reaches the origin."""
    done = run(["curl", "-sS", "-x", proxy_url(login_address, f"{USER}:wrong"), web.url()])
    assert done.returncode == PROXY_ERROR
    assert "User was rejected by the SOCKS5 server (1 1)" in done.stderr
    assert web.asked == []


def test_no_login_where_one_is_wanted(login_address: tuple[str, int], web: Web) -> None:
    """Case 18: curl without a user offers 00 and 01; the answer is FF."""
    done = run(["curl", "-sS", "-x", proxy_url(login_address, None), web.url()])
    assert done.returncode == PROXY_ERROR
    assert "No authentication method was acceptable" in done.stderr
    assert web.asked == []


def test_a_login_is_checked_where_none_is_wanted(anonymous_address: tuple[str, int], web: Web) -> None:
    """Issue 2 item 4: both methods offered, login is preferred; a wrong password is not overlooked."""
    right = run(["curl", "-sS", "-x", proxy_url(anonymous_address, LOGIN), web.url()])
    wrong = run(["curl", "-sS", "-x", proxy_url(anonymous_address, f"{USER}:guess"), web.url()])
    assert (right.returncode, wrong.returncode) == (0, PROXY_ERROR)


def test_a_denied_target_is_refused(login_address: tuple[str, int], family: str) -> None:
    """Case 20: what a rule denies is answered with REP 02."""
    done = run(["curl", "-sS", "-x", proxy_url(login_address), f"http://{authority((family, 25))}/"])
    assert done.returncode == PROXY_ERROR
    assert done.stderr.rstrip().endswith("(2)"), done.stderr


def test_what_only_a_user_may(proxy: Proxy) -> None:
    """Issue 2 item 4: without a login the global rules hold alone; 127.0.0.2 is allowed by Alice's own rules only."""
    url = "http://127.0.0.2:9/"
    anonymous = run(["curl", "-sS", "-x", proxy_url(proxy.addresses[2], None), url])
    alice = run(["curl", "-sS", "-x", proxy_url(proxy.addresses[2]), url])
    assert anonymous.stderr.rstrip().endswith("(2)"), anonymous.stderr
    assert alice.stderr.rstrip().endswith("(5)"), alice.stderr  # nobody listens there, and she learns that


def test_a_refused_port(login_address: tuple[str, int], family: str) -> None:
    """Case 20: a closed port is answered with REP 05."""
    with closed_port(family) as port:
        done = run(["curl", "-sS", "-x", proxy_url(login_address), f"http://{authority((family, port))}/"])
    assert done.returncode == PROXY_ERROR
    assert done.stderr.rstrip().endswith("(5)"), done.stderr


def test_a_name_that_does_not_exist(login_address: tuple[str, int]) -> None:
    """Case 20, 93: NXDOMAIN is answered with REP 04 in a few seconds (`.invalid` never exists, RFC 6761)."""
    done = run(["curl", "-sS", "-x", proxy_url(login_address), "http://no-such-host.invalid/"])
    assert done.returncode == PROXY_ERROR
    assert done.stderr.rstrip().endswith("(4)"), done.stderr


@pytest.mark.parametrize("spelling", ["127.1", "2130706433", "0x7f.1"])
def test_spellings_of_loopback_reach_nothing(login_address: tuple[str, int], spelling: str) -> None:
    """Case 64: a name that `getaddrinfo` would take for an address is refused with REP 01; nothing is contacted."""
    # curl turns such a host of a URL into an address by itself; through --connect-to the spelling is kept.
    with web_origin("127.0.0.1") as web:
        elsewhere = ["--connect-to", f"::{spelling}:{web.server_port}"]
        done = run(["curl", "-sS", "-x", proxy_url(login_address), *elsewhere, web.url(host="spelled.invalid")])
        assert done.returncode == PROXY_ERROR
        assert done.stderr.rstrip().endswith("(1)"), done.stderr
        assert web.asked == []


def test_the_proxy_does_not_reach_itself(proxy: Proxy, login_address: tuple[str, int]) -> None:
    """Case 68: its own listeners are refused with REP 02, though the floor is open there and a rule allows them."""
    for own in proxy.addresses:
        done = run(["curl", "-sS", "-x", proxy_url(login_address), f"http://{authority(own)}/"])
        assert done.returncode == PROXY_ERROR
        assert done.stderr.rstrip().endswith("(2)"), done.stderr


def test_an_upload_arrives_whole(login_address: tuple[str, int], web: Web, tmp_path: Path) -> None:
    """Case 94: 3 MB up; the digest that the origin answers with is that of the file."""
    body = blob(3_000_000)
    (tmp_path / "body").write_bytes(body)
    done = run(
        ["curl", "-sS", "-x", proxy_url(login_address), "-H", "Expect:", "-T", str(tmp_path / "body"), web.url()]
    )
    assert (done.returncode, done.stdout) == (0, digest(body)), done.stderr


def test_fifty_transfers_at_once(proxy: Proxy, login_address: tuple[str, int], web: Web, tmp_path: Path) -> None:
    """Case 94: 50 downloads at the same time, each of another size, each whole; one record for each."""
    sizes = [40_000 + 997 * number for number in range(50)]
    wanted = [argument for size in sizes for argument in (web.url(f"/blob/{size}"), "-o", str(tmp_path / str(size)))]
    done = run(
        ["curl", "-sS", "-Z", "--parallel-immediate", "--parallel-max", "50", "-x", proxy_url(login_address), *wanted]
    )
    assert done.returncode == 0, done.stderr
    assert [digest((tmp_path / str(size)).read_bytes()) for size in sizes] == [digest(blob(size)) for size in sizes]
    asked = web.url("").removeprefix("http://")
    rows = until("a record for each", lambda: len(found := proxy.records(asked=asked)) == len(sizes) and found)
    assert sum(row["bytes_to_client"] for row in rows) > sum(sizes)
