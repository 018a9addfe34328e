"""Issue 2 item 2: the first start in an empty home, as a newcomer sees it, on a machine of its own."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import attrs
import pytest

from tests.system.namespaces import Machine, machine, popen
from tests.system.proxy import Proxy, environment, run
from tests.system.waiting import PATIENCE_S, until

# example.org, as this machine finds it (RFC 5737: an address for documentation; nothing of the real one is asked)
SITE = "198.51.100.80"


@attrs.frozen
class Place:
    """A machine with an HTTPS server called example.org.

    Attributes:
        folder: for everything.
        home: empty.
        certificate: of the HTTPS server.
    """

    machine: Machine
    folder: Path
    home: Path
    certificate: Path

    def proxy(self) -> Proxy:
        """A server that is started by `trioproxy serve` and nothing else."""
        return Proxy(self.folder, None, prefix=self.machine.inside(), home=self.home)

    def paste(self, line: str) -> CompletedProcess[str]:
        """Paste a line into a shell on the machine."""
        return run(self.machine.inside("sh", "-c", line), env=environment(CURL_CA_BUNDLE=str(self.certificate)))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A machine, its network, its web site."""
    home = tmp_path / "home"
    home.mkdir()
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=example.org", "-addext", "subjectAltName=DNS:example.org"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    made = run(["openssl", "req", "-x509", *curve, "-noenc", "-days", "2", *subject, *files])
    assert made.returncode == 0, made.stderr
    with machine(f"127.0.0.1 localhost\n{SITE} example.org\n", folder=tmp_path) as here:
        here.run("ip", "address", "add", f"{SITE}/32", "dev", "lo")
        site: list[str | Path] = [
            "openssl",
            "s_server",
            "-accept",
            f"{SITE}:443",
            "-cert",
            certificate,
            "-key",
            key,
            "-www",
        ]
        said = tmp_path / "site"
        with popen(here.inside(*site), said) as server:
            try:
                until("the HTTPS server", lambda: "ACCEPT" in said.read_text())
                yield Place(here, tmp_path, home, certificate)
            finally:
                server.kill()


def _shown(output: str) -> tuple[str, str, str]:
    """What a first start shows: the user, the password, the line to paste."""
    patterns = (r"^    user +(\S+)$", r"^    password +(\S+)$", r"^    (curl .*)$")
    user, password, line = (re.findall(pattern, output, re.MULTILINE)[0] for pattern in patterns)
    return user, password, line


def test_a_newcomer(place: Place) -> None:
    """A user, a password shown once, a line that works when pasted; and a second start that finds the same store."""
    proxy = place.proxy()
    with proxy:
        assert proxy.addresses == [("127.0.0.1", 1080)]
        user, password, line = _shown(until("the password", lambda: "Ctrl-C" in proxy.output and proxy.output))
        pasted = place.paste(line)
        assert pasted.returncode == 0, pasted.stderr
        assert "<HTML>" in pasted.stdout.upper()
        assert proxy.record(asked="example.org:443")["target"] == f"{SITE}:443"
        stored = proxy.data_dir / "trioproxy.db"
        assert (stored.stat().st_mode & 0o777, stored.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
    first = proxy.output
    with proxy:
        again = place.paste(line)
        assert again.returncode == 0, again.stderr
        users = json.loads(proxy.command("user", "list", "--json").stdout)
        rules = json.loads(proxy.command("rule", "list", f"user:{user}", "--json").stdout)
        proxy.signal(signal.SIGINT)
        assert proxy.wait() == 0
    assert [account["name"] for account in users] == [user]
    assert [rule["rule"] for rule in rules] == ["tcp:*(*)->*(*)", "udp:*(*)->*(*)"]
    second = proxy.output.removeprefix(first)
    assert first.count(password) == 2  # in the table, and in the line to paste
    assert password not in second
    assert "password" not in second
    assert password not in proxy.log


def test_no_password_is_lost_when_the_port_is_in_use(place: Place) -> None:
    """One clear line and exit 1; the password, which is shown only once, comes with the start that succeeds."""
    proxy = place.proxy()
    taken = place.folder / "taken"
    with popen(place.machine.inside("nc.openbsd", "-v", "-l", "127.0.0.1", "1080"), taken) as other:
        try:
            until("the port to be taken", lambda: "Listening" in taken.read_text())
            proxy.launch()
            assert proxy.wait() == 1
        finally:
            proxy.kill()
            other.kill()
            other.wait(PATIENCE_S)
    [line] = proxy.log.splitlines()
    assert line.startswith("trioproxy: cannot listen on 127.0.0.1:1080: Address already in use")
    assert proxy.output == ""
    with proxy:
        _, _, pasted = _shown(until("the password", lambda: "Ctrl-C" in proxy.output and proxy.output))
        assert place.paste(pasted).returncode == 0


def test_a_store_elsewhere(tmp_path: Path) -> None:
    """A configuration that names another place for the store: it starts, though nobody has made the data folder."""
    store = tmp_path / "elsewhere" / "trioproxy.db"
    with Proxy(tmp_path, f'[store]\nurl = "sqlite:///{store}"\n[[listener]]\naddress = "127.0.0.1:0"\n') as proxy:
        assert f"users and rules are in {store}" in proxy.output
        assert "password" not in proxy.output  # with a configuration nothing is made for anybody
