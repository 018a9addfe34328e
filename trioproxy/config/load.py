"""Reading the file: every fault at once, each with its path, and never half a configuration."""

import difflib
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs
from cattrs import BaseValidationError, ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from trioproxy.config.checks import check, join
from trioproxy.config.model import Auth, Config
from trioproxy.config.values import make_converter

__all__ = ["ConfigError", "load_config", "parse_config_untrusted"]

_BYTES_MAX: Final = 1 << 20  # some 5,000 tenants; whatever is larger is not our file

_CONVERTER: Final = make_converter()


class ConfigError(Exception):
    """The configuration cannot be used.

    Attributes:
        where: the file.
        errors: all faults, each "path: message". A path counts the entries of a list from 0: `listener[1].address`.
    """

    def __init__(self, where: str, errors: Iterable[str]) -> None:
        self.where = where
        self.errors = tuple(errors)
        super().__init__("\n".join(f"{where}: {error}" for error in self.errors))


def load_config(path: Path | None) -> Config:
    """Read the file, or take the defaults if there is none.

    Raises:
        ConfigError: the file cannot be read, or is wrong; says everything that is wrong with it.
    """
    if path is None:
        return Config()
    try:
        with path.open("rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    return parse_config_untrusted(content, str(path))


def parse_config_untrusted(text: str | bytes, where: str) -> Config:
    """Build the configuration out of the file's text.

    Raises:
        ConfigError: says everything that is wrong with it. Checks across several values of one section are made once
            each value of the section is right by itself.
    """
    document = _parse_toml(text, where)
    sections = attrs.fields_dict(Config)
    good: dict[str, object] = {}
    errors = [
        f"{join('', key)}: unknown section{_did_you_mean(key, sections)}" for key in document if key not in sections
    ]
    present = [name for name in sections if name in document]
    for name in present:
        try:
            good[name] = _CONVERTER.structure(document[name], sections[name].type or object)
        except (BaseValidationError, ValueError) as error:
            errors += _faults(error, name)
    broken = frozenset(name for name in present if name not in good)
    config = Config(**good)  # type: ignore[arg-type]  # each was structured by the type of its field
    errors += check(config, broken)
    if errors:
        raise ConfigError(where, errors)
    return config


def _parse_toml(text: str | bytes, where: str) -> dict[str, object]:
    if len(text) > _BYTES_MAX:
        raise ConfigError(where, [f"larger than {_BYTES_MAX:,} bytes: is this the right file?"])
    try:
        return tomllib.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(where, [f"not UTF-8 (byte {error.start})"]) from error
    except RecursionError as error:
        raise ConfigError(where, ["lists or tables are nested too deeply"]) from error
    except ValueError as error:  # TOMLDecodeError, and what int() and datetime say about impossible values
        # Python's own advice about numbers of thousands of digits is none for an administrator.
        raise ConfigError(where, [f"not TOML: {str(error).partition('; use sys.')[0]}"]) from error


def _faults(error: Exception, path: str) -> Iterator[str]:
    match error:
        case ClassValidationError():
            named, others = error.group_exceptions()
            for cause, note in named:
                # The backends' tables stand directly below [auth] in the file.
                inner = path if error.cl is Auth and note.name == "tables" else f"{path}.{note.name}"
                yield from _faults(cause, inner)
            for cause in others:
                yield from _faults(cause, path)
        case IterableValidationError():
            for cause, place in error.group_exceptions()[0]:
                index = place.index
                yield from _faults(cause, f"{path}[{index}]" if isinstance(index, int) else join(path, index))
        case ForbiddenExtraKeysError():
            known = attrs.fields_dict(error.cl)
            for key in sorted(error.extra_fields):
                yield f"{join(path, key)}: unknown key{_did_you_mean(key, known)}"
        case KeyError():
            yield f"{path}: is missing"
        case _:
            yield f"{path}: {error}"


def _did_you_mean(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, [name for name in known if name != "tables"], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
