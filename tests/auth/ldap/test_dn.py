"""Whether two names mean one entry, and what lies below what."""

import itertools
import string
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from auth.backend import Cause
from auth.ldap.dn import DN, answered_dn, escaped_in_dn
from auth.ldap.failure import DirectoryError

GROUPS = DN.parse("ou=groups,dc=a")

# One entry in each row, in several spellings (RFC 4514; RFC 4517 section 4.2.11 for the spaces).
SAME = [
    ["cn=a,dc=x", "CN=A,DC=X", "Cn=a, dC=x", "cn = a , dc = x", "  cn=a,dc=x  ", "cn=\\61,dc=\\78", "cn=\\41,dc=x"],
    ["cn=a\\,b,dc=x", "cn=a\\2Cb,dc=x", "cn=a\\2cb,dc=x", "cn=A\\,B,dc=x"],
    ["cn=a,cn=b,dc=x", "cn=a , CN=b,dc=x"],
    ["cn=a+sn=b,dc=x", "sn=b+cn=a,dc=x", "SN=B + CN=A,dc=x"],
    ["cn=a\\+sn=b,dc=x", "cn=a\\2Bsn\\3Db,dc=x", "cn=a\\+sn\\=b,dc=x"],
    ["cn=a b,dc=x", "cn=a  b,dc=x", "cn=a\\ b,dc=x", "cn=a\\20b,dc=x", "cn=\\ a b\\ ,dc=x", "cn= a b ,dc=x"],
    [
        "cn=Lu\\C4\\8Di\\C4\\87",
        "cn=Lu\u010di\u0107",
        "cn=LU\u010cI\u0106",
        "cn=Luc\u030cic\u0301",
        "cn=\\4c\\75\u010di\u0107",
    ],
    ["cn=a\\\\,dc=x", "cn=a\\5c,dc=x", "cn=a\\5C,dc=x"],
    ["cn=\\#a", "cn=\\23a", "cn=\\#A"],
    ["cn=#0C0161", "cn=#0c0161", "cn = #0c0161 "],
    ['cn=\\"a\\"', "cn=\\22a\\22"],
    ["cn=a\\00b", "CN=A\\00B"],
    ["cn=", "cn= ", "cn=\\ ", "cn=\\20\\20"],
    ["cn=a=b", "cn=a\\=b", "cn=a\\3db"],
    ["cn=a\\;b\\<c\\>", "cn=a\\3Bb\\3Cc\\3E"],
    ["cn=\\ff", "cn=\\FF"],
    ["1.2.840=a", "1.2.840 = A"],
]
# Each of another entry than any other.
DIFFERENT = [
    *(spellings[0] for spellings in SAME),
    "cn=a",
    "cn=a,dc=y",
    "cn=b,dc=x",
    "sn=a,dc=x",
    "dc=x,cn=a",
    "cn=a,dc=x,dc=x",
    "cn=a\\,dc=x",
    "cn=a\\,dc\\=x,dc=x",
    "cn=a\\2Bb,dc=x",
    "cn=ab,dc=x",
    "cn=a+sn=b+ou=c,dc=x",
    "cn=a,sn=b,dc=x",
    "sn=a+cn=b,dc=x",
    "2.5.4.3=a,dc=x",
    "cn=\\#0c0161",
    "cn=#040161",
    "cn=a\\\\\\,dc=x",
    "cn=a\tb,dc=x",
    "cn=a\u00a0b,dc=x",
    "cn=a\u200bb,dc=x",
    "cn=a\\1cb,dc=x",
    "cn=\u00e4",
    "cn=a\u0308b",
    "cn=\\e4",
    "cn=\u017f",
    "cn=s",
    "cn=\u00df",
    "cn=ss",
    "cn=\ufb01",
    "cn=fi",
    "cn=\uff41",
]

NO_NAMES = [
    "",
    "cn",
    "=",
    "=a",
    "cn=a,",
    ",cn=a",
    "cn=a,,dc=x",
    "cn=a,b,dc=x",
    "cn=a,dc",
    "cn=a+,dc=x",
    "cn=a+b,dc=x",
    "+cn=a",
    "cn=a;dc=x",
    'cn="a,b",dc=x',
    'cn=a"b',
    "cn=<a>",
    "cn=a\0b",
    "cn=a\\",
    "cn=a\\zz",
    "cn=a\\2",
    "cn=a\\\n",
    "cn=\\\u00e4",
    "cn=#",
    "cn=#0",
    "cn=#04016",
    "cn=#0401zz",
    "cn=#040161 61",
    "cn=#a=b",
    "cn= #",
    "cn=a,dc=#x",
    "1cn=a",
    "-cn=a",
    "c_n=a",
    "c n=a",
    "c\\6e=a",
    "c\u00f1=a",
    "\u0663=a",
    "1.=a",
    ".1=a",
    "1..2=a",
    "cn;binary=a",
    "cn=a+cn=a,dc=x",
    "cn=a+CN=b,dc=x",
    "cn\n=a",
    "<GUID=1234>",
    "<SID=1234>",
    "user@example.org",
    "EXAMPLE\\user",
    "cn=\ud800",
    "cn=" + "a" * 4094,
]


@pytest.mark.parametrize("spellings", SAME, ids=lambda spellings: spellings[0])
def test_same_entry(spellings: list[str]) -> None:
    """Case, spaces, escapes and the order within one component are no differences."""
    names = [DN.parse(text) for text in spellings]
    for one, other in itertools.product(names, repeat=2):
        assert one == other
        assert hash(one) == hash(other)
        assert one.is_below(other)
    assert spellings == [name.text for name in names]


def test_different_entries() -> None:
    """Nothing else compares equal: no comma, plus or equals sign inside a value becomes one between values."""
    names = [DN.parse(text) for text in DIFFERENT]
    for one, other in itertools.combinations(names, 2):
        assert one != other, (one.text, other.text)


@pytest.mark.parametrize("text", NO_NAMES)
def test_no_names(text: str) -> None:
    """What RFC 4514 does not allow is refused, not guessed at; two values of one kind would leave us the choice."""
    with pytest.raises(ValueError, match=r"distinguished name|surrogates"):
        DN.parse(text)


def test_length() -> None:
    """A limit, so that nobody's name takes all of our time."""
    assert len(DN.parse("cn=" + "a" * 4093).text) == 4096


# ---- what we write


@st.composite
def entries(draw: st.DrawFn) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Components as they are meant, each of one or more kinds with a value."""
    kinds = st.lists(st.sampled_from(["cn", "ou", "dc", "uid", "2.5.4.3"]), min_size=1, max_size=2, unique=True)
    values = st.text(
        st.one_of(st.sampled_from(',+="\\<>;# =abAB09fF'), st.characters(codec="utf-8", exclude_characters="\0")),
        min_size=1,
        max_size=6,
    )
    components = st.lists(kinds, min_size=1, max_size=4)
    return tuple(tuple((kind, draw(values)) for kind in some) for some in draw(components))


@st.composite
def spelled(draw: st.DrawFn, entry: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """An entry's name in any of the ways RFC 4514 has for it."""
    components = []
    for component in entry:
        pieces = [f"{draw(_cased(kind))}{draw(_spaces)}={draw(_spaces)}{_escape(draw, v)}" for kind, v in component]
        components.append((draw(_spaces) + "+" + draw(_spaces)).join(draw(st.permutations(pieces))))
    return (draw(_spaces) + "," + draw(_spaces)).join(components)


_spaces = st.sampled_from(["", " ", "  "])


def _cased(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from([text, text.upper(), text.title()])


def _escape(draw: st.DrawFn, value: str) -> str:
    written = []
    for place, character in enumerate(value):
        must = (
            character in ',+"\\<>;'
            or (character in " #" and place == 0)
            or (character == " " and place == len(value) - 1)
        )
        may = character in ' "#+,;<=>\\'
        ways = ["".join(f"\\{octet:02x}" for octet in character.encode())]
        ways += [ways[0].upper()]
        ways += ["\\" + character] if may else []
        ways += [] if must else [character]
        written.append(draw(st.sampled_from(ways)))
    return "".join(written)


def _meant(entry: tuple[tuple[tuple[str, str], ...], ...]) -> list[dict[str, str]]:
    """An entry as the directory compares it, by another road than ours: character by character."""
    return [{kind: _folded(value) for kind, value in component} for component in entry]


def _folded(value: str) -> str:
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", value).lower()).strip(" ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text


@given(st.data(), entries())
def test_every_spelling(data: st.DataObject, entry: tuple[tuple[tuple[str, str], ...], ...]) -> None:
    """However an entry is spelled it is the same, and it has the value that was meant."""
    one, other = DN.parse(data.draw(spelled(entry))), DN.parse(data.draw(spelled(entry)))
    assert one == other
    assert hash(one) == hash(other)
    for kind, value in entry[0]:
        assert _folded(value) == one.value_of(kind) == one.value_of(kind.upper())


@given(st.data(), entries(), entries())
def test_equal_if_and_only_if_meant(
    data: st.DataObject,
    first: tuple[tuple[tuple[str, str], ...], ...],
    second: tuple[tuple[tuple[str, str], ...], ...],
) -> None:
    """Two entries compare equal exactly if they mean the same: no spelling of the one passes for the other."""
    one, other = DN.parse(data.draw(spelled(first))), DN.parse(data.draw(spelled(second)))
    assert (_meant(first) == _meant(second)) is (one == other)
    assert (_meant(first)[-len(second) :] == _meant(second)) is one.is_below(other)


@given(st.text(st.sampled_from('ab,+=\\"#; 0c')), st.text(st.sampled_from('ab,+=\\"#; 0c')))
@example("a,ou=b", "a\\,ou=b")
@example("a\\", "a")
def test_values_do_not_break_out(value: str, other: str) -> None:
    """A value that was escaped stays one, whatever is in it (CVE-2025-61912 was an escape that did not)."""
    name = DN.parse(f"cn={escaped_in_dn(value)},ou=groups,dc=a")
    assert name.is_below(GROUPS)
    assert name.value_of("cn") == _folded(value)
    assert name.value_of("ou") is None
    assert (name == DN.parse(f"cn={escaped_in_dn(other)},ou=groups,dc=a")) is (_folded(value) == _folded(other))


@given(st.text(max_size=20))
def test_escaped_in_dn(value: str) -> None:
    """Only what needs no thought is left as it is."""
    assume(value.isprintable())
    text = escaped_in_dn(value)
    assert set(text) <= set(string.ascii_letters + string.digits + ".-_\\")
    assert DN.parse(f"cn={text}").value_of("cn") == _folded(value)


# ---- any text


HOSTILE = st.text(st.sampled_from('cn=a,+\\ #2C"\u00e4\0;dC'), max_size=24)


@given(HOSTILE, HOSTILE, HOSTILE)
@example("cn=a,ou=b", "cn=a\\,ou\\=b", "cn=a\\2cou\\3db")
def test_equality(first: str, second: str, third: str) -> None:
    """An equivalence, over any texts that are names at all; and being below is a partial order."""
    names = []
    for text in (first, second, third):
        try:
            names.append(DN.parse(text))
        except ValueError:
            continue
    for one, other in itertools.product(names, repeat=2):
        assert (one == other) is (other == one)
        assert (one.is_below(other) and other.is_below(one)) is (one == other)
        assert one != other or hash(one) == hash(other)
    for one, other, last in itertools.product(names, repeat=3):
        assert not (one.is_below(other) and other.is_below(last)) or one.is_below(last)
        assert not (one == other == last) or one == last


@given(st.one_of(HOSTILE, st.text(max_size=30)))
def test_any_text(text: str) -> None:
    """A name or a ValueError; a name has at least one component, and is the same when read again."""
    try:
        name = DN.parse(text)
    except ValueError:
        return
    assert name == DN.parse(name.text)
    assert name == DN.parse(f"  {text}  " if not text.endswith("\\") else text)
    assert name != DN.parse(text + ",dc=more")
    assert DN.parse("dc=less," + text).is_below(name)


@pytest.mark.parametrize(
    "text",
    [
        "\\" * 4095,
        "cn=" + "\\" * 4091,
        "cn=" + "\\," * 2045 + ",",
        "cn=" + "\\+" * 2046 + "\\",
        "cn=a," * 818 + "x",
        "a=" + "b+c=" * 1000,
        "=" * 4096,
        "," * 4096,
        "+" * 4096,
        " " * 4096,
        "cn=" + " " * 4000 + '"',
        "1." * 2048,
        "1" * 4096,
        "cn=#" + "0" * 4091,
        "a" * 4096,
    ],
    ids=lambda text: f"{text[:8]}...",
)
def test_hostile(text: str) -> None:
    """Long and wrong: refused, and the regular expression has nothing to go back for."""
    with pytest.raises(ValueError, match="distinguished name"):
        DN.parse(text)


# ---- below


@pytest.mark.parametrize(
    ("text", "below"),
    [
        ("ou=groups,dc=a", True),
        ("cn=b,ou=groups,dc=a", True),
        ("cn=b,ou=c,OU=Groups , DC=A", True),
        ("cn=b,ou=xgroups,dc=a", False),
        ("ou=xgroups,dc=a", False),
        ("xou=groups,dc=a", False),
        ("cn=b\\,ou=groups,dc=a", False),
        ("cn=b\\,ou\\=groups,dc=a", False),
        ("cn=b+ou=groups,dc=a", False),
        ("ou=groups+cn=b,dc=a", False),
        ("dc=a", False),
        ("cn=b,ou=groups", False),
        ("cn=b,ou=groups,dc=a,dc=b", False),
        ("cn=b,ou=groups,ou=more,dc=a", False),
        ("cn=ou\\=groups\\,dc\\=a", False),
        ("cn=b,ou=groups\\,dc=a", False),
        ("cn=b,dc=groups,dc=a", False),
        ("cn=b,ou=#04066772 6f757073,dc=a".replace(" ", ""), False),
    ],
)
def test_below(text: str, below: bool) -> None:
    """By whole components from the right; the end of a text is not the end of a name (case 48)."""
    assert DN.parse(text).is_below(GROUPS) is below


def test_below_needs_the_same_kind() -> None:
    """`cn=a,ou=groups,dc=x` has nothing to do with `dc=groups,dc=x`."""
    assert not DN.parse("cn=a,ou=groups,dc=x").is_below(DN.parse("dc=groups,dc=x"))


# ---- the first component


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("cn=Staff,ou=groups,dc=a", "staff"),
        ("CN = Staff ,dc=a", "staff"),
        ("ou=b+CN=Staff,dc=a", "staff"),
        ("ou=staff,cn=b,dc=a", None),
        ("cn=#0c057374616666,dc=a", None),
        ("cn=a\\2cb,dc=a", "a,b"),
        ("2.5.4.3=staff", None),
    ],
)
def test_value_of(text: str, value: str | None) -> None:
    """The name that a group or a user goes by; of the first component only, and only if it is text."""
    assert DN.parse(text).value_of("cn") == value
    assert DN.parse(text).value_of("CN") == value


# ---- what a directory says


def test_answered_dn() -> None:
    """As bytes (memberOf) or as text (the name of an entry)."""
    assert answered_dn(b"cn=Jos\xc3\xa9,dc=a") == answered_dn("cn=jos\u00e9,dc=a")


@pytest.mark.parametrize("name", ["", b"", b"cn=\xff", "cn", b"cn=a,b", b"\0", "cn=" + "a" * 5000])
def test_answered_dn_refuses(name: str | bytes) -> None:
    """The root, garbage, no UTF-8: nobody's name. The entry is to blame and not the server, which goes on working."""
    with pytest.raises(DirectoryError) as caught:
        answered_dn(name)
    assert caught.value.cause is Cause.AMBIGUOUS


@pytest.mark.parametrize(("text", "place"), [("cn", 1), ("cn=a,b", 6), ("cn=a,dc=x,", 11), ("cn=a+cn=b", 6)])
def test_where_it_is_wrong(text: str, place: int) -> None:
    """Whoever wrote it is told which component cannot be read."""
    with pytest.raises(ValueError, match=f"see character {place}$"):
        DN.parse(text)
