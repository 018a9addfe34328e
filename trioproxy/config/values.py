"""How single values of the file are read: strictly, and with a message that says what would have been right.

The default hooks of cattrs convert where they can (`int("7")`, `str(7)`, a text as a list of letters). Here a value has
the type that it should have or it is an error, and the range of a number is part of its type.
"""

import re
import reprlib
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin
from zoneinfo import ZoneInfo

import attrs
from cattrs import BaseConverter, Converter
from cattrs.cols import homogenous_tuple_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn

from trioproxy.config.model import Auth, BackendTable, Between, PortRange, SocketAddress

__all__ = ["make_converter"]

_Hook: TypeAlias = Callable[[Any, Any], Any]

_SHOWN_CHARACTERS: Final = 60  # of a wrong value: enough to find it again
_PORT_MAX: Final = 65_535


def make_converter() -> Converter:
    """A converter for the classes of `trioproxy.config.model`, reporting all faults at once."""
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(SocketAddress, _socket_address)
    converter.register_structure_hook(PortRange, _port_range)
    converter.register_structure_hook(ZoneInfo, _time_zone)
    converter.register_structure_hook_func(lambda type_: type_ == IPv4Address | IPv6Address, _address)
    converter.register_structure_hook_func(lambda type_: type_ == IPv4Network | IPv6Network, _network)
    converter.register_structure_hook_factory(lambda type_: _is_a(type_, Literal), _make_word_hook)
    converter.register_structure_hook_factory(lambda type_: _is_a(type_, tuple), _make_list_hook)
    converter.register_structure_hook_factory(lambda type_: _is_a(type_, Mapping), _make_mapping_hook)
    converter.register_structure_hook_factory(attrs.has, _make_table_hook)
    converter.register_structure_hook_factory(lambda type_: _limits_of(type_) is not None, _make_number_hook)
    converter.register_structure_hook(BackendTable, _backend_table)
    converter.register_structure_hook_func(lambda type_: type_ is Auth, _make_auth_hook(converter))
    return converter


def _is_a(type_: object, origin: object) -> bool:
    return get_origin(type_) is origin


def _wrong(value: object, expected: str) -> ValueError:
    return ValueError(f"{_shorten(value)} is not {expected}")


def _shorten(value: object) -> str:
    printer = reprlib.Repr()
    printer.maxstring = printer.maxother = _SHOWN_CHARACTERS
    return {True: "true", False: "false"}.get(value, "") if isinstance(value, bool) else printer.repr(value)


def _text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "a text in quotes")
    return value


def _boolean(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def _address(value: object, _: object) -> IPv4Address | IPv6Address:
    if not isinstance(value, str) or "%" in value:
        raise _wrong(value, 'an IP address in quotes, e.g. "203.0.113.7"')
    try:
        return ip_address(value)
    except ValueError:
        raise _wrong(value, 'an IP address, e.g. "203.0.113.7" or "2001:db8::7"') from None


def _network(value: object, _: object) -> IPv4Network | IPv6Network:
    if not isinstance(value, str) or "%" in value:
        raise _wrong(value, 'a network in quotes, e.g. "127.0.0.0/8"')
    try:
        return ip_network(value)
    except ValueError as error:
        why = "; it has bits set behind its prefix" if "host bits" in str(error) else ""
        raise ValueError(f'{_shorten(value)} is not a network, e.g. "127.0.0.0/8"{why}') from None


def _socket_address(value: object, _: object) -> SocketAddress:
    expected = 'an address with a port, e.g. "0.0.0.0:1080" or "[::]:1080"'
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", value) if isinstance(value, str) else None
    if match is None:
        raise _wrong(value, expected)
    try:
        host = IPv6Address(match[1]) if match[1] is not None else IPv4Address(match[2])
    except ValueError:
        raise _wrong(value, expected) from None
    port = int(match[3])
    if port > _PORT_MAX:
        raise ValueError(f"port {port} is above {_PORT_MAX}")
    return SocketAddress(host, port)


def _port_range(value: object, _: object) -> PortRange:
    match = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", value) if isinstance(value, str) else None
    if match is None:
        raise _wrong(value, 'a range of ports, e.g. "40000-40999"')
    first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last <= _PORT_MAX:
        raise ValueError(f"{_shorten(value)}: ports go from 1 to {_PORT_MAX}, the smaller one first")
    return PortRange(first, last)


def _time_zone(value: object, _: object) -> ZoneInfo:
    if not isinstance(value, str):
        raise _wrong(value, 'a time zone in quotes, e.g. "Europe/Berlin"')
    try:
        return ZoneInfo(value)
    except (OSError, ValueError, KeyError):  # a folder, no name at all, or none that this system knows
        raise ValueError(f'{_shorten(value)} is not a time zone of this system, e.g. "Europe/Berlin"') from None


def _limits_of(type_: Any) -> Between | None:  # noqa: ANN401 - any annotation
    return next((item for item in getattr(type_, "__metadata__", ()) if isinstance(item, Between)), None)


def _make_number_hook(type_: Any) -> _Hook:  # noqa: ANN401 - any annotation
    limits = _limits_of(type_)
    whole = get_args(type_)[0] is int
    accepted = int if whole else (int, float)
    assert limits is not None  # noqa: S101 - the predicate has just said so

    def number(value: object, _: object) -> int | float:
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise _wrong(value, "a whole number" if whole else "a number")
        if not limits.low <= value <= limits.high:  # written so that "nan" is refused as well
            raise ValueError(f"{_shorten(value)} is not between {limits.low:g} and {limits.high:,.10g}")
        return value if whole else float(value)

    return number


def _make_word_hook(type_: Any) -> _Hook:  # noqa: ANN401 - any annotation
    words = get_args(type_)

    def word(value: object, _: object) -> object:
        if value not in words:
            raise _wrong(value, " or ".join(f'"{word}"' for word in words))
        return value

    return word


def _make_list_hook(type_: Any, converter: BaseConverter) -> _Hook:  # noqa: ANN401 - any annotation
    structure = homogenous_tuple_structure_factory(type_, converter)

    def items(value: object, _: object) -> object:
        if isinstance(value, dict) and attrs.has(get_args(type_)[0]):
            raise ValueError("there may be several of these: write its name in double brackets, [[...]]")
        if not isinstance(value, list):
            raise ValueError(f"{_what_it_is(value)}, a list is expected")  # noqa: TRY004 - all faults are ValueError
        return structure(value, type_)

    return items


def _make_mapping_hook(type_: Any, converter: BaseConverter) -> _Hook:  # noqa: ANN401 - any annotation
    structure = mapping_structure_factory(type_, converter, dict)

    def mapping(value: object, _: object) -> object:
        return structure(_table(value), type_)

    return mapping


def _make_table_hook(type_: Any, converter: BaseConverter) -> _Hook:  # noqa: ANN401 - any annotation
    structure = make_dict_structure_fn(type_, converter, _cattrs_forbid_extra_keys=True)

    def table(value: object, _: object) -> object:
        return structure(_table(value), type_)

    return table


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{_what_it_is(value)}, a table is expected")  # noqa: TRY004 - all faults are ValueError
    return value


def _what_it_is(value: object) -> str:
    match value:
        case dict():
            return "this is a table"
        case list():
            return "this is a list"
        case _:
            return f"this is {_shorten(value)}"


def _backend_table(value: object, _: object) -> BackendTable:
    table = dict(_table(value))
    if "type" not in table:
        raise ValueError('"type" is missing, e.g. type = "ldap"')
    return BackendTable(type=_text(table.pop("type"), str), settings=table)


def _make_auth_hook(converter: Converter) -> _Hook:
    structure = make_dict_structure_fn(Auth, converter, _cattrs_forbid_extra_keys=True)
    own_keys = {field.name for field in attrs.fields(Auth)} - {"tables"}

    def auth(value: object, _: object) -> Auth:
        # `[auth.NAME]` stands beside the keys of `[auth]` in the file; in the class the backends have a mapping.
        table = _table(value)
        backends = {key: item for key, item in table.items() if isinstance(item, dict) and key not in own_keys}
        rest = {key: item for key, item in table.items() if key not in backends}
        if "tables" in rest:
            raise ValueError("unknown key 'tables'")
        return structure({**rest, "tables": backends}, Auth)

    return auth
