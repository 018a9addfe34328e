"""The parts of the pages that are read out of the program, so that they are never older than it.

A page says `% generated: WHAT` on a line of its own, and `fill_in` puts the text there.
"""

import ast
import inspect
import io
import json
import os
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from unittest.mock import patch

import attrs
from cyclopts import App
from drawing import draw_data_path, draw_states

from trioproxy.accounting import Termination
from trioproxy.cli.app import make_app, run
from trioproxy.config import model
from trioproxy.dial import REPLIES
from trioproxy.policy.networks import FLOOR_NETWORKS
from trioproxy.protocol import ANSWERS, TRANSITIONS, Reply, Violation

__all__ = ["command_names", "fill_in", "tables"]

_HELP_COLUMNS: Final = 86  # what the theme shows of a code block without scrolling
_NUMBER: Final = re.compile(r"(?<=\d)(?=(\d{3})+$)")


def fill_in(page: str) -> str:
    """Replace every `% generated: WHAT` of a page."""
    return re.sub(r"^% generated: ([a-z-]+)$", lambda found: _GENERATORS[found[1]](), page, flags=re.MULTILINE)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# ---- the configuration


def tables() -> Mapping[str, type]:
    """The tables of the configuration file, with the class of each."""
    return {
        "[[listener]]": model.Listener,
        "[auth]": model.Auth,
        "[auth.NAME]": model.BackendTable,
        "[tenant.NAME]": model.Tenant,
        "[store]": model.StoreSettings,
        "[policy]": model.PolicySettings,
        "[limits]": model.Limits,
        "[log]": model.Log,
        "[usage]": model.UsageSettings,
        "[scans]": model.Scans,
    }


def _configuration() -> str:
    return "\n\n".join(_section(title, cls) for title, cls in tables().items())


def _section(title: str, cls: type) -> str:
    summary, meanings = _docstring(cls)
    reasons = _reasons(cls)
    parts = [f"## `{title}`", summary]
    fields = [field for field in attrs.fields(cls) if field.name not in ("tables", "settings")]
    for field in fields:
        meaning = meanings.get(field.name, "which plug-in it is; the other keys of the table are its own.")
        parts.append(f"### `{field.name}`\n\n{_sentence(meaning)}")
        facts = [f"{_describe_type(field.type)}; {_describe_default(field)}"]
        if field.name in reasons:
            facts.append(f"Why so: {_sentence(reasons[field.name])}")
        parts.append("\n".join(f"- {fact}" for fact in facts))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    text = text.strip()
    text = re.sub(r'(?<!`)("[a-z]+")', r"`\1`", text)
    first = text if re.match(r"[a-z]\w*@|\w+\.\w|glibc", text) else text[:1].upper() + text[1:]
    return first if first.endswith((".", "?", "!")) else first + "."


def _docstring(cls: type) -> tuple[str, dict[str, str]]:
    """What the class is, and what each of its attributes means (Google's style)."""
    text = inspect.getdoc(cls) or ""
    summary, _, attributes = text.partition("\nAttributes:\n")
    found: dict[str, str] = {}
    for match in re.finditer(r"^    (\w+): (.*(?:\n {6,}.*)*)", attributes, re.MULTILINE):
        found[match[1]] = " ".join(match[2].split())
    return " ".join(summary.split()), found


def _reasons(cls: type) -> dict[str, str]:
    """The comment beside each default: why it is what it is."""
    source = inspect.getsource(cls)
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class
    found: dict[str, str] = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            reason = " ".join(comments[line] for line in lines if line in comments)
            if reason and not reason.startswith("may hold"):
                found[node.target.id] = reason
    return found


_WORDS: Final = {
    "str": "text",
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "SocketAddress": "address with port",
    "PortRange": "range of ports",
    "ZoneInfo": "time zone",
    "IPv4Address": "address",
    "IPv6Address": "address",
    "IPv4Network": "network",
    "IPv6Network": "network",
}


def _describe_type(type_: Any) -> str:  # noqa: ANN401 - any annotation
    origin, arguments = get_origin(type_), get_args(type_)
    if origin is Annotated:
        limits = arguments[1]
        return f"{_describe_type(arguments[0])} from {_show_number(limits.low)} to {_show_number(limits.high)}"
    if origin is Literal:
        return " or ".join(f'`"{word}"`' for word in arguments)
    if origin is tuple:
        return f"list of {_plural(_describe_type(arguments[0]))}"
    if arguments:
        return " or ".join(dict.fromkeys(_describe_type(part) for part in arguments if part is not type(None)))
    return _WORDS[type_.__name__]


def _plural(word: str) -> str:
    return {"text": "texts", "address": "addresses", "network": "networks", "address with port": "addresses with port"}[
        word
    ]


def _show_number(value: float) -> str:
    return f"{value:,.10g}" if value >= 1 or value == 0 else f"{value:g}"


def _describe_default(field: "attrs.Attribute[object]") -> str:
    default = field.default
    unit = " (seconds)" if field.name.endswith("_s") else ""
    match default:
        case attrs.NOTHING:
            return "must be given"
        case None:
            return "may be left out"
        case tuple():
            words = ", ".join(json.dumps(str(item)) for item in default)
            return f"default `[{words}]`"
        case bool() | str():
            return f"default `{json.dumps(default)}`"
        case float() | int():
            return f"default `{default:g}`{unit}" if isinstance(default, float) else f"default `{default}`{unit}"
        case _:
            raise TypeError(f"{field.name}: no word for {default!r}")


# ---- the command line


def _help_of(words: list[str]) -> str:
    output = io.StringIO()
    plain = patch.dict(os.environ, {"COLUMNS": str(_HELP_COLUMNS), "TERM": "dumb", "NO_COLOR": "1"})
    with plain, redirect_stdout(output):
        run([*words, "--help"])
    return "\n".join(line.rstrip() for line in output.getvalue().strip().splitlines())


def command_names() -> list[list[str]]:
    """Every command with its group: `["user", "add"]`."""
    return list(_names(make_app(), []))


def _names(app: App, words: list[str]) -> Iterator[list[str]]:
    for name in app:
        if name.startswith("-"):
            continue
        yield [*words, name]
        yield from _names(app[name], [*words, name])


def _command_line() -> str:
    parts = [f"```text\n{_help_of([])}\n```"]
    for words in command_names():
        level = "#" * (len(words) + 1)
        parts.append(f"{level} trioproxy {' '.join(words)}\n\n```text\n{_help_of(words)}\n```")
    return "\n\n".join(parts)


# ---- tables of the protocol


def _transitions() -> str:
    return _table(
        ("in the state", "after this", "comes"),
        (
            (f"`{before.name}` ({before.value})", step.value, f"`{after.name}`")
            for (before, step), after in TRANSITIONS.items()
        ),
    )


def _violations() -> str:
    def spell(answer: bytes) -> str:
        return f"`{answer.hex(' ')}`" if answer else "nothing"

    return _table(
        ("mistake of the client", "counter", "answer before closing"),
        (
            (violation.name.lower().replace("_", " "), f"`violation_{violation.value}`", spell(ANSWERS[violation]))
            for violation in Violation
        ),
    )


def _replies() -> str:
    import errno  # noqa: PLC0415 - for this table alone

    causes: dict[Reply, list[str]] = {reply: [] for reply in Reply}
    for number, reply in REPLIES.items():
        causes[reply].append(f"`{errno.errorcode[number]}`")
    further = {
        Reply.SUCCEEDED: "the target is connected, BIND listens, the association is open; never earlier",
        Reply.GENERAL_SOCKS_SERVER_FAILURE: "a malformed request or name, a limit, any other error of this machine",
        Reply.CONNECTION_NOT_ALLOWED_BY_RULESET: "no rule allows it, a rule denies it, the floor, a wrong peer of BIND",
        Reply.HOST_UNREACHABLE: "the name has no address, the connection timed out, nobody came to BIND",
        Reply.COMMAND_NOT_SUPPORTED: "a command other than CONNECT, BIND and UDP ASSOCIATE",
        Reply.ADDRESS_TYPE_NOT_SUPPORTED: "an address type other than IPv4, name and IPv6",
        Reply.TTL_EXPIRED: "never sent",
    }
    return _table(
        ("REP", "means", "sent for", "errors of the system"),
        (
            (
                f"`{reply.value:02x}`",
                reply.name.lower().replace("_", " "),
                further.get(reply, ""),
                ", ".join(causes[reply]),
            )
            for reply in Reply
        ),
    )


_MEANINGS: Final = {
    Termination.CLIENT_CLOSED: "both directions ended in order, the client's first; an association: its TCP connection",
    Termination.TARGET_CLOSED: "both directions ended in order, the target's first",
    Termination.CLIENT_RESET: "the client's connection broke, or did not answer any more",
    Termination.TARGET_RESET: "the target's connection broke, or did not answer any more",
    Termination.IDLE: "nothing moved for `idle_s`, `half_closed_s` or `association_idle_s`",
    Termination.FORGOTTEN: "a UDP destination that made room for another",
    Termination.REVOKED: "users or rules were changed, and forbid it now; or the account expired",
    Termination.WRONG_ANSWER: "what the client spoke was permitted, but the target did not answer in kind (`app=tls`)",
    Termination.WRONG_APP: "no rule permits what the first bytes were (`app=`, `sni=`, `http-host=`)",
    Termination.OUT_OF_HOURS: "the hours of the rule that permitted it are over (`when=`)",
    Termination.QUOTA: "[a quota](limits.md) is used up, or what was used of it cannot be read",
    Termination.KILLED: "an administrator ended it (`trioproxy session kill`)",
    Termination.BLOCKED: "[a block](incidents.md) forbids it: from the beginning, or since it was set",
    Termination.DRAINED: "the server was stopped",
    Termination.HANDSHAKE_TIMEOUT: "the client took longer than `handshake_s`",
    Termination.CROWDED_OUT: "there were more than `unauthenticated_max`, and this client had waited longest",
    Termination.PROTOCOL_ERROR: "the client broke the protocol",
    Termination.NO_METHOD: "the client offered no method that the listener takes",
    Termination.LOGIN_REJECTED: "wrong name or password, or an account that may not log in",
    Termination.LOGIN_UNAVAILABLE: "nobody could tell whether the login is right",
    Termination.MALFORMED_DESTINATION: "the destination is no name and no address",
    Termination.REFUSED: "the rules or the floor forbid it, or no rule allows it",
    Termination.LIMIT: "one of the limits for each user, or the reserve of descriptors",
    Termination.RESOLVE_FAILED: "the name has no address, or the look-up failed",
    Termination.CONNECT_FAILED: "the target could not be connected; `reply` says why",
    Termination.BIND_TIMEOUT: "nobody connected to BIND within `bind_s`",
    Termination.BIND_WRONG_TARGET: "somebody else than the expected target connected to BIND",
    Termination.POLICY_STALE: "the store could not be read for `stale_max_s`",
    Termination.INTERNAL_ERROR: "a fault of ours; the traceback is in the log",
}


def _terminations() -> str:
    return _table(("`termination`", "means"), ((f"`{end.value}`", _MEANINGS[end]) for end in Termination))


def _floor() -> str:
    return _table(
        ("network", "what it is"),
        ((f"`{network}`", text.partition(" ")[2]) for network, text in FLOOR_NETWORKS),
    )


_GENERATORS: Final[Mapping[str, Callable[[], str]]] = {
    "configuration": _configuration,
    "command-line": _command_line,
    "data-path": draw_data_path,
    "diagram": draw_states,
    "floor": _floor,
    "replies": _replies,
    "terminations": _terminations,
    "transitions": _transitions,
    "violations": _violations,
}
