"""Backends found, built, and refused with a reason."""

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import attrs
import pytest

from auth import Backend, registry
from auth.ldap import LdapBackend
from auth.local import BackendContext, LocalBackend
from auth.registry import BackendError, build, find_backend_types
from tests.auth.doubles import FakeBackend, context_of, credentials, local_user

CONTEXT = context_of([])
BUILT_IN_ENTRY = EntryPoint("local", "auth.local:LocalBackend", registry.ENTRY_POINT_GROUP)


@attrs.frozen
class Tls:
    """A table in a table."""

    ca_file: str
    strict: bool = True


@attrs.frozen
class PluginSettings:
    """One field of every kind that TOML has."""

    urls: tuple[str, ...]
    timeout_s: float = 5.0
    size: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    ports: list[int] = attrs.field(factory=list)
    tls: Tls | None = None

    def __attrs_post_init__(self) -> None:
        if not self.urls:
            raise ValueError("urls is empty")


class PluginBackend(FakeBackend):
    """A plug-in that fits."""

    settings_type: ClassVar[type] = PluginSettings

    def __init__(self, settings: PluginSettings, context: BackendContext) -> None:
        super().__init__()
        self.settings = settings
        self.context = context
        if settings.size > 100:
            raise ValueError("size and urls do not go together")


class NoClose:
    """A plug-in without an end."""

    settings_type: ClassVar[type] = PluginSettings
    in_flight_max = revalidate_s = None
    open = authenticate = find = PluginBackend.open


class NoFind:
    """A plug-in from before live sessions were looked after."""

    settings_type: ClassVar[type] = PluginSettings
    open = authenticate = close = PluginBackend.open


class NoSettings(FakeBackend):
    """A plug-in whose settings nobody can know."""

    settings_type: ClassVar[type] = dict


def entry(name: str, value: str) -> EntryPoint:
    """An entry point of our group."""
    return EntryPoint(name, value, registry.ENTRY_POINT_GROUP)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points that are installed, for this test; a module `plugin_module` to point them to."""
    module = ModuleType("plugin_module")
    vars(module).update(
        Good=PluginBackend, NoClose=NoClose, NoFind=NoFind, NoSettings=NoSettings, function=lambda: None
    )
    monkeypatch.setitem(sys.modules, "plugin_module", module)
    installed = [entry("good", "plugin_module:Good")]

    def entry_points(*, group: str) -> Sequence[EntryPoint]:
        assert group == "trioproxy.auth"
        return installed

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return installed


def make(table: dict[str, object], kind: str = "good") -> Backend:
    """Build the backend `[auth.campus]`."""
    return build("campus", kind, table, CONTEXT)


def problems_of(table: dict[str, object], kind: str = "good") -> tuple[str, ...]:
    """What is wrong with `[auth.campus]`."""
    with pytest.raises(BackendError) as caught:
        make(table, kind)
    assert str(caught.value).split("\n") == [line for problem in caught.value.problems for line in problem.split("\n")]
    return caught.value.problems


@pytest.mark.parametrize("also_installed", [[], [BUILT_IN_ENTRY], [BUILT_IN_ENTRY, BUILT_IN_ENTRY]])
def test_local_is_always_there(plugins: list[EntryPoint], also_installed: list[EntryPoint]) -> None:
    """In a source tree, where nothing is installed, and in an installation, where its entry point is."""
    plugins[:] = also_installed
    assert {"local": LocalBackend, "ldap": LdapBackend} == find_backend_types()
    backend = build("local", "local", {}, context_of([local_user()]))
    assert isinstance(backend, LocalBackend)
    assert backend.authenticate(credentials()) is not None


def test_plugin_is_found_and_built(plugins: list[EntryPoint]) -> None:
    """A plug-in gets its settings and what the server lends it; its `type` is no setting; nothing is opened yet."""
    assert {"local": LocalBackend, "ldap": LdapBackend, "good": PluginBackend} == find_backend_types()
    table = {
        "type": "good",
        "urls": ["a", "b"],
        "timeout_s": 3,
        "ports": [1, 2],
        "tls": {"ca_file": "x", "strict": False},
    }
    backend = make(table)
    assert isinstance(backend, PluginBackend)
    assert PluginSettings(("a", "b"), 3, 1, [1, 2], Tls("x", strict=False)) == backend.settings
    assert backend.context is CONTEXT
    assert backend.opened == 0


def test_installed_plugin_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any installed distribution offers a backend through the entry-point group `trioproxy.auth`."""
    metadata = tmp_path / "some_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[trioproxy.auth]\nsome = some_plugin:SomeBackend\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "some_plugin", ModuleType("some_plugin"))
    vars(sys.modules["some_plugin"]).update(SomeBackend=PluginBackend)
    assert find_backend_types()["some"] is PluginBackend


def test_unknown_kind(plugins: list[EntryPoint]) -> None:
    """The message lists what there is, without loading it."""
    plugins.append(entry("broken", "no_such_module:Backend"))
    assert problems_of({}, "ldpa") == (
        "auth.campus.type: there is no backend 'ldpa'; installed are broken, good, ldap, local",
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no_such_module:Backend", "cannot be loaded: ModuleNotFoundError"),
        ("plugin_module:NoSuchClass", "cannot be loaded: AttributeError"),
        ("plugin_module:function", "is no backend: it has no class"),
        ("plugin_module:NoClose", "is no backend: it has no method close"),
        (
            "plugin_module:NoFind",
            "is no backend: it has no method find, attribute in_flight_max, attribute revalidate_s",
        ),
        ("plugin_module:NoSettings", "is no backend: it has no attrs class settings_type"),
    ],
)
def test_plugin_that_does_not_work(plugins: list[EntryPoint], value: str, problem: str) -> None:
    """It is named with what is wrong, where it is used and where all are listed; others go on working."""
    plugins.append(entry("bad", value))
    (text,) = problems_of({}, "bad")
    assert text.startswith(f"plug-in 'bad' ({value}) ")
    assert problem in text
    with pytest.raises(BackendError, match="plug-in 'bad'"):
        find_backend_types()
    assert isinstance(make({"urls": ["a"]}), PluginBackend)


def test_nobody_takes_the_place_of_local(plugins: list[EntryPoint]) -> None:
    """Which code checks passwords is not decided by what was installed last."""
    plugins.append(entry("local", "plugin_module:Good"))
    with pytest.raises(BackendError, match=r"plugin_module:Good offers 'local', which is built in"):
        find_backend_types()
    plugins.append(BUILT_IN_ENTRY)
    with pytest.raises(BackendError, match=r"two plug-ins offer 'local'"):
        build("local", "local", {}, CONTEXT)


@pytest.mark.parametrize(
    ("table", "problems"),
    [
        ({}, ["auth.campus.urls: missing"]),
        ({"urls": "ldaps://a"}, ["auth.campus.urls: expected a list"]),
        ({"urls": 5}, ["auth.campus.urls: expected a list"]),
        ({"urls": ["a", 5]}, ["auth.campus.urls[1]: expected a string"]),
        ({"urls": ["a"], "ports": ["1"]}, ["auth.campus.ports[0]: expected an integer"]),
        ({"urls": ["a"], "ports": [True]}, ["auth.campus.ports[0]: expected an integer"]),
        ({"urls": ["a"], "timeout_s": "5"}, ["auth.campus.timeout_s: expected a number"]),
        (
            {"urls": ["a"], "tls": {"ca_file": 1, "strict": "no"}},
            ["auth.campus.tls.ca_file: expected a string", "auth.campus.tls.strict: expected true or false"],
        ),
        ({"urls": ["a"], "tls": {}}, ["auth.campus.tls.ca_file: missing"]),
        ({"urls": ["a"], "tls": 5}, ["auth.campus.tls: has the wrong form"]),
        ({"urls": ["a"], "uls": 1}, ["auth.campus: unknown key 'uls' (did you mean 'urls'?)"]),
        ({"urls": ["a"], "x": 1, "y": 2}, ["auth.campus: unknown key 'x'; unknown key 'y'"]),
        ({"urls": ["a"], "size": 0}, ["auth.campus: 'size' must be >= 1: 0"]),
        ({"urls": []}, ["auth.campus: urls is empty"]),
        ({"urls": ["a"], "size": 101}, ["auth.campus: size and urls do not go together"]),
        (
            {"size": "x", "bad": 1},
            ["auth.campus.urls: missing", "auth.campus.size: expected an integer", "auth.campus: unknown key 'bad'"],
        ),
    ],
    ids=repr,
)
def test_wrong_settings(plugins: list[EntryPoint], table: dict[str, Any], problems: list[str]) -> None:
    """All errors at once, each with its path; nothing is guessed: "5" is no number, and a word no list of letters."""
    assert tuple(problems) == problems_of(table)


def test_local_has_no_settings(plugins: list[EntryPoint]) -> None:
    """A key that nobody reads is an error here too."""
    assert problems_of({"users_file": "x"}, "local") == ("auth.campus: unknown key 'users_file'",)


def test_wrong_value_is_not_repeated(plugins: list[EntryPoint]) -> None:
    """What stands where a list belongs may be a secret that slipped (case 36)."""
    with pytest.raises(BackendError) as caught:
        make({"urls": "PW-CANARY", "timeout_s": "PW-CANARY", "tls": "PW-CANARY"})
    assert "CANARY" not in str(caught.value)
