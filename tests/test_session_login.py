"""Who gets in: the choice of method, the login, tenants. Through a real server."""

import re
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.harness import Running, config_for_tests, running_server
from tests.socks_client import CONNECT, connected, logged_in, login, request
from tests.targets import Origin
from tests.wires import Ending
from trioproxy.config import Tenant

pytestmark = pytest.mark.usefixtures("either_engine")

NONE, GSSAPI, LOGIN, PRIVATE, NOTHING = 0x00, 0x01, 0x02, 0x80, 0xFF
OFFERS = [offer for size in range(1, 5) for offer in combinations((NONE, GSSAPI, LOGIN, PRIVATE), size)]
TENANTS = MappingProxyType(
    {"physics": Tenant(realms=("physics.example.org",)), "law": Tenant(realms=("law.example.org",))}
)


def documented(offer: tuple[int, ...], *, anonymous: bool) -> int:
    """The method that the table in the docs gives."""
    kind = "02, alone or beside others" if LOGIN in offer else "00, and not 02" if NONE in offer else "neither"
    page = (Path(__file__).parents[1] / "docs/security.md").read_text()
    [row] = re.findall(rf"^\| {kind} \| (..) \| (..) \|$", page, re.MULTILINE)
    return int(row[anonymous], 16)


@pytest.mark.parametrize("anonymous", [False, True])
async def test_method_is_login_where_offered_and_none_only_where_allowed(tmp_path: Path, anonymous: bool) -> None:
    """Case 18, 31, 45: the whole truth table, as the docs have it; never a method that was not offered."""
    config = config_for_tests(listener=({"anonymous": anonymous},))
    async with running_server(tmp_path, config) as running:
        for offer in OFFERS:
            for offered in (offer, offer[::-1], (*offer, *offer)):
                async with connected(running.address) as client:
                    expected = documented(offer, anonymous=anonymous)
                    assert expected == NOTHING or expected in offer
                    assert (offered, await client.greet(*offered)) == (offered, expected)
                    if expected == NOTHING:
                        assert await client.rest() == (b"", Ending.CLOSED)


@pytest.mark.parametrize("methods", [(NONE,), (GSSAPI,), (PRIVATE,), (NONE, GSSAPI), tuple(range(3, 255))])
async def test_going_on_after_a_refused_greeting_opens_nothing(tmp_path: Path, methods: tuple[int, ...]) -> None:
    """Case 31: methods without login while login is required, and a request all the same."""
    async with running_server(tmp_path) as running, Origin.open() as origin, connected(running.address) as client:
        await client.send(bytes([5, len(methods), *methods]) + login() + request(CONNECT, *origin.address) + b"data")
        assert await client.rest() == (b"\5\xff", Ending.CLOSED)
        assert origin.nobody_waits()
        assert running.server.counters["no_acceptable_method"] == 1


async def test_255_methods_and_the_longest_login(tmp_path: Path) -> None:
    """Case 2: a greeting of 257 and a login of 513 octets (Tor stops at 512) are read whole."""
    user, password = "u" * 255, "p" * 255
    async with (
        running_server(tmp_path, users={user: password}, rules={}) as running,
        connected(running.address) as client,
    ):
        assert await client.greet(*range(255)) == LOGIN
        await client.send(login(user.encode(), password.encode()))
        assert await client.receive(2) == b"\1\0"


async def test_a_login_is_not_remembered_for_an_address(tmp_path: Path) -> None:
    """Case 34, CASES 1.9 row 4: who comes from the address of somebody logged in must log in all the same."""
    async with (
        running_server(tmp_path) as running,
        logged_in(running.address),
        connected(running.address) as other,
    ):
        assert await other.greet(NONE) == NOTHING


async def test_wrong_password_and_a_request_in_the_same_segment(tmp_path: Path) -> None:
    """Case 27, 29: `01 01`, the end, and nothing is opened."""
    async with running_server(tmp_path) as running, Origin.open() as origin, connected(running.address) as client:
        await client.send(b"\5\1\2" + login(password=b"wrong") + request(CONNECT, *origin.address) + b"data")
        assert await client.rest() == (b"\5\2\1\1", Ending.CLOSED)
        assert origin.nobody_waits()


async def test_login_passes_for_the_right_password_alone(tmp_path: Path) -> None:
    """Case 27, 30: right, wrong, prefix, right and more, another user's, other case, unknown user."""
    async with running_server(tmp_path, users={"alice": "wonderland", "bob": "builder"}, rules={}) as running:
        for user, password in (
            (b"alice", b"wrong"),
            (b"alice", b"wonderlan"),
            (b"alice", b"wonderland1"),
            (b"alice", b"builder"),
            (b"alice", b"WONDERLAND"),
            (b"mallory", b"wonderland"),
        ):
            running.server.services.authenticator.throttle = type(running.server.services.authenticator.throttle)()
            async with connected(running.address) as client:
                assert (password, await client.log_in(user, password)) == (password, 1)
                assert await client.rest() == (b"", Ending.CLOSED)
        async with connected(running.address) as client:
            assert await client.log_in(b"Alice", b"wonderland") == 0


async def test_failures_bring_a_penalty_for_their_source_alone(tmp_path: Path) -> None:
    """Case 35: after six failures the right password fails too from there, and works from another address."""
    async with running_server(tmp_path) as running:
        for attempt in range(6):
            async with connected(running.address, source="127.0.0.2") as client:
                assert await client.log_in(b"alice", b"wrong %d" % attempt) == 1
        async with connected(running.address, source="127.0.0.2") as client:
            assert await client.log_in() == 1
        async with connected(running.address, source="127.0.0.3") as client:
            assert await client.log_in() == 0
        assert running.server.counters["login_rejected_penalty"] == 1


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_passwords_in_both_encodings_that_clients_send(tmp_path: Path, encoding: str) -> None:
    """CASES 5a: curl sends UTF-8, Java ISO-8859-1."""
    async with (
        running_server(tmp_path, users={"alice": "p\u00e4\u00df"}, rules={}) as running,
        connected(running.address) as client,
    ):
        assert await client.log_in(b"alice", "p\u00e4\u00df".encode(encoding)) == 0


async def test_no_password_reaches_log_or_records(tmp_path: Path) -> None:
    """Case 36: neither a right nor a wrong one, nor one sent as the user name's neighbour."""
    async with running_server(tmp_path, users={"alice": "PW-CANARY-right"}, rules={}) as running:
        for user, password in (
            (b"alice", b"PW-CANARY-right"),
            (b"alice", b"PW-CANARY-wrong"),
            (b"a\0", b"PW-CANARY-nul"),
        ):
            async with connected(running.address) as client:
                if await client.log_in(user, password) == 0:
                    assert (await client.ask(CONNECT, "127.0.0.1", 9)).code == 2
        await running.until_idle()
        assert "PW-CANARY" not in running.log.text() + running.records.text() + repr(running.server.counters)
        assert "login rejected" in running.log.text()


async def test_anonymous_clients_have_the_global_rules_and_no_others(tmp_path: Path) -> None:
    """DESIGN section 3: global layer and the listener's tenant; a login on the same listener adds the user's own."""
    config = config_for_tests(listener=({"anonymous": True},))
    async with Origin.open() as open_to_all, Origin.open() as for_alice:
        rules = {"global": [f"tcp:*(*)->*({open_to_all.port})"], "user:alice": ["tcp:*(*)->*(*)"]}
        async with running_server(tmp_path, config, rules=rules) as running:
            for origin, code in ((open_to_all, 0), (for_alice, 2)):
                async with connected(running.address) as client:
                    assert await client.greet(NONE) == NONE
                    assert (await client.ask(CONNECT, *origin.address)).code == code
            async with logged_in(running.address) as client:
                assert (await client.ask(CONNECT, *for_alice.address)).code == 0
        users = [row["user"] for row in running.records.rows()]  # in the order in which they ended
        assert (users.count(None), users.count("alice")) == (2, 1)


async def test_login_on_an_anonymous_listener_is_checked(tmp_path: Path) -> None:
    """Case 18: {02} where no login is needed is never a silent success of any password."""
    config = config_for_tests(listener=({"anonymous": True},))
    async with running_server(tmp_path, config) as running:
        for password, status in ((b"wrong", 1), (b"wonderland", 0)):
            async with connected(running.address) as client:
                assert await client.log_in(b"alice", password) == status


# ---- tenants


async def reached(running: Running, listener: int, user: bytes, password: bytes, origin: Origin) -> int | None:
    """The REP for a CONNECT to `origin`; None if the login failed."""
    async with connected(running.addresses[listener]) as client:
        if await client.log_in(user, password):
            return None
        code = (await client.ask(CONNECT, *origin.address)).code
        client.reset()  # the target is not going to close
        return code


async def test_same_name_in_two_tenants_by_listener(tmp_path: Path) -> None:
    """Issue item 5: two listeners, one name, two passwords, two rule sets; nothing of one holds in the other."""
    config = config_for_tests(listener=({"tenant": "physics"}, {"tenant": "law"}), tenant=TENANTS)
    users = {"physics/alice": "quark", "law/alice": "habeas corpus"}
    async with Origin.open() as lab, Origin.open() as court:
        rules = {
            "user:physics/alice": [f"tcp:*(*)->*({lab.port})"],
            "user:law/alice": [f"tcp:*(*)->*({court.port})"],
            "user:alice": ["tcp:*(*)->*(*)"],  # of the tenant main, which has no listener here
        }
        async with running_server(tmp_path, config, users=users, rules=rules) as running:
            assert await reached(running, 0, b"alice", b"quark", lab) == 0
            assert await reached(running, 0, b"alice", b"quark", court) == 2
            assert await reached(running, 1, b"alice", b"habeas corpus", court) == 0
            assert await reached(running, 1, b"alice", b"habeas corpus", lab) == 2
            assert await reached(running, 0, b"alice", b"habeas corpus", lab) is None
            assert await reached(running, 1, b"alice", b"quark", court) is None
            # Realms select nothing where the listener does not say so.
            assert await reached(running, 0, b"alice@law.example.org", b"habeas corpus", court) is None
            await running.until_idle()
        rows = running.records.rows()
        assert (
            sorted((row["tenant"], row["user"]) for row in rows) == [("law", "alice")] * 2 + [("physics", "alice")] * 2
        )


async def test_same_name_in_two_tenants_by_realm(tmp_path: Path) -> None:
    """DESIGN section 3: the part behind the last @ selects the tenant; an unknown one belongs to the name."""
    config = config_for_tests(listener=({"realms": True},), tenant=TENANTS)
    users = {"physics/alice": "quark", "law/alice": "habeas corpus", "alice": "wonderland", "alice@home": "sofa"}
    async with Origin.open() as lab, Origin.open() as court:
        rules = {
            "tenant:physics": [f"tcp:*(*)->*({lab.port})"],
            "tenant:law": [f"tcp:*(*)->*({court.port})"],
            "tenant:main": [f"tcp:*(*)->*({lab.port},{court.port})"],
        }
        async with running_server(tmp_path, config, users=users, rules=rules) as running:
            for user, password, to_lab, to_court in (
                (b"alice@physics.example.org", b"quark", 0, 2),
                (b"alice@PHYSICS.example.org", b"quark", 0, 2),
                (b"alice@law.example.org", b"habeas corpus", 2, 0),
                (b"alice", b"wonderland", 0, 0),
                (b"alice@home", b"sofa", 0, 0),
                (b"alice@law.example.org", b"quark", None, None),
                (b"alice", b"quark", None, None),
            ):
                assert (user, await reached(running, 0, user, password, lab)) == (user, to_lab)
                assert (user, await reached(running, 0, user, password, court)) == (user, to_court)


async def test_limits_and_penalties_of_one_tenant_leave_the_other_alone(tmp_path: Path) -> None:
    """Issue item 5, case 35: the same name and the same address, but another tenant."""
    config = config_for_tests(
        listener=({"tenant": "physics"}, {"tenant": "law"}), tenant=TENANTS, limits={"sessions_per_user_max": 1}
    )
    users = {f"{tenant}/{name}": "quark" for tenant in ("physics", "law") for name in ("alice", "bob")}
    rules = {"global": ["tcp:*(*)->*(*)"]}
    async with Origin.open() as origin, running_server(tmp_path, config, users=users, rules=rules) as running:
        async with logged_in(running.addresses[0], password=b"quark") as held:
            assert (await held.ask(CONNECT, *origin.address)).code == 0
            assert await reached(running, 0, b"alice", b"quark", origin) == 1
            assert await reached(running, 1, b"alice", b"quark", origin) == 0
            held.reset()
        for attempt in range(6):
            assert await reached(running, 0, b"alice", b"wrong %d" % attempt, origin) is None
        assert await reached(running, 0, b"bob", b"quark", origin) is None
        await running.until_idle()
        assert await reached(running, 1, b"bob", b"quark", origin) == 0


async def test_login_remembered_for_one_tenant_is_none_for_another(tmp_path: Path) -> None:
    """Issue item 5: the cache of logins is keyed by tenant; the same name and password are two logins."""
    config = config_for_tests(listener=({"tenant": "physics"}, {"tenant": "law"}), tenant=TENANTS)
    async with running_server(tmp_path, config, users={"physics/alice": "quark"}, rules={}) as running:
        async with connected(running.addresses[0]) as client:
            assert await client.log_in(b"alice", b"quark") == 0
        async with connected(running.addresses[1]) as client:
            assert await client.log_in(b"alice", b"quark") == 1
