"""Requests as a server reads them, and answers as it may write them."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ldap3.core.results import RESULT_CODES

from auth.ldap.ber import BerError
from auth.ldap.flavours import FLAVOURS
from auth.ldap.messages import (
    BUSY_CODES,
    MESSAGE_BYTES_MAX,
    Entry,
    Message,
    Reference,
    Result,
    ResultCode,
    Search,
    check_filter,
    decode,
    encode_bind,
    encode_search,
    encode_start_tls,
    encode_unbind,
    escaped,
    message_length,
)
from tests.auth.ldap import asn1
from tests.auth.ldap.asn1 import Tree, filter_of, request_of, search_of, tlv

TEMPLATES = [
    *sorted({flavour.user_filter for flavour in FLAVOURS.values()}),
    "(|(uid={username})(mail={username}@example.org))",
    "(&(objectClass=person)(!(uid={username})))",
    "( &\n  (uid={username})\n  (!( |(a=b)(c=d) )) )",
    "(uid:caseExactMatch:={username})",
    "(cn=*{username}*)",
    "(uid>={username})",
]
# Case 49, and what else has a meaning in a filter, in a DN, in C or in an encoding.
NAMES = [
    "*",
    "a*",
    "*)(uid=*",
    "a)(|(cn=*",
    "\\2a",
    "a\\00b",
    "a\0b",
    "(",
    ")",
    "\\",
    "\\\\5c",
    " alice",
    "alice ",
    "&(a=b)",
    "!",
    "cn=alice,dc=x",
    "jos\u00e9",
    "\u6f22\u5b57",
    "\U0001f511",
    "\x7f\x80",
    "a" * 255,
]

numbers = st.integers(0, 2**31 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=40)
descriptions = st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,20}(;[a-z0-9-]{1,8})?", fullmatch=True)
attributes = st.dictionaries(descriptions, st.lists(st.binary(max_size=200), max_size=5), max_size=5).filter(
    lambda found: len({name.lower() for name in found}) == len(found)
)
codes = st.sampled_from(
    [0, *ResultCode, 2, 7, 16, 21, 34, 48, 64, 68, 71, 80]
)  # those that the grammar of ldap3 has names for


# ---- requests


@given(st.sampled_from(TEMPLATES), texts.filter(bool))
@pytest.mark.parametrize("name", [None, *NAMES])
def test_the_filter_keeps_its_shape(name: str | None, template: str, drawn: str) -> None:
    """Whatever the name, it arrives octet by octet where the template has it, and changes nothing else (case 49)."""
    username = drawn if name is None else name
    sent = encode_search(1, Search("dc=x", template.replace("{username}", escaped(username)), (), 2))
    shape = filter_of(encode_search(1, Search("dc=x", template.replace("{username}", "alice"), (), 2)))
    assert _filled_in(shape, username.encode()) == filter_of(sent)


def _filled_in(tree: Tree, name: bytes) -> Tree:
    tag, contents = tree
    if isinstance(contents, bytes):
        return tag, contents.replace(b"alice", name)
    return tag, tuple(_filled_in(term, name) for term in contents)


@given(st.one_of(texts, st.binary(max_size=40)))
def test_escaped(value: str | bytes) -> None:
    """Nothing that means anything in a filter is left, and it reads as what was written (RFC 4515 section 3)."""
    text = escaped(value)
    assert text.isascii()
    assert set("()*\0&|!=<>~: ").isdisjoint(text)
    read = b"".join(
        bytes.fromhex(part[:2]) + part[2:].encode() if place else part.encode()
        for place, part in enumerate(text.split("\\"))
    )
    assert (value.encode() if isinstance(value, str) else value) == read


@pytest.mark.parametrize(
    ("value", "text"),
    [("alice", "alice"), ("a.b-c_d@e", "a.b-c_d@e"), ("a*", "a\\2a"), ("\u00e9", "\\c3\\a9"), (b"\xff\0", "\\ff\\00")],
)
def test_escaped_is_readable(value: str | bytes, text: str) -> None:
    """What is harmless stays as it is, for whoever reads the directory's log."""
    assert text == escaped(value)


@given(numbers, texts, st.integers(0, 1000), st.booleans(), st.lists(descriptions, max_size=4))
def test_search_request(number: int, base: str, size: int, subtree: bool, names: list[str]) -> None:
    """All of a search arrives, and no server is asked to follow an alias."""
    data = encode_search(number, Search(base, "(uid=a)", tuple(names), size, subtree), size + 1)
    search = search_of(data)
    assert (str(search["baseObject"]), int(search["scope"])) == (base, 2 if subtree else 0)
    assert (int(search["derefAliases"]), bool(search["typesOnly"])) == (0, False)
    assert (int(search["sizeLimit"]), int(search["timeLimit"])) == (size, size + 1)
    assert (names or ["1.1"]) == [str(name) for name in search["attributes"]]
    assert message_length(data) == len(data)


def test_search_request_by_default() -> None:
    """Everything below the base, and no time limit but our own: a server's would be an answer like any other."""
    search = search_of(encode_search(1, Search("dc=x", "(uid=a)", (), 2)))
    assert (int(search["scope"]), int(search["timeLimit"])) == (2, 0)


@given(numbers, texts.filter(bool), st.binary(min_size=1, max_size=300))
@example(1, "cn=a", b"\xef\xac\x81\xe2\x80\x8b\xc2\xad")  # of which SASLprep makes "fi"
def test_bind_request(number: int, dn: str, password: bytes) -> None:
    """A simple bind, LDAP 3, with the very octets of the password."""
    sent, bind = request_of(encode_bind(number, dn, password))
    assert (sent, int(bind["version"]), str(bind["name"])) == (number, 3, dn)
    assert bind["authentication"].getName() == "simple"
    assert password == bytes(bind["authentication"]["simple"])


@pytest.mark.parametrize(("dn", "password"), [("", b"x"), ("cn=a", b""), ("", b"")])
def test_no_anonymous_bind(dn: str, password: bytes) -> None:
    """A server says yes to a bind without name or without password (case 47; RFC 4513 sections 5.1.1 and 5.1.2)."""
    with pytest.raises(ValueError, match="name and a password"):
        encode_bind(1, dn, password)


def test_start_tls_and_unbind() -> None:
    """RFC 4511 sections 4.14.1 and 4.3."""
    number, start = request_of(encode_start_tls(7))
    assert (number, str(start["requestName"])) == (7, "1.3.6.1.4.1.1466.20037")
    assert not start["requestValue"].hasValue()
    assert encode_unbind(8) == b"\x30\x05\x02\x01\x08\x42\x00"


# ---- filters of the settings


@pytest.mark.parametrize(
    "text",
    [
        "(uid=alice)",
        "(objectClass=*)",
        "(&(a=b)(|(c=d)(!(e=f))))",
        "(a=*b*c*)",
        "(a~=b)",
        "(a>=b)",
        "(a=)",
        "(a:=b)",
        "(a:dn:1.2.840:=b)",
        "(:1.2.840:=b)",
        "(a=\\2A\\28)",
        " (a=b) ",
    ],
)
def test_filters(text: str) -> None:
    """What RFC 4515 calls a filter."""
    check_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uid=alice",
        "()",
        "(uid)",
        "(uid=alice",
        "uid=alice)",
        "((uid=alice))",
        "(a=b)(c=d)",
        "(a=b))((c=d)",
        "(&(a=b)))(|(c=d)",
        "(!(a=b)(c=d))",
        "(!)",
        "(:dn:=b)",
        "(a:b:c:=d)",
        "(a=**)",
        "(a=\\2)",
        "(a=\\zz)",
        "(a=\\)",
        "(a=\\+5)",
        "(a=\ud800)",
        "(" * 3000 + "a=b" + ")" * 3000,
        "(!" * 3000 + "(a=b)" + ")" * 3000,
    ],
)
def test_no_filters(text: str) -> None:
    """A mistake in a filter is found when the settings are read, not by the first user."""
    with pytest.raises(ValueError, match=r"filter|surrogates"):
        check_filter(text)


@given(st.text("()&|!=*\\a2f:~<> -\u00e9\0", max_size=16), st.booleans())
def test_any_text_as_filter(text: str, in_parentheses: bool) -> None:
    """A filter that can be sent, or a ValueError."""
    text = f"({text})" if in_parentheses else text
    try:
        check_filter(text)
    except ValueError:
        return
    assert filter_of(encode_search(1, Search("", text, (), 1)))


# ---- answers


@given(numbers, texts, attributes)
def test_entry(number: int, dn: str, written: dict[str, list[bytes]]) -> None:
    """An entry as pyasn1 writes it reads as it was; attributes are found in any case."""
    data = asn1.entry(number, dn, written)
    message = decode(data)
    assert (message.number, message.tag, message_length(data)) == (number, 0x64, len(data))
    assert isinstance(message.answer, Entry)
    assert dn == message.answer.dn
    assert {name.lower(): tuple(values) for name, values in written.items()} == message.answer.attributes
    for name, values in written.items():
        assert tuple(values) == message.answer.values(name.upper()) == message.answer.values(name.lower())
    assert message.answer.values("absent") == ()


@given(numbers, codes, texts, texts, st.lists(texts.filter(bool), max_size=3))
def test_result(number: int, code: int, matched: str, diagnostic: str, referrals: list[str]) -> None:
    """Ends of searches, binds and extended operations, with whatever they carry besides."""
    answer = Result(code, diagnostic)
    done = asn1.result(number, code, matched, diagnostic, referrals=referrals)
    bound = asn1.bind_response(number, code, matched, diagnostic, referrals=referrals, sasl=matched.encode())
    assert decode(done) == Message(number, 0x65, answer)
    assert decode(bound) == Message(number, 0x61, answer)
    assert decode(asn1.extended(number, code, matched, diagnostic, "1.2.3")) == Message(number, 0x78, answer)


def test_other_answers() -> None:
    """A reference, an intermediate response (RFC 4511 section 4.13), and controls behind an answer."""
    assert decode(asn1.reference(3, "ldap://a", "ldap://b")) == Message(3, 0x73, Reference())
    assert decode(tlv(0x30, b"\x02\x01\x03" + tlv(0x79, b""))) == Message(3, 0x79, None)
    controls = tlv(0xA0, tlv(0x30, tlv(4, b"1.2.840.113556.1.4.319")))
    assert decode(tlv(0x30, _inside(asn1.result(3, 0)) + controls)) == Message(3, 0x65, Result(0))


def test_lengths_in_any_form() -> None:
    """Active Directory writes every length in five bytes."""
    values = tlv(0x31, tlv(4, b"alice", 4), 4)
    attribute = tlv(0x30, tlv(4, b"uid", 4) + values, 4)
    found = tlv(0x64, tlv(4, b"cn=a", 4) + tlv(0x30, attribute, 4), 4)
    data = tlv(0x30, tlv(2, b"\1", 4) + found, 4)
    assert decode(data) == Message(1, 0x64, Entry("cn=a", {"uid": (b"alice",)}))


SAMPLES = {
    "entry": asn1.entry(2, "cn=a,dc=x", {"uid": [b"alice", b"al"], "objectClass": [], "cn": [b"\xff" * 128]}),
    "result": asn1.result(2, 49, "dc=x", "no", referrals=["ldap://b"]),
    "bind": asn1.bind_response(2, 49, "", "80090308: data 52e", sasl=b"x"),
    "extended": asn1.extended(0, 52, "", "bye", "1.3.6.1.4.1.1466.20036"),
    "reference": asn1.reference(2, "ldap://b/dc=x??sub"),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_every_byte_changed(kind: str) -> None:
    """Each byte of a message changed to each other value, lost, or doubled: a message or a BerError, nothing else."""
    data = SAMPLES[kind]
    outcomes = set()
    for place in range(len(data)):
        changed = [data[:place] + bytes([value]) + data[place + 1 :] for value in range(256)]
        for other in (
            *changed,
            data[:place] + data[place + 1 :],
            data[:place] + data[place : place + 1] + data[place:],
        ):
            outcomes.add(_outcome(other))
    assert outcomes == {Message, BerError}


@pytest.mark.parametrize("kind", SAMPLES)
def test_every_prefix(kind: str) -> None:
    """A message is one when it has come whole, and with nothing behind it."""
    data = SAMPLES[kind]
    for end in range(len(data)):
        length = message_length(data[:end])
        assert length in (None, len(data))
        assert _outcome(data[:end]) is BerError
    assert _outcome(data + b"\0") is BerError


@given(st.binary(max_size=80))
@example(b"")
@example(b"\x30\x80\0\0")
@example(b"\x30\0")
def test_any_bytes(data: bytes) -> None:
    """Whatever a server sends is a message or a BerError (case 59: garbage)."""
    assert _outcome(data) in (Message, BerError)
    try:
        length = message_length(data)
    except BerError:
        assert _outcome(data) is BerError
    else:
        assert length is None or length >= 2


@given(st.integers(0, 255), st.binary(max_size=60))
def test_any_bytes_inside(tag: int, contents: bytes) -> None:
    """The same behind a right beginning."""
    assert _outcome(tlv(0x30, b"\x02\x01\x05" + tlv(tag, contents))) in (Message, BerError)


def _outcome(data: bytes) -> Any:
    try:
        return type(decode(data))
    except BerError:
        return BerError


def _inside(message: bytes) -> bytes:
    return message[2:]


OK = b"\x0a\x01\0\x04\0\x04\0"
UID = tlv(0x30, tlv(4, b"uid") + tlv(0x31, tlv(4, b"a")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tlv(0x31, b"\x02\x01\x01" + tlv(0x65, OK)), "no LDAP message"),
        (tlv(0x30, b""), "ends within"),
        (tlv(0x30, b"\x02\x01\x01"), "too few or too many"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x65, OK) + b"\xa0\0" * 2), "too few or too many"),
        (tlv(0x30, b"\x0a\x01\x01" + tlv(0x65, OK)), "tag 0xa where 0x2"),
        (tlv(0x30, b"\x02\x05\0\0\0\0\x01" + tlv(0x65, OK)), "integer"),
        (tlv(0x30, b"\x02\0" + tlv(0x65, OK)), "integer"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x60, OK)), "unknown kind"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x65, OK[:-2])), "ends within"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x65, b"\x02\x01\0\x04\0\x04\0")), "where 0xa"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x65, OK + b"\xa3\x05")), "beyond"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x64, tlv(4, b"\xff") + tlv(0x30, b""))), "no UTF-8"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x64, tlv(4, b"") + tlv(0x30, b"") + b"\x05\0")), "too many parts"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x64, tlv(4, b"") + tlv(0x30, UID + UID.upper()))), "twice"),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x64, tlv(4, b"") + tlv(0x30, tlv(0x31, b"")))), "attribute that is none"),
        (
            tlv(
                0x30, b"\x02\x01\x01" + tlv(0x64, tlv(4, b"") + tlv(0x30, tlv(0x30, tlv(4, b"\xff") + tlv(0x31, b""))))
            ),
            "no UTF-8",
        ),
        (
            tlv(
                0x30,
                b"\x02\x01\x01" + tlv(0x64, tlv(4, b"") + tlv(0x30, tlv(0x30, tlv(4, b"a") + tlv(0x31, tlv(2, b"1"))))),
            ),
            "values that are none",
        ),
        (
            tlv(
                0x30,
                b"\x02\x01\x01"
                + tlv(0x64, tlv(4, b"") + tlv(0x30, tlv(0x30, tlv(4, b"a") + tlv(0x31, b"") + b"\5\0"))),
            ),
            "values that are none",
        ),
    ],
)
def test_refused(data: bytes, message: str) -> None:
    """What breaks RFC 4511 is an error that says how; an attribute that came twice would leave us the choice."""
    with pytest.raises(BerError, match=message):
        decode(data)


@pytest.mark.parametrize("first", sorted(set(range(256)) - {0x30}))
def test_no_message_by_its_first_byte(first: int) -> None:
    """An HTTP or TLS server is found out at once, not after a length that means nothing."""
    with pytest.raises(BerError, match="no LDAP message"):
        message_length(bytes([first]))
    assert message_length(b"") is None
    assert message_length(b"\x30") is None


def test_message_of_100_mib() -> None:
    """Refused by its first six bytes (case 59); a mebibyte is taken."""
    assert MESSAGE_BYTES_MAX == 1_048_576
    with pytest.raises(BerError, match="announced"):
        message_length(b"\x30\x84" + (100 << 20).to_bytes(4, "big"))
    assert message_length(b"\x30\x84" + (MESSAGE_BYTES_MAX - 6).to_bytes(4, "big")) == MESSAGE_BYTES_MAX


def test_nested_deeply() -> None:
    """Depth costs nothing: what we do not know we do not enter."""
    nested = b""
    while len(nested) < 100_000:
        nested = tlv(0x30, nested, 4)
    assert _outcome(tlv(0x30, b"\x02\x01\x01" + tlv(0x79, nested, 4), 4)) is Message
    assert _outcome(tlv(0x30, b"\x02\x01\x01" + nested, 4)) is BerError
    assert _outcome(nested) is BerError


@pytest.mark.parametrize(
    ("data", "bytes_each"),
    [
        (tlv(0x30, b"\x02\x01\x01" + b"\x05\0" * 60_000, 4), 8),
        (tlv(0x30, b"\x02\x01\x01" + tlv(0x65, OK + b"\x04\0" * 60_000, 4), 4), 8),
        (
            tlv(
                0x30,
                b"\x02\x01\x01"
                + tlv(0x64, tlv(4, b"") + tlv(0x30, tlv(0x30, tlv(4, b"a") + tlv(0x31, b"\4\0" * 60_000, 4), 4), 4), 4),
                4,
            ),
            64,
        ),
    ],
    ids=["parts", "referrals", "values"],
)
def test_memory(data: bytes, bytes_each: int) -> None:
    """A message of very many very small parts takes memory in proportion to its bytes."""
    tracemalloc.start()
    try:
        assert _outcome(data) in (Message, BerError)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bytes_each * len(data)


# ---- results in words


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (Result(0), "success (0)"),
        (Result(49, "no\nway\x1b[31m\u202e"), "invalidCredentials (49): no?way?[31m?"),
        (Result(-1, "x"), "unknown result (-1): x"),
        (Result(4711), "unknown result (4711)"),
        (Result(52, "x" * 10_000), f"unavailable (52): {'x' * 200}"),
    ],
)
def test_result_in_words(result: Result, words: str) -> None:
    """For a log: one line, no control characters, not endless."""
    assert words == str(result)


def test_codes() -> None:
    """The numbers of RFC 4511 appendix A, by another's table of them."""
    names = {name.upper().replace("_", "") for name in ResultCode.__members__}
    theirs = {code: name.upper() for code, name in RESULT_CODES.items() if name.upper() in names}
    assert theirs == {int(code): code.name.replace("_", "") for code in ResultCode}


def test_busy() -> None:
    """Success and refusals are the same everywhere; only these make us ask another server."""
    assert {3, 11, 51, 52} == BUSY_CODES
