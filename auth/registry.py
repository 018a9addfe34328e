"""Which kinds of backends there are, and how a table of the configuration becomes one.

A plug-in is a class `Backend` with `settings_type`, an attrs class for its table, and a constructor that takes the
settings and a `BackendContext`. Any installed distribution offers one through the entry-point group `trioproxy.auth`.
"""

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, get_origin

import attrs
import cattrs

from auth.backend import Backend
from auth.local import BackendContext

__all__ = ["ENTRY_POINT_GROUP", "BackendError", "build", "find_backend_types"]

ENTRY_POINT_GROUP: Final = "trioproxy.auth"

# There without any entry point, so that a source tree works; no plug-in may take the place of one of these. Loaded when
# they are used: ldap3 takes a tenth of a second, which not every command of the command line should cost.
_BUILT_IN: Final = {"local": "auth.local:LocalBackend", "ldap": "auth.ldap:LdapBackend"}

_TOML_NAMES: Final[dict[type, str]] = {str: "a string", int: "an integer", bool: "true or false", float: "a number"}


class BackendError(ValueError):
    """A backend cannot be built.

    Attributes:
        problems: each with its path, for example `auth.campus.urls: expected a list`; the values are not repeated.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class _ExpectedError(TypeError):
    """A value of another kind than the setting's."""


def find_backend_types() -> dict[str, type]:
    """Every kind by its name, as the `type` of an `[auth.NAME]` table says it.

    Raises:
        BackendError: a plug-in cannot be loaded, or does not fit the interface.
    """
    plugins = _plugins()
    return {name: _load_built_in(name) for name in _BUILT_IN} | {name: _load(name, plugins[name]) for name in plugins}


def build(name: str, type_name: str, table: Mapping[str, object], context: BackendContext) -> Backend:
    """Make the backend that `[auth.NAME]` describes; it is not opened yet.

    Args:
        name: of the backend, for messages.
        type_name: the kind.
        table: its settings; the key `type` is skipped.
        context: what the server lends it.

    Raises:
        BackendError: an unknown kind, a plug-in that does not work, or wrong settings, all at once.
    """
    plugins = _plugins()
    backend_type: Any
    if type_name in _BUILT_IN:
        backend_type = _load_built_in(type_name)
    elif type_name in plugins:
        backend_type = _load(type_name, plugins[type_name])
    else:
        known = ", ".join(sorted({*_BUILT_IN, *plugins}))
        raise BackendError(f"auth.{name}.type: there is no backend {type_name!r}; installed are {known}")
    settings = _structure(name, {key: table[key] for key in table if key != "type"}, backend_type.settings_type)
    try:
        backend: Backend = backend_type(settings, context)
    except ValueError as error:  # settings that are well-formed, and still do not go together
        raise BackendError(f"auth.{name}: {error}") from error
    return backend


def _plugins() -> dict[str, EntryPoint]:
    """The entry points by name; one name with two meanings is an error: which code checks passwords is no lottery."""
    found: dict[str, EntryPoint] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        other = found.setdefault(entry_point.name, entry_point)
        if other.value != entry_point.value:
            raise BackendError(f"two plug-ins offer {entry_point.name!r}: {other.value} and {entry_point.value}")
    for name, built_in in _BUILT_IN.items():
        shadow = found.pop(name, None)
        if shadow is not None and shadow.value != built_in:
            raise BackendError(f"{shadow.value} offers {name!r}, which is built in")
    return found


def _load_built_in(name: str) -> type:
    module, _, attribute = _BUILT_IN[name].partition(":")
    backend_type: type = getattr(importlib.import_module(module), attribute)
    return backend_type


def _load(name: str, entry_point: EntryPoint) -> type:
    try:
        loaded = entry_point.load()
    except Exception as error:  # importing a plug-in runs anybody's code
        raise BackendError(f"plug-in {name!r} ({entry_point.value}) cannot be loaded: {error!r}") from error
    missing = _missing(loaded)
    if missing:
        raise BackendError(f"plug-in {name!r} ({entry_point.value}) is no backend: it has no {', '.join(missing)}")
    backend_type: type = loaded
    return backend_type


def _missing(loaded: Any) -> list[str]:  # noqa: ANN401 - whatever a plug-in's entry point names
    if not isinstance(loaded, type):
        return ["class"]
    missing = [
        f"method {name}" for name in ("open", "authenticate", "find", "close") if not callable(getattr(loaded, name, 0))
    ]
    missing += [f"attribute {name}" for name in ("in_flight_max", "revalidate_s") if not hasattr(loaded, name)]
    settings_type = getattr(loaded, "settings_type", None)
    if not (isinstance(settings_type, type) and attrs.has(settings_type)):
        missing.append("attrs class settings_type")
    return missing


def _structure(name: str, table: Mapping[str, object], settings_type: type[Any]) -> Any:  # noqa: ANN401 - its settings
    try:
        return _CONVERTER.structure(table, settings_type)
    except cattrs.BaseValidationError as error:
        known = [field.name for field in attrs.fields(settings_type)]
        problems = cattrs.transform_error(
            error, path=f"auth.{name}", format_exception=lambda problem, _: _describe(problem, known)
        )
        raise BackendError(*(_path_first(problem) for problem in problems)) from None


def _describe(problem: BaseException, known: Sequence[str]) -> str:
    match problem:
        case cattrs.ForbiddenExtraKeysError():
            return "; ".join(_describe_key(key, known) for key in sorted(problem.extra_fields))
        case KeyError():
            return "missing"
        case _ExpectedError() | ValueError():  # ours, or the settings' own check
            return str(problem)
        case _:
            return "has the wrong form"  # cattrs and Python speak of their own matters here


def _describe_key(key: str, known: Sequence[str]) -> str:
    similar = difflib.get_close_matches(key, known, n=1)
    return f"unknown key {key!r}" + (f" (did you mean {similar[0]!r}?)" if similar else "")


def _path_first(problem: str) -> str:
    message, _, path = problem.rpartition(" @ ")
    return f"{path}: {message}"


def _strict(value: object, expected: type) -> object:
    if type(value) is expected or (expected is float and type(value) is int):
        return value
    raise _ExpectedError(f"expected {_TOML_NAMES[expected]}")


def _is_list(expected: Any) -> bool:  # noqa: ANN401 - any annotation a settings class may have
    return get_origin(expected) in (list, tuple, set, frozenset, Sequence)


def _list_hook(structure: cattrs.Converter, expected: Any) -> Callable[[object, Any], object]:  # noqa: ANN401 - as above
    inner = structure.get_structure_hook(expected)

    def hook(value: object, _: Any) -> object:  # noqa: ANN401 - as above
        if not isinstance(value, list | tuple):
            raise _ExpectedError("expected a list")
        return inner(value, expected)

    return hook


def _make_converter() -> cattrs.Converter:
    """A converter that takes TOML at its word: cattrs alone makes "7" of 7 and a list of letters of a string."""
    strict = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for plain in _TOML_NAMES:
        strict.register_structure_hook(plain, _strict)
    converter = strict.copy()
    converter.register_structure_hook_factory(_is_list, lambda expected: _list_hook(strict, expected))
    return converter


_CONVERTER: Final = _make_converter()
