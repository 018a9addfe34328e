"""`trioproxy check`: would the server start with this configuration, and as what?"""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from cyclopts import App

from trioproxy.accounting.usage import QUARTER_S
from trioproxy.cli.output import count, say, warn
from trioproxy.cli.periods import show_moment_in, show_zone
from trioproxy.cli.place import HERE, RECORDS_FILE, Place
from trioproxy.config import Config, Listener, build_zones
from trioproxy.store import Store, UsageStore, login_problems, read_rule_set, usage_path

__all__ = ["app"]

app = App(name="check", help_epilogue="Example: `trioproxy check --config /etc/trioproxy.toml`")


@app.default
def check(*, place: Place = HERE) -> None:
    """Read the configuration and the store, say everything that is wrong, and start nothing.

    Args:
        place: which installation.
    """
    config = place.load()
    path = place.store_path(config)
    say(f"{place.config} is fine" if place.config else "no configuration file, so the defaults hold")
    say(*(f"  listens on {_describe(listener)}" for listener in config.listener))
    for name, tenant in sorted(config.tenants().items()):
        realms = f", realms {', '.join(tenant.realms)}" if tenant.realms else ""
        say(f"  tenant {name}: backends {', '.join(tenant.backends)}, group {tenant.proxy_group}{realms}")
    if config.policy.open_floor:
        say(f"  rules may open {', '.join(map(str, config.policy.open_floor))} of the floor")
    zones = build_zones(config)
    others = "".join(f"; tenant {name} {show_zone(zone)}" for name, zone in sorted(zones.tenants.items()))
    say(f"  time zone {show_zone(zones.default)}{others}", f"  records {_records(config, place)}")
    if not path.exists():
        say(f"  store {path}: not there yet, the first start makes it")
        return
    with place.open_store(config) as store:
        say(f"  store {path}: {_contents(store)}")
        for problem in _store_problems(store, config):
            warn(problem)
    say(f"  usage {usage_path(path)}: {_usage(usage_path(path), zones.default)}; {_retention(config)}")


def _describe(listener: Listener) -> str:
    login = "login or none" if listener.anonymous else "login needed"
    realms = ", or that of the realm" if listener.realms else ""
    return f"{listener.address}: tenant {listener.tenant}{realms}; {login}"


def _records(config: Config, place: Place) -> str:
    match config.log.records:
        case "none":
            return "are not kept"
        case "stdout":
            return "on standard output"
        case path:
            return str(Path(path or place.folder() / RECORDS_FILE).absolute())


def _contents(store: Store) -> str:
    rules = store.rules.all()
    users, total = len(store.users.all()), sum(map(len, rules.values()))
    more = [(len(store.limits.all()), "limit"), (len(store.blocks.all()), "block")]
    return ", ".join(
        [
            count(users, "local user"),
            f"{count(total, 'rule')} in {count(len(rules), 'layer')}",
            *(count(number, thing) for number, thing in more if number),
        ]
    )


def _usage(path: Path, zone: tzinfo) -> str:
    if not path.exists():
        return "not there yet, the first flow makes it"
    with UsageStore.open(path, create=False) as usage:
        oldest = usage.oldest_quarter()
    if oldest is None:
        return "empty"
    return f"since {show_moment_in(zone, datetime.fromtimestamp(oldest * QUARTER_S, UTC))}"


def _retention(config: Config) -> str:
    days = config.usage.retention_days
    return f"kept for {count(days, 'day')}" if days else "nothing is kept"


def _store_problems(store: Store, config: Config) -> Iterator[str]:
    snapshot = store.snapshot()
    yield from login_problems(snapshot.users.values())
    for scope, rules in snapshot.rules.items():
        _, problem = read_rule_set(scope, rules)
        if problem:
            yield problem
    scopes = [*snapshot.rules, *(party.scope for party in snapshot.limits)]
    tenants = {
        *(tenant for tenant, _ in snapshot.users),
        *(scope.tenant for scope in scopes if scope.tenant),
        *(block.tenant for block in snapshot.blocks if block.tenant is not None),
    }
    for tenant in sorted(tenants - config.tenants().keys()):
        yield f"the store has users, rules, limits or blocks of tenant {tenant}, which the configuration does not name"
