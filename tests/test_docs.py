"""What the pages say is so: their rules parse, their configurations load, their commands and tests exist."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import attrs
import pytest

import trioproxy
from trioproxy.cli.app import make_app
from trioproxy.config import parse_config_untrusted
from trioproxy.policy import parse_rule
from trioproxy.protocol import TRANSITIONS, State
from trioproxy.store import parse_policy_untrusted

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = Path(trioproxy.__file__).parent.parent  # where both packages are, installed or not
PAGES: Final = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
}
TENANTS: Final = ("main", "physics")  # those that the examples speak of


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """The code blocks of one language, with the page each is on."""
    for name, page in PAGES.items():
        for found in re.finditer(rf"^( *)```{language}\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL):
            yield name, found[2]


def commands() -> Iterator[str]:
    """Every line typed at a prompt that runs trioproxy; a long one may go on behind a backslash."""
    for _, block in blocks("console"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ trioproxy "):
                yield line.removeprefix("$ trioproxy ")


def in_passing() -> Iterator[str]:
    """Every command mentioned in a sentence: `trioproxy user add`."""
    for page in PAGES.values():
        yield from re.findall(r"`trioproxy ([a-z][^`]*)`", page)


def load_reference() -> ModuleType:
    """The module that reads the generated parts out of the program."""
    sys.path.insert(0, str(ROOT / "docs"))  # it imports its neighbour
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE: Final = load_reference()


@pytest.mark.parametrize("rule", [line for _, block in blocks("rules") for line in block.splitlines() if line])
def test_rules_parse(rule: str) -> None:
    """Each rule of an example is one, in the form in which it would be shown again."""
    assert str(parse_rule(rule)) == rule


@pytest.mark.parametrize("text", [block for _, block in blocks("policy")])
def test_policies_can_be_imported(text: str) -> None:
    """Each file of rules could be given to `policy import` as it stands."""
    content = parse_policy_untrusted(text, TENANTS)
    assert all(map(content.lines, content.scopes))


@pytest.mark.parametrize("text", [block for _, block in blocks("toml")])
def test_configurations_load(text: str) -> None:
    """Each example of a configuration has no error."""
    assert parse_config_untrusted(text, "example").tenants()


@pytest.mark.parametrize("command", [*commands()])
def test_typed_commands_are_understood(command: str) -> None:
    """Each command line of an example parses, with every option; nothing is run."""
    words = shlex.split(command, comments=True)
    function, _, _ = make_app().parse_args(words, exit_on_error=False, print_error=False)
    assert function.__name__ != "help_print"


@pytest.mark.parametrize("command", sorted(set(in_passing())))
def test_mentioned_commands_exist(command: str) -> None:
    """Each command that a sentence names is one; what follows its names may be a placeholder."""
    known = [" ".join(words) for words in REFERENCE.command_names()]
    words = re.match(r"[a-z]+( [a-z]+)?(?![a-z-])", command)
    assert words is not None
    assert words[0] in known or words[0].split()[0] in known


def test_rules_in_commands_parse() -> None:
    """Each rule given to `rule add` is one."""
    texts = [shlex.split(command)[3] for command in commands() if command.startswith("rule add")]
    shown_as_wrong = {"tcp:*(*)->example.org(foo)"}
    assert [str(parse_rule(text)) for text in texts if text not in shown_as_wrong]


@pytest.mark.parametrize(
    "target", sorted({name for page in PAGES.values() for name in re.findall(r"(?:`|\$ |^    )make ([a-z]+)", page)})
)
def test_make_targets_exist(target: str) -> None:
    """Each `make TARGET` is a target of the Makefile."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_key_of_the_configuration_has_a_meaning() -> None:
    """The reference is made from the classes: each key needs its line in the docstring, and a default that is named."""
    page = REFERENCE.fill_in("% generated: configuration")
    keys = {field.name for cls in REFERENCE.tables().values() for field in attrs.fields(cls)} - {"tables", "settings"}
    assert {key for key in keys if f"### `{key}`\n\n" not in page} == set()
    assert page.count("Which plug-in it is") == page.count("### `type`") == 1


def test_every_limit_has_its_reason() -> None:
    """DESIGN section 6: every limit has a default and a reason beside it; the page shows both."""
    section = REFERENCE.fill_in("% generated: configuration").partition("## `[limits]`")[2].partition("\n## ")[0]
    limits = section.split("### ")[1:]
    assert [limit.partition("\n")[0] for limit in limits if "default" not in limit] == []
    unexplained = [limit.partition("\n")[0] for limit in limits if "Why so" not in limit]
    assert unexplained == ["`resolve_cache_s`", "`drain_s`"]  # round numbers, within what their sentences say


def test_every_generated_part_exists() -> None:
    """No page asks for a part that nobody makes, and no line of the kind is left over."""
    filled = [REFERENCE.fill_in(page) for page in PAGES.values()]
    assert not any("% generated" in page for page in filled)


def test_every_command_is_on_the_page() -> None:
    """The page of the command line shows each command with its example."""
    page = REFERENCE.fill_in("% generated: command-line")
    for words in REFERENCE.command_names():
        section = page.partition(f"# trioproxy {' '.join(words)}\n")[2].partition("\n```\n")[0]
        assert f"Usage: trioproxy {' '.join(words)}" in section
        assert "Example: " in section


def test_the_drawing_has_every_state() -> None:
    """STYLE habit 2: the diagram is drawn from the table of transitions."""
    drawing = REFERENCE.fill_in("% generated: diagram")
    assert all(f">{state.name}<" in drawing for state in State)
    assert all(step.value in drawing for _, step in TRANSITIONS)


def test_every_counter_is_explained() -> None:
    """Issue item 8: limits and counters; each name that the source uses stands in the table."""
    table = PAGES["docs/operation.md"]
    names = {
        name
        for path in (SOURCE / "trioproxy").rglob("*.py")
        for name in re.findall(r'counters\[f?"([a-z_]+)', path.read_text(encoding="utf-8"))
    }
    occupancies = re.findall(r'occupancy\(\s*"([a-z_]+)"', (SOURCE / "trioproxy/server.py").read_text(encoding="utf-8"))
    assert len(names) > len(occupancies) > 0
    assert {name for name in names if f"`{name}" not in table} == set()
    assert {name for name in occupancies if f"`{name}_limit_each`" not in table} == set()


CONFORMANCE: Final = re.findall(
    r"^\| \d[\d, ]* \| ([^|]+) \| [^|]+ \| `([a-z_/]+\.py)` `(\w+)`<br>`(tests/[a-z_0-9/]+\.py)::(\w+)` \|$",
    PAGES["docs/rfc.md"],
    re.MULTILINE,
)


@pytest.mark.parametrize(("place", "name", "test_file", "test_name"), [row[1:] for row in CONFORMANCE])
def test_conformance_names_places_and_tests_that_exist(place: str, name: str, test_file: str, test_name: str) -> None:
    """Issue item 11: each MUST, where it is, which test."""
    source, tests = (SOURCE / place).read_text("utf-8"), (ROOT / test_file).read_text("utf-8")
    assert re.search(rf"^(class |def |async def )?{name}\b", source, re.MULTILINE)
    assert re.search(rf"^(async )?def {test_name}\(", tests, re.MULTILINE)


def test_every_row_of_the_conformance_table_is_whole() -> None:
    """Each row that claims something says where; those without a place are not supported, and are few."""
    rows = re.findall(r"^\| \d.*$", PAGES["docs/rfc.md"], re.MULTILINE)
    assert len(rows) - len(CONFORMANCE) == sum(row.endswith("| |") for row in rows) == 5


@pytest.mark.parametrize(
    ("page", "link"),
    [(name, link) for name, page in PAGES.items() for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page)],
)
def test_links_between_files_lead_somewhere(page: str, link: str) -> None:
    """A page links to files that are there; anchors are Sphinx's to check."""
    assert "://" in link or (ROOT / page).parent.joinpath(link).exists()
