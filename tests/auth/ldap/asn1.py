"""The oracle: LDAP messages written and read by pyasn1, by the grammar of RFC 4511 that comes with ldap3."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ldap3.protocol import rfc4511
from pyasn1.codec.ber import decoder, encoder
from pyasn1.type import namedtype, univ

__all__ = [
    "Tree",
    "bind_response",
    "entry",
    "entry_of",
    "extended",
    "filter_of",
    "reference",
    "request_of",
    "result",
    "search_of",
    "tlv",
]

Tree: TypeAlias = tuple[int, Any]  # a tag, and what is in it: bytes or more of these


class _Search(univ.Sequence):  # type: ignore[misc]
    """As ldap3 has it, but for the filter: pyasn1 cannot read one that holds another."""

    tagSet = rfc4511.SearchRequest.tagSet  # noqa: N815 - pyasn1's name
    componentType = namedtype.NamedTypes(  # noqa: N815 - pyasn1's name
        *(
            namedtype.NamedType("filter", univ.Any()) if field.name == "filter" else field
            for field in rfc4511.SearchRequest.componentType.namedTypes
        )
    )


class _Message(univ.Sequence):  # type: ignore[misc]
    componentType = namedtype.NamedTypes(  # noqa: N815 - pyasn1's name
        namedtype.NamedType("messageID", rfc4511.MessageID()), namedtype.NamedType("searchRequest", _Search())
    )


class _Found(univ.Sequence):  # type: ignore[misc]
    """A message with an entry, and with controls that nobody looks at."""

    componentType = namedtype.NamedTypes(  # noqa: N815 - pyasn1's name
        namedtype.NamedType("messageID", univ.Integer()),
        namedtype.NamedType("found", rfc4511.SearchResultEntry()),
        namedtype.OptionalNamedType("controls", univ.Any()),
    )


def tlv(tag: int, contents: bytes, length_bytes: int = 0) -> bytes:
    """An element; its length in so many bytes behind the first, 0 for the short form."""
    size = len(contents)
    head = bytes([size]) if not length_bytes else bytes([0x80 + length_bytes]) + size.to_bytes(length_bytes, "big")
    return bytes([tag]) + head + contents


# ---- answers, as a server writes them


def entry(number: int, dn: str, attributes: Mapping[str, Sequence[bytes]]) -> bytes:
    """An entry that a search has found."""
    answer = rfc4511.SearchResultEntry()
    answer["object"] = dn
    listed = rfc4511.PartialAttributeList()
    for place, (name, values) in enumerate(attributes.items()):
        attribute = rfc4511.PartialAttribute()
        attribute["type"] = name
        attribute["vals"] = rfc4511.Vals()
        attribute["vals"].extend(values)
        listed[place] = attribute
    answer["attributes"] = listed
    return _encoded(number, "searchResEntry", answer)


def entry_of(data: bytes) -> tuple[str, dict[str, tuple[bytes, ...]]]:
    """Name and attributes (lower case) of an entry, for whoever has found out that it is one."""
    message, _ = decoder.decode(data, asn1Spec=_Found())
    found = message["found"]
    return str(found["object"]), {
        str(attribute["type"]).lower(): tuple(bytes(value) for value in attribute["vals"])
        for attribute in found["attributes"]
    }


def result(number: int, code: int, matched: str = "", diagnostic: str = "", *, referrals: Sequence[str] = ()) -> bytes:
    """The end of a search."""
    return _encoded(number, "searchResDone", _filled(rfc4511.SearchResultDone(), code, matched, diagnostic, referrals))


def bind_response(
    number: int, code: int, matched: str = "", diagnostic: str = "", *, referrals: Sequence[str] = (), sasl: bytes = b""
) -> bytes:
    """The answer to a bind."""
    answer = _filled(rfc4511.BindResponse(), code, matched, diagnostic, referrals)
    if sasl:
        answer["serverSaslCreds"] = sasl
    return _encoded(number, "bindResponse", answer)


def extended(number: int, code: int, matched: str = "", diagnostic: str = "", name: str = "") -> bytes:
    """The answer to StartTLS, or a farewell."""
    answer = _filled(rfc4511.ExtendedResponse(), code, matched, diagnostic, ())
    if name:
        answer["responseName"] = name
    return _encoded(number, "extendedResp", answer)


def reference(number: int, *urls: str) -> bytes:
    """More may be elsewhere."""
    answer = rfc4511.SearchResultReference()
    answer.extend(urls)
    return _encoded(number, "searchResRef", answer)


def _filled(answer: Any, code: int, matched: str, diagnostic: str, referrals: Sequence[str]) -> Any:
    answer["resultCode"] = code
    answer["matchedDN"] = matched
    answer["diagnosticMessage"] = diagnostic
    if referrals:
        answer["referral"] = rfc4511.Referral()
        answer["referral"].extend(referrals)
    return answer


def _encoded(number: int, kind: str, answer: Any) -> bytes:
    message = rfc4511.LDAPMessage()
    message["messageID"] = number
    message["protocolOp"] = rfc4511.ProtocolOp().setComponentByName(kind, answer)
    data: bytes = encoder.encode(message)
    return data


# ---- requests, as a server reads them


def request_of(data: bytes) -> tuple[int, Any]:
    """Number and contents of a request."""
    message, rest = decoder.decode(data, asn1Spec=rfc4511.LDAPMessage())
    assert not rest
    return int(message["messageID"]), message["protocolOp"].getComponent()


def search_of(data: bytes) -> Any:
    """Contents of a search request, but its filter as it was encoded."""
    message, rest = decoder.decode(data, asn1Spec=_Message())
    assert not rest
    return message["searchRequest"]


def filter_of(data: bytes) -> Tree:
    """The filter of a search request."""
    (tree,) = _trees(bytes(search_of(data)["filter"]))
    return tree


def _trees(data: bytes) -> Iterator[Tree]:
    while data:
        header = 2 if data[1] < 0x80 else 2 + (data[1] & 0x7F)
        size = data[1] if header == 2 else int.from_bytes(data[2:header], "big")
        contents, tag = data[header : header + size], data[0]
        assert len(contents) == size
        yield (tag, tuple(_trees(contents)) if tag & 0x20 else contents)
        data = data[header + size :]
