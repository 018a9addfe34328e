"""`trioproxy rule explain`: why somebody can or cannot reach something."""

import re
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from cyclopts import Parameter

from trioproxy.accounting import NullUsage, QuotaKey
from trioproxy.allowances import PERIOD_MAX, Allowances
from trioproxy.cli.asker import NOBODY, Who, identify
from trioproxy.cli.circumstances import UNKNOWN, Circumstances
from trioproxy.cli.explanation import Case, Layers
from trioproxy.cli.explanation_text import show_case
from trioproxy.cli.output import Failure, show_json, usage, warn
from trioproxy.cli.place import HERE, Place
from trioproxy.config import build_floor, build_zones
from trioproxy.policy import (
    Blocks,
    CanonicalError,
    IPAddress,
    LimitBook,
    Policy,
    RuleProtocol,
    TimeZones,
    canonical_address,
    canonical_host,
    directory_layers,
    rule_problems,
)
from trioproxy.store import UsageStore, read_rule_set, usage_path

__all__ = ["explain"]

_TARGET: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", re.ASCII)
_PORT_MAX: Final = 65_535

ProtocolWord: TypeAlias = Literal["tcp", "udp", "bind"]


def explain(  # noqa: PLR0913 - the options of a command
    protocol: ProtocolWord,
    target: str,
    /,
    *,
    source: str,
    source_port: int = 0,
    address: tuple[str, ...] = (),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    circumstances: Circumstances = UNKNOWN,
    who: Who = NOBODY,
    place: Place = HERE,
) -> None:
    """Explain why a client can or cannot reach something: each layer's vote, and the rule that cast it.

    Args:
        protocol: tcp for CONNECT, udp for UDP ASSOCIATE, bind for BIND.
        target: HOST:PORT or [IPV6]:PORT; a name is looked up, unless --address says what it means.
        source: the client's address.
        source_port: the client's port, if rules ask for it.
        address: an address of the target; may be given several times.
        as_json: print JSON.
        circumstances: what the traffic is, and when.
        who: who asks.
        place: which installation.
    """
    config = place.load()
    if who.user is not None and who.tenant is not None:
        raise usage(f"--tenant goes with --anonymous; write --user {who.tenant}/{who.user.rpartition('/')[2]}")
    if (who.user is not None) == who.anonymous or (who.anonymous and who.group):
        raise usage("say who asks: --user NAME (with --group), or --anonymous (with --tenant)")
    client = _parse_address(source, "--source")
    if not 0 <= source_port <= _PORT_MAX:
        raise usage(f"--source-port: {source_port} is no port")
    host, port = _parse_target(target, RuleProtocol(protocol))
    finding = circumstances.finding(RuleProtocol(protocol))
    addresses = [_parse_address(text, "--address") for text in address] or _look_up(host)
    with place.open_store(config) as store:
        snapshot = store.snapshot()
    identity, refused = identify(who, client, config, snapshot)
    for problem in rule_problems(identity):
        warn(problem)
    zones = build_zones(config)
    rule_sets = {}
    for scope, rules in snapshot.rules.items():
        rule_sets[scope], problem = read_rule_set(scope, rules)
        if problem:
            warn(problem)
    limits, now = LimitBook(snapshot.limits), circumstances.moment(zones.of(identity.tenant))
    blocks = Blocks(snapshot.blocks).in_force(now)
    case = Case(
        identity=identity,
        client=client,
        client_port=source_port,
        protocol=RuleProtocol(protocol),
        host=host,
        port=port,
        refused=tuple(refused),
        layers=Layers(
            Policy(rule_sets, build_floor(config), zones, blocks=blocks), snapshot.rules, directory_layers(identity)
        ),
        addresses=tuple(dict.fromkeys(addresses)),
        limits=limits,
        allowances=_allowances(usage_path(place.store_path(config)), limits, zones, now),
        finding=finding,
        now=now,
    )
    if as_json:
        show_json(case.as_json())
    else:
        show_case(case)


def _allowances(path: Path, limits: LimitBook, zones: TimeZones, now: datetime) -> Allowances:
    """What was used of quotas, as far as the server has written it: some seconds ago."""
    allowances = Allowances(lambda: limits, zones.of, NullUsage(), now=lambda: now)
    used: dict[QuotaKey, int] = {}
    if path.exists():
        with UsageStore.open(path, create=False) as store:
            used = store.quotas_used(now - PERIOD_MAX)
    allowances.restore(used)
    return allowances


def _parse_address(text: str, option: str) -> IPAddress:
    try:
        return canonical_address(ip_address(text))
    except ValueError as error:
        raise usage(f"{option}: {text!r} is no IP address") from error


def _parse_target(text: str, protocol: RuleProtocol) -> tuple[str | IPAddress, int]:
    match = _TARGET.fullmatch(text)
    if match is None:
        raise usage(f"{text!r} is no target; write HOST:PORT, or [IPV6]:PORT")
    port = int(match[3])
    # RFC 1928 section 4: BIND may say 0 for a port it does not know; nobody connects to port 0.
    if not (0 if protocol is RuleProtocol.BIND else 1) <= port <= _PORT_MAX:
        raise usage(f"{port} is no port to reach by {protocol.value}")
    try:
        host = canonical_host((match[1] or match[2]).encode())
    except CanonicalError as error:
        raise Failure(f"the proxy refuses every request for {text!r}, whatever the rules say: {error}") from error
    if match[1] is not None and isinstance(host, str):
        raise usage(f"{text!r}: brackets are for IPv6 addresses")
    return host, port


def _look_up(host: str | IPAddress) -> list[IPAddress]:
    if not isinstance(host, str):
        return [host]
    from trioproxy.resolve import forget_search_domains, system_lookup  # noqa: PLC0415 - loads Trio

    forget_search_domains()  # as the server does
    try:
        return system_lookup(host)
    except OSError as error:
        raise Failure(
            f"{host} cannot be resolved on this machine, so the proxy cannot reach it either: {error.strerror}",
            "  --address ADDR tells what it would mean",
        ) from error
