"""Names of both families on a machine whose /etc/hosts the test writes: curl through the proxy by name."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.namespaces import Machine, machine, popen
from tests.system.proxy import PASSWORD, USER, Proxy, authority, proxy_url, run
from tests.system.waiting import until

FOUR, SIX = "198.51.100.80", "fd00:99::80"  # RFC 5737, RFC 4193
PORT = 8080

HOSTS = f"""
127.0.0.1 localhost
{FOUR} four.example both.example evil.example
{SIX} six.example both.example
127.0.0.1 inside.example
::ffff:127.0.0.1 mapped.example
"""

CONFIG = '[[listener]]\naddress = "127.0.0.1:1080"\n[[listener]]\naddress = "[::1]:1080"\n'


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Machine]:
    """A machine with an address of each family, and a web server on each."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("a page\n")
    with machine(HOSTS, folder=tmp_path) as made, ExitStack() as stack:
        made.run("ip", "address", "add", f"{FOUR}/32", "dev", "lo")
        made.run("ip", "address", "add", f"{SIX}/128", "dev", "lo", "nodad")
        for number, address in enumerate((FOUR, SIX)):
            said = tmp_path / f"web{number}"
            site = ["-m", "http.server", "--bind", address, "--directory", str(tmp_path / "site"), str(PORT)]
            server = stack.enter_context(popen(made.inside(sys.executable, "-u", *site), said))
            stack.callback(server.kill)
            until("the web server", lambda said=said: "Serving HTTP" in said.read_text())  # type: ignore[misc]
        yield made


def test_names_of_both_families(here: Machine, tmp_path: Path) -> None:
    """RFC 1928 section 5, case 64: resolved once by the proxy, judged by name and by address, the floor first."""
    rules = ["deny tcp:*(*)->evil.example(*)", "tcp:*(*)->*(*)"]
    proxy = Proxy(tmp_path, CONFIG, prefix=here.inside()).seed({USER: PASSWORD}, {f"user:{USER}": rules})
    with proxy:
        said: dict[str, set[str]] = {}
        for name in ("four", "six", "both", "evil", "inside", "mapped"):
            for address in proxy.addresses:
                url = f"http://{name}.example:{PORT}/"
                done = run(here.inside("curl", "-sS", "-x", proxy_url(address), url))
                said.setdefault(name, set()).add(done.stdout or done.stderr.strip()[-3:])
        targets = {row["asked"].partition(".")[0]: row["target"] for row in proxy.records(reply=0)}
    served, refused = {"a page\n"}, {"(2)"}
    assert said == {
        "four": served,
        "six": served,
        "both": served,
        "evil": refused,
        "inside": refused,
        "mapped": refused,
    }
    assert targets["four"] == authority((FOUR, PORT))
    assert targets["six"] == authority((SIX, PORT))
    assert targets["both"] in {authority((FOUR, PORT)), authority((SIX, PORT))}
