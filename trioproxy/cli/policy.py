"""`trioproxy policy`: all rules as one text file, out and in."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import App, Parameter, Token

from trioproxy.cli.output import Failure, Tone, count, say
from trioproxy.cli.place import HERE, Place, check_tenant
from trioproxy.config import Config
from trioproxy.policy.rules import Rule
from trioproxy.policy.scope import Scope
from trioproxy.store import PolicyTextError, difference, parse_policy_untrusted, render_policy

__all__ = ["app"]

app = App(
    name="policy",
    help="All rules as one text file.",
    help_epilogue="Example: `trioproxy policy export rules.txt`",
)

_TONES: Final[dict[str, Tone]] = {"-": "bad", "+": "good"}

_STANDARD: Final = Path("-")
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
    """Write all rules to a file.

    Args:
        file: replaced if it is there; left out or -: standard output.
        tenant: only the rules of this tenant, without the global ones.
        place: which installation.
    """
    config = place.load()
    if tenant is not None:
        check_tenant(tenant, config)
    with place.open_store(config) as store:
        layers = store.rules.all(tenant)
    text = render_policy(layers)
    if file == _STANDARD:
        say(*text.removesuffix("\n").split("\n"))
        return
    _write(file, text)
    say(f"{_amount(layers)} written to {file}")


@app.command(name="import", help_epilogue="Example: `trioproxy policy import rules.txt --dry-run`")
def import_rules(file: File, /, *, dry_run: bool = False, tenant: str | None = None, place: Place = HERE) -> None:
    """Replace all rules by those of a file, in one step. If anything is wrong with the file, nothing changes.

    Args:
        file: as `trioproxy policy export` writes it; - is standard input.
        dry_run: show what would change, and change nothing.
        tenant: replace only the rules of this tenant; the file may hold no others.
        place: which installation.
    """
    config = place.load()
    if tenant is not None:
        check_tenant(tenant, config)
    layers = _read(file, config, tenant)
    with place.open_store(config, create=not dry_run) as store, store.together():
        before = store.rules.all(tenant)
        if not dry_run:
            store.rules.replace(layers, tenant)
    lines = list(difference(before, layers))
    for line in lines:
        say(line, tone=_TONES.get(line[0]))
    if not lines:
        say(f"nothing to change: {_amount(before)}")
    elif dry_run:
        say(f"dry run, nothing was changed; the file holds {_amount(layers)}")
    else:
        say(f"{_amount(layers)} in force")


def _read(file: Path, config: Config, tenant: str | None) -> dict[Scope, tuple[Rule, ...]]:
    try:
        content = sys.stdin.buffer.read(_BYTES_MAX) if file == _STANDARD else _read_file(file)
        layers = parse_policy_untrusted(content, config.tenants())
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}") from error
    except PolicyTextError as error:
        raise Failure("nothing was changed, the file is wrong:", *_describe(file, error)) from error
    foreign = [str(scope) for scope in layers if tenant is not None and scope.tenant != tenant]
    if foreign:
        raise Failure(f"{file}: nothing was changed, these layers are not of tenant {tenant}: {', '.join(foreign)}")
    return layers


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


def _amount(layers: Mapping[Scope, Sequence[object]]) -> str:
    return f"{count(sum(map(len, layers.values())), 'rule')} in {count(len(layers), 'layer')}"
