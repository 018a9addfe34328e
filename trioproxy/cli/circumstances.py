"""What a hypothetical flow would be found to be, and when, for `rule explain`."""

import re
from datetime import UTC, datetime, tzinfo
from typing import Final, Literal, TypeAlias

import attrs
from cyclopts import Parameter

from trioproxy.cli.output import usage
from trioproxy.policy import CanonicalError, RuleProtocol, canonical_host
from trioproxy.policy.rules import DATAGRAM_APPS
from trioproxy.sniff import App, Finding

__all__ = ["UNKNOWN", "AppWord", "Circumstances"]

_CLOCK: Final = re.compile(r"[0-9]{1,2}:[0-9]{2}", re.ASCII)

AppWord: TypeAlias = Literal[
    "tls", "http", "ssh", "smtp", "ftp", "imap", "pop3", "rdp", "bittorrent", "dns", "stun", "quic", "unknown"
]


@Parameter(name="*")
@attrs.frozen
class Circumstances:
    """What else decides.

    Attributes:
        app: what the traffic is; left out, nobody has looked yet.
        sni: TLS to this name.
        http_host: HTTP to this host.
        at: when, by the clock of the tenant: 2026-11-23T07:30; left out: now.
    """

    app: AppWord | None = None
    sni: str | None = None
    http_host: str | None = None
    at: str | None = None

    def finding(self, protocol: RuleProtocol) -> Finding | None:
        """What the first bytes would say.

        Raises:
            Failure: it makes no sense together.
        """
        if self.sni is not None and self.http_host is not None:
            raise usage("--sni is for TLS and --http-host for HTTP: give one of them")
        for option, name, word in (("--sni", self.sni, "tls"), ("--http-host", self.http_host, "http")):
            if name is not None and self.app not in (None, word):
                raise usage(f"{option} goes with --app {word}, or with none")
        if self.sni is not None:
            finding = Finding(App.TLS, sni=_name("--sni", self.sni))
        elif self.http_host is not None:
            finding = Finding(App.HTTP, http_host=_name("--http-host", self.http_host))
        elif self.app is not None:
            finding = Finding(App(self.app))
        else:
            return None
        if protocol is RuleProtocol.BIND:
            raise usage("nobody looks into what BIND carries")
        carrier = RuleProtocol.UDP if finding.app in DATAGRAM_APPS else RuleProtocol.TCP
        if finding.app is not App.UNKNOWN and protocol is not carrier:
            raise usage(f"{finding.app.value} is looked for in {carrier.value}, not in {protocol.value}")
        return finding

    def moment(self, zone: tzinfo) -> datetime:
        """When.

        Raises:
            Failure: this is no time.
        """
        if self.at is None:
            return datetime.now(UTC)
        if _CLOCK.fullmatch(self.at):
            raise usage(f"--at: {self.at} needs a date, too: {datetime.now(zone):%Y-%m-%d}T{self.at:0>5}")
        try:
            moment = datetime.fromisoformat(self.at)
            return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise usage(f"--at: {self.at!r} is no time; write 2026-11-23T07:30") from error


def _name(option: str, text: str) -> str:
    try:
        return str(canonical_host(text.encode()))
    except CanonicalError as error:
        raise usage(f"{option}: {text!r} is no name: {error}") from error


UNKNOWN: Final = Circumstances()
