"""`trioproxy limit`: how fast, how much and how many."""

from typing import Annotated

from cyclopts import App, Parameter

from trioproxy.cli.output import Failure, say, show_json, show_table, usage, warn
from trioproxy.cli.place import HERE, Place, note_nobody, parse_scope, select_tenant
from trioproxy.policy.limits import Party

__all__ = ["app"]

app = App(
    name="limit",
    help="Limits: how fast, how much and how many. A SCOPE is global, tenant:NAME, group:NAME or user:NAME.",
    help_epilogue="Example: `trioproxy limit set group:students rate=10Mbit/2Mbit quota=20GB/month sessions=200`",
)


@app.command(name="set", help_epilogue="Example: `trioproxy limit set --together tenant:physics rate=1Gbit`")
def set_limit(scope: str, word: str, /, *more: str, together: bool = False, place: Place = HERE) -> None:
    """Set limits for each user of a scope, or for all of them together. Keys that are not given stay as they are.

    Of what each user has, the user's own counts before that of the groups (the smallest of them), that before the
    tenant's, that before the global one, key by key. What users share holds in addition.

    Args:
        scope: global, tenant:NAME, group:NAME or user:NAME.
        word: KEY=VALUE: rate=20Mbit or rate=20Mbit/2Mbit (to the client / to the target), burst=2MB, quota=5GB/day (or
            week, month), over_quota_rate=1Mbit, sessions=200, associations=20, binds=5, new_sessions=60/min,
            targets=100/min. KEY=none takes a limit away.
        more: further ones.
        together: all users of the scope share it; for rate, burst, quota and sessions.
        place: which installation.
    """
    config = place.load()
    party = Party(parse_scope(scope, config), together)
    with place.open_store(config, create=True) as store:
        try:
            limit = store.limits.change(party, lambda before: before.changed([word, *more]))
        except ValueError as error:
            raise Failure(str(error)) from error
        say(f"{_whom(party)}: {limit}" if limit.texts() else f"{_whom(party)}: no limit any more")
        for key, other in (("burst", "rate"), ("over_quota_rate", "quota")):
            if getattr(limit, key) is not None and getattr(limit, other) is None:
                warn(f"{key} does nothing by itself: it needs {other}=, here or from another scope")
        note_nobody([party.scope], config, store)


@app.command(name="list", help_epilogue="Example: `trioproxy limit list group:students --json`")
def list_limits(
    scope: str | None = None,
    /,
    *,
    tenant: str | None = None,
    all_tenants: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    place: Place = HERE,
) -> None:
    """List the limits of one scope, or those of a tenant with the global ones.

    Args:
        scope: one scope; left out: all of a tenant and the global one.
        tenant: whose limits; by default those of the tenant main.
        all_tenants: those of every tenant.
        as_json: print JSON.
        place: which installation.
    """
    config = place.load()
    if sum((scope is not None, tenant is not None, all_tenants)) > 1:
        raise usage("SCOPE, --tenant and --all-tenants exclude each other")
    wanted = parse_scope(scope, config) if scope is not None else None
    shown = None if all_tenants else {"", select_tenant(tenant, config)}
    with place.open_store(config) as store:
        limits = {
            party: limit
            for party, limit in store.limits.all().items()
            if (party.scope == wanted if wanted is not None else shown is None or party.scope.tenant in shown)
        }
        if wanted is not None and not limits:
            note_nobody([wanted], config, store)
    if as_json:
        show_json(
            [
                {"scope": str(party.scope), "together": party.together, "limit": limit.texts()}
                for party, limit in limits.items()
            ]
        )
    elif limits:
        rows = [
            [str(party.scope), "together" if party.together else "each", str(limit)] for party, limit in limits.items()
        ]
        show_table(["SCOPE", "FOR", "LIMIT"], rows)
    elif wanted is not None:
        say(f"no limits of {wanted} but those of the configuration")
    else:
        whose = "of any scope" if all_tenants else f"for everybody or in tenant {select_tenant(tenant, config)}"
        say(f"no limits {whose} but those of the configuration")


@app.command(help_epilogue="Example: `trioproxy limit remove tenant:physics --together`")
def remove(scope: str, /, *, together: bool = False, place: Place = HERE) -> None:
    """Remove the limits of a scope: those of each user, or those that all of them share.

    Args:
        scope: global, tenant:NAME, group:NAME or user:NAME.
        together: those that users share.
        place: which installation.
    """
    config = place.load()
    party = Party(parse_scope(scope, config), together)
    with place.open_store(config) as store:
        text = store.limits.remove(party)
    say(f"removed, {_whom(party)}: {text}")


def _whom(party: Party) -> str:
    return f"{party.scope}, {'all together' if party.together else 'each user'}"
