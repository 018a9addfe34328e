"""Second opinions about options: how their values are read, when hours are open, and which finding fits."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv6Address, ip_address
from typing import Any

from trioproxy.policy import Rule, RuleProtocol
from trioproxy.policy.hours import Hours, Span
from trioproxy.policy.rules import Domain
from trioproxy.policy.units import Period, Quota, Rates
from trioproxy.sniff import App, Finding

KEYS = ("rate", "burst", "quota", "when", "grace", "app", "sni", "http-host", "scan")
BITS = {"bit": 1, "kbit": 1000, "Mbit": 1000**2, "Gbit": 1000**3}
BYTES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
BYTES |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
SECONDS = {"s": 1, "m": 60, "h": 3600}
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
STREAMS = {"tls", "http", "ssh", "smtp", "ftp", "imap", "pop3", "rdp", "bittorrent", "unknown"}
DATAGRAMS = {"dns", "stun", "quic", "unknown"}


def read(texts: Mapping[str, str], protocol: str, *, allow: bool) -> dict[str, Any]:
    """The fields of a rule that these options set.

    Raises:
        ValueError: they are not what a rule may have.
    """
    _require(allow or not texts.keys() & {"rate", "burst", "quota", "grace", "scan"})
    _require("rate" in texts or "burst" not in texts)
    _require("when" in texts or "grace" not in texts)
    _require("sni" not in texts or "http-host" not in texts)
    _require(texts.keys().isdisjoint({"sni", "http-host"}) or protocol in ("tcp", "any"))
    _require("sni" not in texts or texts.get("app", "tls") == "tls")
    _require("http-host" not in texts or texts.get("app", "http") == "http")
    _require(texts.get("scan", "ignore") == "ignore")
    fields: dict[str, Any] = {}
    if "rate" in texts:
        down, slash, up = texts["rate"].partition("/")
        fields["rate"] = Rates(_rate(down), _rate(up if slash else down))
    if "burst" in texts:
        fields["burst"] = _size(texts["burst"])
    if "quota" in texts:
        size, _, period = texts["quota"].partition("/")
        fields["quota"] = Quota(_size(size), Period(period))
    if "when" in texts:
        spans = texts["when"].split(",")
        _require(len(spans) <= 21)  # three a day
        fields["hours"] = Hours(tuple(map(_span, spans)))
    if "grace" in texts:
        fields["grace_s"] = _number(texts["grace"], SECONDS, "[0-9]{1,6}", 1, 86_400)
    if "app" in texts:
        words = texts["app"].split(",")
        _require(len(set(words)) == len(words))
        allowed = {"tcp": STREAMS, "udp": DATAGRAMS, "bind": set[str](), "any": STREAMS | DATAGRAMS}[protocol]
        _require(allowed >= set(words))
        fields["apps"] = tuple(map(App, words))
    for key, field in (("sni", "sni"), ("http-host", "http_host")):
        if key in texts:
            names = tuple(_name(item, addresses=key == "http-host") for item in texts[key].split(","))
            _require(len(",".join(map(str, names))) <= 2000)
            fields[field] = names
    if "scan" in texts:
        fields["scan_ignored"] = True
    return fields


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _number(text: str, units: Mapping[str, int], pattern: str, low: int, high: int) -> int:
    for unit, factor in units.items():
        if re.fullmatch(f"{pattern}{unit}", text):
            number = int(Decimal(text.removesuffix(unit)) * factor)
            _require(low <= number <= high)
            return number
    raise ValueError(text)


def _rate(text: str) -> int:
    return _number(text, BITS, r"[0-9]{1,19}(\.[0-9]{1,6})?", 8_000, 1000 * 1000**3 + 7) // 8


def _size(text: str) -> int:
    return _number(text, BYTES, r"[0-9]{1,19}(\.[0-9]{1,6})?", 1, 2**60)


def _span(text: str) -> Span:
    days, at, times = text.rpartition("@")
    first, dash, last = days.partition("-")
    begin, minus, end = times.partition("-")
    _require(bool(minus) and bool(days) == bool(at))
    one, other = _minute(begin), _minute(end)
    _require(one < 1440 and one != other)
    place = (DAYS.index(first), DAYS.index(last if dash else first)) if at else (0, 6)
    if (place[1] - place[0]) % 7 == 6:
        place = (0, 6)
    return Span(*place, one, other or 1440)


def _minute(text: str) -> int:
    _require(re.fullmatch("[0-9]{2}:[0-9]{2}", text) is not None)
    hour, minute = map(int, text.split(":"))
    _require(minute < 60 and hour * 60 + minute <= 1440)
    return hour * 60 + minute


def _name(text: str, *, addresses: bool) -> Domain:
    below = text.startswith("*.")
    name = text.removeprefix("*.").lower().removesuffix(".")
    if ":" in name or re.fullmatch("[0-9]+|0x[0-9a-f]*", name.rpartition(".")[2]):
        _require(addresses and not below and "%" not in name)
        address = ip_address(name)
        return Domain(str((isinstance(address, IPv6Address) and address.ipv4_mapped) or address))
    labels = name.split(".")
    _require(len(name) <= 253 and all(re.fullmatch("[a-z0-9_-]{1,63}", label) for label in labels))
    return Domain(name, below)


def is_open(hours: Hours, now: datetime) -> bool:
    """Is one of the spans open at this time of the clock on the wall? Said with dates, as people would."""
    local = now.replace(tzinfo=None, fold=0)
    today = local.replace(hour=0, minute=0, second=0, microsecond=0)
    for span in hours.spans:
        days = [(span.first_day + step) % 7 for step in range((span.last_day - span.first_day) % 7 + 1)]
        for day in (today - timedelta(days=1), today):
            begin, end = day + timedelta(minutes=span.begin), day + timedelta(minutes=span.end)
            if span.end <= span.begin:
                end += timedelta(days=1)
            if day.weekday() in days and begin <= local < end:
                return True
    return False


def carries(rule: Rule, protocol: RuleProtocol) -> bool:
    """Can what the rule asks for be found in this protocol?"""
    if rule.sni or rule.http_host:
        return protocol is RuleProtocol.TCP
    words = {RuleProtocol.TCP: STREAMS, RuleProtocol.UDP: DATAGRAMS, RuleProtocol.BIND: set[str]()}[protocol]
    return not rule.apps or any(app.value in words for app in rule.apps)


def fits(rule: Rule, finding: Finding) -> bool:
    """Is this what the rule speaks about?"""
    for app, patterns, name in ((App.TLS, rule.sni, finding.sni), (App.HTTP, rule.http_host, finding.http_host)):
        if patterns:
            return finding.app is app and any(_below(name, p.name) if p.below else name == p.name for p in patterns)
    return not rule.apps or finding.app in rule.apps


def _below(name: str | None, parent: str) -> bool:
    return name is not None and name.split(".")[-len(parent.split(".")) :] == parent.split(".") and name != parent
