"""The commands put together, and how each way to end becomes an exit code: 0 done, 1 failed, 2 wrong usage."""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownOptionError,
    UnusedCliTokensError,
)

from trioproxy import __version__
from trioproxy.cli.output import Failure, complain
from trioproxy.config import ConfigError
from trioproxy.store import EntryError, StoreError

__all__ = ["main", "make_app", "run"]

_DONE: Final = 0
_FAILED: Final = 1
_USAGE: Final = 2
_INTERRUPTED: Final = 130  # as shells have it: 128 and SIGINT

# Modules are imported when their command runs, `user list` needs no Trio; so what they are for stands here.
_COMMANDS: Final = {
    "serve": ("trioproxy.cli.start:app", "Run the proxy."),
    "check": ("trioproxy.cli.check:app", "Read the configuration and the store, and say everything that is wrong."),
    "user": ("trioproxy.cli.user:app", "Local users: who may log in, until when, from where, and in which groups."),
    "rule": ("trioproxy.cli.rule:app", "Rules: what may be reached, and why something cannot be."),
    "limit": ("trioproxy.cli.limit:app", "Limits: how fast, how much and how many, for each user or for all together."),
    "policy": ("trioproxy.cli.policy:app", "All rules and limits as one text file."),
    "block": ("trioproxy.cli.block:app", "Blocks: cut off a user, a source, a target or everything, at once."),
    "session": ("trioproxy.cli.session:app", "Running sessions: list them, and end them."),
    "usage": ("trioproxy.cli.usage:app", "Who has moved how much: by user, group, target, application or day."),
    "auth": ("trioproxy.cli.auth:app", "Where logins are checked: try one, step by step."),
}


# Where there are too many words.
_ADVICE: Final = {
    "rule add": "put the rule in quotes",
    "limit remove": "`trioproxy limit set SCOPE KEY=none` takes one of several limits away",
}


def make_app() -> App:
    """The whole command line."""
    app = App(
        name="trioproxy",
        help="A SOCKS5 server for a campus or a company: TCP and UDP, rules for each user, several tenants.",
        help_epilogue="Example: `trioproxy serve` starts a proxy on 127.0.0.1:1080 with a user of its own.",
        version=__version__,
        default_parameter=Parameter(negative=(), show_default=False),
        result_action="return_value",
    )
    for name, (place, purpose) in _COMMANDS.items():
        app.command(place, name=name, help=purpose)
    return app


def main() -> None:
    """The console script `trioproxy`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # `... | head` has seen enough. Whatever is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        command, bound, _ = make_app().parse_args(list(arguments), exit_on_error=False, print_error=False)
        result = command(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        complain([f"trioproxy: {_usage_message(error)}"])
        return _USAGE
    except Failure as failure:
        complain([f"trioproxy: {failure.lines[0]}", *failure.lines[1:]])
        return failure.code
    except ConfigError as error:
        complain(f"trioproxy: {error.where}: {line}" for line in error.errors)
        return _FAILED
    except (StoreError, EntryError) as error:
        complain([f"trioproxy: {error}"])
        return _FAILED
    if isinstance(result, int):
        return result
    return _DONE if _asks_for_help(arguments) or command.__name__ != "help_print" else _USAGE


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return any(argument in ("--help", "-h") for argument in arguments)


def _usage_message(error: CycloptsError) -> str:
    match error:
        case UnknownOptionError() if "pass" in (error.token.keyword or error.token.value):
            return "passwords are never given on the command line, where others can read them; use --password-stdin"
        case UnusedCliTokensError():
            # Not repeated: what does not belong there may be a password.
            return f"there are more arguments than this command takes{_advice(error)}"
        case UnknownOptionError() if (error.token.keyword or error.token.value).startswith("->"):
            return f"-> is no option{_advice(error)}"
        case MissingArgumentError():
            return _missing(error)
        case _:
            return str(error)


def _advice(error: CycloptsError) -> str:
    """What is most often the matter."""
    advice = _ADVICE.get(" ".join(error.command_chain or ()))
    return f"; {advice}" if advice else ""


def _missing(error: MissingArgumentError) -> str:
    if error.app is None or error.argument is None:
        return str(error)
    name = error.argument.name
    arguments = error.app.assemble_argument_collection(parse_docstring=True)
    help_text = next((found.parameter.help for found in arguments if found.name == name), None)
    meaning = f": {' '.join(help_text.split()).rstrip('.')}" if help_text else ""
    if error.keyword is not None:
        return f"{error.keyword} needs a value{meaning}"
    mistyped = [word for word in error.unused_tokens or () if word.startswith("--") and name.startswith("--")]
    close = get_close_matches(name, mistyped, n=1)
    return f"{name} is missing{meaning}{f' (is {close[0]} a typing mistake?)' if close else ''}"
