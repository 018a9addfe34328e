"""`trioproxy block`: the switch for emergencies."""

import os
import pwd
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeAlias

from cyclopts import App, Parameter

from trioproxy.cli.accounts import show_end
from trioproxy.cli.moments import parse_duration, show_moment
from trioproxy.cli.output import Failure, say, show_json, show_table, usage, warn
from trioproxy.cli.place import HERE, Place, check_tenant, note_nobody
from trioproxy.config import Config
from trioproxy.policy.blocks import Block, BlockKind, BlockSubject

__all__ = ["app", "describe_block"]

app = App(
    name="block",
    help="Blocks: cut off a user, a source, a target or everything, at once. They come before every rule.",
    help_epilogue="Example: `trioproxy block add user alice --for 2h --reason 'stolen laptop'`",
)

_WITH_PORTS: Final = re.compile(r"(?:\[.*\]|[^:]*):[0-9,*-]*")

KindWord: TypeAlias = Literal["user", "source", "target", "everything"]


@app.command(help_epilogue="Example: `trioproxy block add target '*.example.org:443' --for 2h --reason malware`")
def add(  # noqa: PLR0913 - the options of a command
    kind: KindWord,
    what: str | None = None,
    /,
    *,
    reason: str,
    duration: Annotated[str | None, Parameter(name="--for", allow_leading_hyphen=True)] = None,
    tenant: str | None = None,
    place: Place = HERE,
) -> None:
    """Cut something off: what is new is refused, what is running is reset within a second.

    Args:
        kind: user, source, target or everything.
        what: a name (alice, physics/bob); a network of clients; a HOST or network with or without :PORTS, an IPv6
            address with ports in brackets; nothing for everything.
        reason: why, for those who find it in the list and in the records.
        duration: how long: 90s, 30m, 2h, 7d, 4w; left out: until it is removed.
        tenant: only for the users and clients of this tenant; left out: for those of all.
        place: which installation.
    """
    config = place.load()
    if tenant is not None:
        check_tenant(tenant, config)
    subject = _parse_subject(BlockKind(kind), what, config)
    ends_at = datetime.now(UTC) + parse_duration(duration) if duration is not None else None
    with place.open_store(config, create=True) as store:
        try:
            block = store.blocks.add(subject, tenant=tenant, reason=reason, set_by=_login_name(), ends_at=ends_at)
        except ValueError as error:
            raise Failure(str(error)) from error
        say(f"{block} ({show_end(block)})")
        now = datetime.now(UTC)
        for other in store.blocks.all():
            alike = (other.subject, other.tenant) == (block.subject, block.tenant) and other.id != block.id
            if alike and (other.ends_at is None or now < other.ends_at):
                warn(f"it is blocked already, by {other} ({show_end(other)}); each has to end, or to be removed")
        if subject.user is not None:
            note_nobody([subject.user], config, store)


@app.command(name="list", help_epilogue="Example: `trioproxy block list --json`")
def list_blocks(
    *,
    tenant: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    place: Place = HERE,
) -> None:
    """List what is cut off now, by whom, until when (in the time zone of this machine) and why.

    Args:
        tenant: only what holds for this tenant.
        as_json: print JSON.
        place: which installation.
    """
    config = place.load()
    if tenant is not None:
        check_tenant(tenant, config)
    now = datetime.now(UTC)
    with place.open_store(config) as store:
        in_force = [block for block in store.blocks.all() if block.ends_at is None or now < block.ends_at]
    blocks = [block for block in in_force if tenant is None or block.tenant in (None, tenant)]
    if as_json:
        show_json([describe_block(block) for block in blocks])
    elif blocks:
        show_table(["ID", "WHAT", "TENANT", "UNTIL", "SET BY", "AT", "REASON"], list(map(_row, blocks)))
    else:
        say("nothing is blocked")


@app.command(help_epilogue="Example: `trioproxy block remove 3 4`")
def remove(number: int, /, *more: int, place: Place = HERE) -> None:
    """Remove blocks by the ids that `block list` shows: all of those given, or none.

    Args:
        number: the id of a block.
        more: further ids.
        place: which installation.
    """
    config = place.load()
    with place.open_store(config) as store:
        for block in store.blocks.remove([number, *more]):
            say(f"removed: {block}")


def describe_block(block: Block) -> dict[str, object]:
    """All about a block, for JSON."""
    return {
        "id": block.id,
        "kind": block.subject.kind.value,
        "subject": block.subject.text or None,
        "tenant": block.tenant,
        "reason": block.reason,
        "set_by": block.set_by,
        "set_at": block.set_at.isoformat(),
        "ends_at": block.ends_at.isoformat() if block.ends_at else None,
    }


def _parse_subject(kind: BlockKind, what: str | None, config: Config) -> BlockSubject:
    if (what is None) != (kind is BlockKind.EVERYTHING):
        raise usage("say what to block: user NAME, source NETWORK, target HOST:PORTS, or everything and no more")
    if kind is BlockKind.SOURCE and _WITH_PORTS.fullmatch(what or ""):
        raise Failure(f"source {what!r} cannot be blocked: a source has no ports; leave out what follows the colon")
    try:
        subject = BlockSubject.parse(kind, what or "")
    except ValueError as error:
        raise Failure(f"{kind.value} {what!r} cannot be blocked: {error}") from error
    if subject.user is not None:
        check_tenant(subject.user.tenant, config)
    return subject


def _login_name() -> str:
    """Who does it: the person, where that person has become root by sudo."""
    try:
        return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user without a name, as in some containers
        return str(os.getuid())


def _row(block: Block) -> list[str]:
    return [
        str(block.id),
        str(block.subject),
        block.tenant or "all",
        show_moment(block.ends_at) or "no end",
        block.set_by,
        show_moment(block.set_at),
        block.reason,
    ]
