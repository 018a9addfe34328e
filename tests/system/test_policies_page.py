"""The page `docs/policies.md`, done as it says: each section on a machine of its own, with the programs that it names.

Addresses and names are those of the page, and each command shows what stands below it, but for what is different each
time: ports of clients, how long something has run, and how fast.
"""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import attrs
import pytest

from auth.local import LocalUser
from auth.passwords import DEFAULT_PASSWORDS
from tests.directories.authority import Authority
from tests.pages import Example, examples, page
from tests.store.usage_samples import flow
from tests.system import internet
from tests.system.clock import at
from tests.system.namespaces import Machine, machine
from tests.system.proxy import Proxy, command, environment, run
from tests.system.waiting import PATIENCE_S, until
from trioproxy.accounting import QuotaKey
from trioproxy.store import Store, UsageStore, usage_path

PAGE: Final = page("policies.md")
[CONFIG] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[SOCKS_CONF] = re.findall(r"^```text\n(# /etc/socks.conf\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SECTIONS: Final = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))

PROXY: Final = "10.0.0.1"
NAMES: Final = {
    "127.0.0.1": "localhost",
    PROXY: "proxy.example.org",
    internet.WEB: "www.example.org",
    internet.FILES: "files.example.org",
    internet.TUNNEL: "tunnel.example.net",
}
GROUPS: Final = {"alice": frozenset[str](), "bob": frozenset({"students"}), "carol": frozenset({"lab"})}
PASSWORD: Final = "PASSWORD"
SETTLED_S: Final = 5.0  # meters are read, and usage is written, once a second

FRIDAY: Final = "2026-11-20 17:55:00"  # without another remark
CHANGES: Final = re.compile(r"trioproxy (rule|limit|block) (add|set|remove)\b")

# What a page cannot foresee; of what curl says the numbers count, as each version has its own words.
VARIES: Final = (
    (r"^curl: \((\d+)\) .*?(\(\d+\))?$", r"curl: \1 \2"),
    (r"(?<=10\.\d\.\d\.\d):\d{4,5}\b", ":PORT"),
    (r"\b\d:\d\d\b(?! CET)", "AGE"),
    (r"\b\d+(\.\d+)? [kM]?B\b", "SIZE"),
    (r"\b\d+(\.\d+)? [kM]?bit/s", "RATE"),
    (r"\b\d{7,8} bytes a second", "SPEED"),
    (r" +", " "),
)


def as_anytime(lines: list[str]) -> list[str]:
    """The lines without what a page cannot foresee."""
    text = "\n".join(lines)
    for varies, word in VARIES:
        text = re.sub(varies, word, text, flags=re.MULTILINE)
    return text.split("\n")


@attrs.define
class Site:
    """What the page speaks of: a proxy, an administrator, and people at machines.

    Attributes:
        folder: for its files.
        here: the machine that has all the addresses.
        clock: when the proxy was started, by its clock.
        going_on: what people have begun, and what shows something only later.
    """

    folder: Path
    here: Machine
    clock: str = ""
    going_on: "list[tuple[Example, subprocess.Popen[str]]]" = attrs.field(factory=list)
    proxy: Proxy = attrs.field(init=False)

    def start(self, clock: str) -> None:
        """Start the proxy at this time."""
        self.clock = clock
        self.proxy = Proxy(self.folder, CONFIG, prefix=self.here.inside(), env=at(clock)).start()

    def play(self, example: Example) -> list[str]:
        """Type it; what it shows. Of what goes on that is nothing yet."""
        what, _, clock = example.remark.partition(" ")
        if what == "on" and clock != self.clock:
            self.stop()
            self.start(clock)
        if not example.who:
            return self._administer(example)
        if example.remark == "goes on":
            self.going_on.append((example, self._begin(example)))
            return example.answer
        return self._begin(example).communicate(timeout=PATIENCE_S)[0].splitlines()

    def stop(self) -> None:
        """End it in order, so that everything is written."""
        self.proxy.signal(signal.SIGTERM)
        assert self.proxy.wait() == 0

    def _administer(self, example: Example) -> list[str]:
        program, *arguments = shlex.split(example.typed)
        assert program == "trioproxy"
        if CHANGES.match(example.typed):
            before = self._changes()
            shown = self._command(arguments)
            until("the change to hold", lambda: self._changes() > before)
            return shown
        give_up_s = time.monotonic() + SETTLED_S
        while as_anytime(shown := self._command(arguments)) != as_anytime(example.answer):
            if time.monotonic() > give_up_s:
                break
        return shown

    def _changes(self) -> int:
        return self.proxy.log.count("users and rules read again")

    def _command(self, arguments: list[str]) -> list[str]:
        installation = {"TRIOPROXY_CONFIG": self.proxy.config_file, "TRIOPROXY_DATA_DIR": self.proxy.data_dir}
        env = at(self.clock) | {key: str(path) for key, path in installation.items()} | {"SUDO_USER": "dora"}
        done = run(self.here.inside(*command(*arguments)), env=env)
        return (done.stdout + done.stderr).splitlines()

    def _begin(self, example: Example) -> "subprocess.Popen[str]":
        # So that the program's connections come from its address, as on a machine of its own.
        self.here.run("ip", "route", "replace", "local", PROXY, "dev", "lo", "table", "local", "src", example.where)
        return subprocess.Popen(
            self.here.inside("sh", "-c", example.typed),
            cwd=self.folder,
            env=environment(
                CURL_CA_BUNDLE=str(self.folder / "ca.pem"),
                SOCKS_CONF=str(self.folder / "socks.conf"),
                SOCKS_USERNAME=example.who,
                SOCKS_PASSWORD=PASSWORD,
                SOCKS_AUTOADD_LANROUTES="no",  # the addresses are all of this machine
            ),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The machine with the addresses of the page, and the internet on it; the proxy is not started."""
    certificate = Authority(tmp_path).good(*NAMES.values())
    (tmp_path / "socks.conf").write_text(SOCKS_CONF)
    hosts = "".join(f"{address} {name}\n" for address, name in NAMES.items())
    people = {example.where for example in examples(PAGE) if example.who}
    with machine(hosts, folder=tmp_path) as here, ExitStack() as stack:
        for address in sorted({*NAMES, internet.PEER, *people} - {"127.0.0.1"}):
            here.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        words = here.inside(sys.executable, internet.__file__, certificate.chain, certificate.key)
        serving = subprocess.Popen(words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.enter_context(serving)
        stack.callback(serving.kill)
        assert serving.stdout is not None
        assert serving.stdout.readline() == b"ready\n"
        yield Site(tmp_path, here)


def add_accounts(path: Path) -> None:
    """Those that the page speaks of."""
    password_hash = DEFAULT_PASSWORDS.hash(PASSWORD)
    with Store.open(path, create=True) as store:
        store.users.add(
            [LocalUser("main", name, password_hash, groups | {"system-proxy"}) for name, groups in GROUPS.items()]
        )


def use_up(path: Path) -> None:
    """What bob has used of his volume this month."""
    november = datetime(2026, 11, 1, tzinfo=ZoneInfo("Europe/Vienna"))
    with UsageStore.open(usage_path(path), create=True) as usage:
        template = "limit for each user, by the month"  # what the server writes for `limit set`
        usage.add_quota_deltas([(QuotaKey("main", "bob", "", template, november), 19_980_000_000)])
        usage.add([flow("bob", 19_900_000_000, 80_000_000, at=november + timedelta(days=9), groups=("students",))])


def played(site: Site, section: str) -> Iterator[tuple[Example, list[str]]]:
    """Type the commands of a section one after the other; each with what it shows, those that go on at the end."""
    store = site.folder / "data" / "trioproxy.db"
    add_accounts(store)
    if "volume" in section:
        use_up(store)
    site.start(FRIDAY)
    try:
        for example in examples(SECTIONS[section]):
            yield example, site.play(example)
        for example, process in site.going_on:
            yield example, process.communicate(timeout=PATIENCE_S)[0].splitlines()
    finally:
        site.proxy.kill()


@pytest.mark.parametrize("section", list(SECTIONS))
def test_a_section_does_what_it_says(site: Site, section: str) -> None:
    """Each command can be typed as it stands, and shows what stands below it."""
    for example, shown in played(site, section):
        assert as_anytime(shown) == as_anytime(example.answer), example.typed
