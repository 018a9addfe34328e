"""OpenSSH through the running server: a throw-away sshd, reached with ncat (login) and with nc (no login)."""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.system.origins import blob, digest, free_port
from tests.system.proxy import PASSWORD, USER, Proxy, authority, environment, run
from tests.system.waiting import PATIENCE_S, until

SEPARATION = Path("/run/sshd")  # where sshd, as root, wants its empty folder; Debian makes it when the service starts


@attrs.frozen
class Shell:
    """A running sshd.

    Attributes:
        folder: its keys, and what the client needs to know of them.
        ports: by address.
    """

    folder: Path
    ports: dict[str, int]


def _make_keys(folder: Path) -> None:
    for name in ("host", "user"):
        made = run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name])
        assert made.returncode == 0, made.stderr
    shutil.copy(folder / "user.pub", folder / "authorized")


def _write_config(folder: Path, ports: dict[str, int]) -> None:
    addresses = [f"ListenAddress {f'[{host}]' if ':' in host else host}:{port}" for host, port in ports.items()]
    settings = [
        f"HostKey {folder}/host",
        f"AuthorizedKeysFile {folder}/authorized",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "StrictModes no",  # the folder of the tests belongs to whoever runs them
        "UsePAM no",
        "PidFile none",
    ]
    (folder / "sshd_config").write_text("\n".join([*addresses, *settings, ""]))
    host_key = (folder / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text("\n".join(["trusted " + " ".join(host_key), ""]))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """An sshd of the test's own, with a key of the test's own."""
    folder = tmp_path_factory.mktemp("sshd")
    ports = {host: free_port(host) for host in ("127.0.0.1", "::1")}
    _make_keys(folder)
    _write_config(folder, ports)
    program = shutil.which("sshd", path=environment()["PATH"])
    assert program is not None, "sshd is not installed"
    if os.geteuid() == 0:
        SEPARATION.mkdir(mode=0o755, exist_ok=True)  # and left there: another sshd may have begun to use it
    with (folder / "log").open("wb") as log:
        # sshd starts itself anew for each client, so it must be named by its whole path.
        daemon = subprocess.Popen(
            [program, "-D", "-e", "-f", folder / "sshd_config"], stdin=subprocess.DEVNULL, stderr=log
        )
    try:
        until("sshd to listen", lambda: (folder / "log").read_text().count("Server listening on") == len(ports))
        yield Shell(folder, ports)
    finally:
        daemon.terminate()
        daemon.wait(PATIENCE_S)


def _ssh(shell: Shell, host: str, proxy_command: str, *remote: str) -> list[str | Path]:
    options = {
        "ProxyCommand": proxy_command,
        "IdentityFile": str(shell.folder / "user"),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(shell.folder / "known_hosts"),
        "HostKeyAlias": "trusted",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": str(int(PATIENCE_S)),
    }
    flags = [flag for name, value in options.items() for flag in ("-o", f"{name}={value}")]
    return ["ssh", "-F", "none", *flags, "-p", str(shell.ports[host]), f"{getpass.getuser()}@{host}", *remote]


def _through_ncat(address: tuple[str, int], login: str = f"{USER}:{PASSWORD}") -> str:
    return f"ncat --proxy {authority(address)} --proxy-type socks5 --proxy-auth {login} %h %p"


def _through_nc(address: tuple[str, int]) -> str:
    return f"nc.openbsd -X 5 -x {authority(address)} %h %p"


def test_ssh_through_ncat_with_a_login(proxy: Proxy, sshd: Shell, login_address: tuple[str, int], family: str) -> None:
    """A megabyte goes through `ssh HOST sha256sum`; the record says who it was."""
    text = blob(500_000).hex()
    done = run(_ssh(sshd, family, _through_ncat(login_address), "sha256sum"), text=text)
    assert (done.returncode, done.stdout.split()[:1]) == (0, [digest(text.encode())]), done.stderr
    row = proxy.record(target=authority((family, sshd.ports[family])), user=USER)
    assert row["bytes_to_target"] > len(text)


def test_ssh_through_nc_without_a_login(sshd: Shell, anonymous_address: tuple[str, int], family: str) -> None:
    """Megabytes the other way, from `ssh HOST`, through the listener that wants no login."""
    done = run(_ssh(sshd, family, _through_nc(anonymous_address), "head -c 2000000 /dev/zero | tr '\\0' x"))
    assert (done.returncode, done.stdout) == (0, "x" * 2_000_000), done.stderr


def test_ssh_with_a_wrong_password_for_the_proxy(sshd: Shell, login_address: tuple[str, int], family: str) -> None:
    """Case 27: ssh gets no connection, and says so."""
    done = run(_ssh(sshd, family, _through_ncat(login_address, f"{USER}:wrong"), "true"))
    assert done.returncode == 255
    assert "authentication failed" in done.stderr.lower(), done.stderr


def test_ssh_forwards_a_port_through_the_proxy(
    sshd: Shell, login_address: tuple[str, int], family: str, echo: tuple[str, int]
) -> None:
    """A session that lasts and carries another one: `ssh -W` to an echo server, two round trips."""
    arguments = _ssh(sshd, family, _through_ncat(login_address))
    through = [*arguments[:-1], "-W", authority(echo), arguments[-1]]
    with subprocess.Popen(
        through, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for line in (b"first\n", b"second\n"):
            client.stdin.write(line)
            client.stdin.flush()
            assert client.stdout.readline() == line
        client.stdin.close()
        assert client.wait(PATIENCE_S) == 0
