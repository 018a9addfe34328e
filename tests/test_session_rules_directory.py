"""Users of a directory: the rules that come with them, and who is let in without being in the proxy group."""

from pathlib import Path

import attrs
import pytest

from auth import EntryRules, Identity
from tests.associations import associated
from tests.changes import ended, relayed
from tests.harness import Running, running_server, settle
from tests.plugins import install_directory
from tests.socks_client import CONNECT, UDP_ASSOCIATE, connected, logged_in
from tests.targets import Origin
from tests.wires import Ending, UdpSocket
from trioproxy.config import Config, load_config

LOOPBACK = "tcp:*(*)->127.0.0.1(*)"
ALICE = Identity(
    "main",
    "alice",
    frozenset({"staff", "system-proxy"}),
    rules=(
        EntryRules("staff", "cn=staff", ("yes, everything", LOOPBACK)),
        EntryRules(None, "uid=alice", ("udp:*(*)->127.0.0.1(*) log=no",)),
    ),
)
BOB = Identity("main", "bob", frozenset({"staff"}), rules=ALICE.rules)


@pytest.fixture(autouse=True)
def _people(monkeypatch: pytest.MonkeyPatch) -> None:
    install_directory(monkeypatch, ALICE, BOB)


def write(folder: Path, *auth: str) -> Config:
    """A configuration file with a directory, read."""
    path = folder / "trioproxy.toml"
    lines = (
        *("[[listener]]", 'address = "127.0.0.1:0"', "[policy]", 'open_floor = ["127.0.0.0/8"]'),
        *("[auth]", 'backends = ["campus"]', *auth, "[auth.campus]", 'type = "directory"'),
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    return load_config(path)


async def reload(running: Running, folder: Path, *auth: str) -> None:
    """Put another configuration in force."""
    write(folder, *auth)
    await running.server.reload()
    assert running.server.counters["reload_failed"] == 0


OPEN = 'nonmembers = "global-rules"'


async def test_rules_of_a_directory_allow_and_are_recorded(tmp_path: Path) -> None:
    """A rule of the user's group in the directory is in force from the login on; the record names layer and rule."""
    async with running_server(tmp_path, write(tmp_path), rules={}) as running, Origin.open() as origin:
        async with logged_in(running.address) as client:
            target = await relayed(client, origin)
            await client.send(b"hello")
            assert await target.receive(5) == b"hello"
            target.close()
        await running.until_idle()
        (row,) = running.records.rows()
        assert (row["user"], row["scope"], row["rule"]) == ("alice", "group:staff", LOOPBACK)


async def test_rules_of_a_directory_hold_for_datagrams(tmp_path: Path) -> None:
    """An association is opened for one whom only the directory allows it, and `log=no` leaves no record of the flow."""
    async with UdpSocket.open() as target, running_server(tmp_path, write(tmp_path), rules={}) as running:
        async with associated(running.address) as client:
            await client.send(target.host, target.port, b"data")
            assert (await target.receive())[0] == b"data"
        await running.until_idle()
        assert [row["scope"] for row in running.records.rows()] == [None]  # of the association itself


async def test_store_takes_away_what_a_directory_allows(tmp_path: Path) -> None:
    """A deny of the store ends the relay that goes by a rule of the directory; no directory is asked for that."""
    async with (
        running_server(tmp_path, write(tmp_path), rules={}) as running,
        Origin.open() as origin,
        logged_in(running.address) as client,
    ):
        target = await relayed(client, origin)
        running.add_rules({"group:staff": ["deny tcp:*(*)->127.0.0.1(*)"]})
        await ended(running)
        assert await target.rest() == (b"", Ending.RESET)


async def test_who_is_outside_the_proxy_group_stays_out_by_default(tmp_path: Path) -> None:
    """DESIGN section 6: whatever rules the directory keeps with the user."""
    async with running_server(tmp_path, write(tmp_path), rules={"global": [LOOPBACK]}) as running:
        async with connected(running.address) as client:
            assert await client.log_in(b"bob") == 1


async def test_nonmembers_are_judged_by_the_global_layer_alone(tmp_path: Path) -> None:
    """`nonmembers = "global-rules"`: tenant, group, user and directory neither allow nor deny them anything."""
    inner = {scope: [LOOPBACK] for scope in ("tenant:main", "group:staff", "user:bob")}
    async with running_server(tmp_path, write(tmp_path, OPEN), rules=inner) as running, Origin.open() as origin:
        for command, port in ((CONNECT, origin.port), (UDP_ASSOCIATE, 0)):
            async with logged_in(running.address, b"bob") as client:
                assert (await client.ask(command, "127.0.0.1", port)).code == 2
        running.add_rules({"global": [f"{LOOPBACK} group=staff"], "user:bob": ["deny any:*(*)->*(*)"]})
        await running.until_rules_hold()
        async with logged_in(running.address, b"bob") as client:
            (await relayed(client, origin)).close()
        await running.until_idle()
        assert running.records.rows()[-1]["scope"] == "global"


async def test_reload_shuts_nonmembers_out(tmp_path: Path) -> None:
    """Their live sessions end; those of members go on."""
    rules = {"global": [LOOPBACK]}
    async with (
        running_server(
            tmp_path, write(tmp_path, OPEN), rules=rules, config_path=tmp_path / "trioproxy.toml"
        ) as running,
        Origin.open() as origin,
        logged_in(running.address) as alice,
        logged_in(running.address, b"bob") as bob,
    ):
        target = await relayed(alice, origin)
        await relayed(bob, origin)
        await reload(running, tmp_path)
        assert await bob.rest() == (b"", Ending.RESET)
        await settle(lambda: running.server.open_sessions == 1)
        await alice.send(b"still here")
        assert await target.receive(10) == b"still here"


@pytest.mark.parametrize(("auth", "ends"), [((OPEN,), True), ((OPEN, 'proxy_group = "staff"'), False)])
async def test_reload_changes_who_is_a_member(tmp_path: Path, auth: tuple[str, ...], ends: bool) -> None:
    """Another proxy group: who leaves it so loses the inner layers at once, without a login and without a look-up."""
    alice = attrs.evolve(ALICE, groups=frozenset({"staff", "socks"}))
    before = write(tmp_path, OPEN, 'proxy_group = "socks"')
    with pytest.MonkeyPatch.context() as patch:
        directory = install_directory(patch, alice)
        async with (
            running_server(tmp_path, before, rules={}, config_path=tmp_path / "trioproxy.toml") as running,
            Origin.open() as origin,
            logged_in(running.address) as client,
        ):
            target = await relayed(client, origin)
            await reload(running, tmp_path, *auth)
            if ends:
                assert await client.rest() == (b"", Ending.RESET)
            else:
                await client.send(b"still here")
                assert await target.receive(10) == b"still here"
            assert directory.asked == []
