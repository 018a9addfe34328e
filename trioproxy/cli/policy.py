"""`trioproxy policy`: all rules and limits as one text file, out and in."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import App, Parameter, Token

from trioproxy.cli.output import Failure, Tone, count, say, warn
from trioproxy.cli.place import HERE, Place, check_tenant, note_nobody
from trioproxy.config import Config
from trioproxy.policy.rules import Rule
from trioproxy.store import (
    PolicyContent,
    PolicyTextError,
    Store,
    StoredRule,
    difference,
    parse_policy_untrusted,
    render_policy,
)

__all__ = ["app"]

app = App(
    name="policy",
    help="All rules and limits as one text file.",
    help_epilogue="Example: `trioproxy policy export rules.txt`",
)

_TONES: Final[dict[str, Tone]] = {"-": "bad", "+": "good"}

_STANDARD: Final = Path("-")
_NAMED_MAX: Final = 10  # layers in one note: more are in the difference below it
_BYTES_MAX: Final = (16 << 20) + 1  # one more than the reader takes


def _file_or_standard(_: object, tokens: Sequence[Token]) -> Path:
    text = tokens[0].value
    if text.startswith("-") and text != "-":
        raise ValueError(f"there is no option {text}")
    return Path(text)


# A hyphen is let through for `-` alone.
File: TypeAlias = Annotated[Path, Parameter(allow_leading_hyphen=True, converter=_file_or_standard)]


@app.command(help_epilogue="Example: `trioproxy policy export rules.txt`")
def export(file: File = _STANDARD, /, *, tenant: str | None = None, place: Place = HERE) -> None:
    """Write all rules and limits to a file.

    Args:
        file: replaced if it is there; left out or -: standard output.
        tenant: only those of this tenant, without the global ones; `policy import` needs the same --tenant for them.
        place: which installation.
    """
    config = place.load()
    if tenant is not None:
        check_tenant(tenant, config)
    with place.open_store(config) as store:
        content = _stored(store, tenant)
    text = render_policy(content, tenant)
    if file == _STANDARD:
        say(*text.removesuffix("\n").split("\n"))
        return
    _write(file, text)
    say(f"{_amount(content)} written to {file}")


@app.command(name="import", help_epilogue="Example: `trioproxy policy import rules.txt --dry-run`")
def import_rules(file: File, /, *, dry_run: bool = False, tenant: str | None = None, place: Place = HERE) -> None:
    """Replace all rules and limits by those of a file, in one step. If anything is wrong with it, nothing changes.

    Layers that the file does not have are emptied, those of other tenants and the global one too, unless --tenant is
    given.

    Args:
        file: as `trioproxy policy export` writes it; - is standard input.
        dry_run: show what would change, and change nothing.
        tenant: replace only those of this tenant; the file may hold no others.
        place: which installation.
    """
    config = place.load()
    if tenant is not None:
        check_tenant(tenant, config)
    wanted = _read(file, config, tenant)
    with place.open_store(config, create=not dry_run) as store:
        with store.together():
            before = _stored(store, tenant)
            if not dry_run:
                store.rules.replace(wanted.rules, tenant)
                store.limits.replace(wanted.limits, tenant)
        note_nobody(wanted.scopes, config, store)
    _note_forgotten(before, wanted)
    lines = list(difference(before, wanted))
    for line in lines:
        say(line, tone=_TONES.get(line[0]))
    if not lines:
        say(f"nothing to change: {_amount(before)}")
    elif dry_run:
        say(f"dry run, nothing was changed; the file holds {_amount(wanted)}")
    else:
        say(f"{_amount(wanted)} in force")


def _stored(store: Store, tenant: str | None) -> PolicyContent[StoredRule]:
    return PolicyContent(store.rules.all(tenant), store.limits.all(tenant))


def _note_forgotten(before: PolicyContent[StoredRule], wanted: PolicyContent[Rule]) -> None:
    """A file of one tenant, imported without --tenant, empties everything else: that may not be what was meant."""
    spoken_of = {scope.tenant for scope in wanted.scopes}
    emptied = [str(scope) for scope in before.scopes if scope.tenant not in spoken_of]
    if not emptied:
        return
    shown = ", ".join(emptied[:_NAMED_MAX]) + (", ..." if len(emptied) > _NAMED_MAX else "")
    missing = sorted({scope.tenant for scope in before.scopes} - spoken_of)
    whom = " or ".join(f"tenant {tenant}" if tenant else "the global layer" for tenant in missing)
    remedy = "; --tenant replaces those of one tenant alone" if len(spoken_of) == 1 and "" not in spoken_of else ""
    warn(f"nothing in the file is about {whom}, so this empties {shown}{remedy}")


def _read(file: Path, config: Config, tenant: str | None) -> PolicyContent[Rule]:
    try:
        content = sys.stdin.buffer.read(_BYTES_MAX) if file == _STANDARD else _read_file(file)
        wanted = parse_policy_untrusted(content, config.tenants())
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}") from error
    except PolicyTextError as error:
        raise Failure("nothing was changed, the file is wrong:", *_describe(file, error)) from error
    foreign = [str(scope) for scope in wanted.scopes if tenant is not None and scope.tenant != tenant]
    if foreign:
        raise Failure(f"{file}: nothing was changed, these layers are not of tenant {tenant}: {', '.join(foreign)}")
    return wanted


def _read_file(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_BYTES_MAX)


def _describe(file: Path, error: PolicyTextError) -> Iterable[str]:
    for problem in error.problems:
        yield f"{file}:{problem.line}:{problem.column}: {problem.message}"
        if problem.text:
            yield f"    {problem.text}"
            yield f"    {' ' * (problem.column - 1)}^"


def _write(file: Path, text: str) -> None:
    target = file.resolve()
    try:
        if target.exists() and not target.is_file():  # a pipe or /dev/stderr is written to, never replaced
            target.write_text(text, encoding="utf-8")
            return
        # In one step: a full disk loses no earlier export, and nobody reads half of one.
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"{file}: cannot be written: {error.strerror}") from error


def _amount(content: PolicyContent[Rule] | PolicyContent[StoredRule]) -> str:
    limits = f" and {count(len(content.limits), 'limit')}" if content.limits else ""
    rules = sum(map(len, content.rules.values()))
    return f"{count(rules, 'rule')}{limits} in {count(len(content.scopes), 'layer')}"
