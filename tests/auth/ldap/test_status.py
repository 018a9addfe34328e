"""Flags of an account, at their edges."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.backend import Cause, Rejection
from auth.ldap.failure import DirectoryError
from auth.ldap.flavours import FLAVOURS
from auth.ldap.messages import Entry
from auth.ldap.status import KNOWN_STATUS_ATTRIBUTES, Status, status_of
from tests.auth.doubles import NOW

TICK = timedelta(microseconds=1)
FINE = Status()
FILETIME_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
NEVER = 0x7FFF_FFFF_FFFF_FFFF
TODAY = (NOW - datetime(1970, 1, 1, tzinfo=UTC)).days

TIMES = ["pwdStartTime", "pwdEndTime", "krbPrincipalExpiration", "krbPasswordExpiration"]
NUMBERS = ["userAccountControl", "msDS-User-Account-Control-Computed", "accountExpires", "pwdLastSet", "shadowExpire"]
FLAGS = ["pwdReset", "nsAccountLock"]


def status(name: str, *values: bytes | str | int, now: datetime = NOW) -> Status:
    """What an entry with this one flag says."""
    raw = tuple(value if isinstance(value, bytes) else str(value).encode() for value in values)
    return status_of(Entry("cn=a", {name.lower(): raw}), [name], now)


def reason(name: str, value: bytes | str | int, now: datetime = NOW) -> Rejection | None:
    """Why it refuses."""
    return status(name, value, now=now).refusal


def filetime(moment: datetime) -> int:
    """As Active Directory counts it: 100 ns since 1601."""
    return (moment - FILETIME_EPOCH) // timedelta(microseconds=1) * 10


def generalized(moment: datetime) -> str:
    """As RFC 4517 section 3.3.13 writes it, to the microsecond."""
    return f"{moment:%Y%m%d%H%M%S.%fZ}"


def refused_as_unreadable(name: str, value: bytes | str | int) -> None:
    """The value lets nobody in and shuts nobody out: it is an error that names the attribute and not the value."""
    with pytest.raises(DirectoryError, match=f"^{name} has a value that cannot be read$") as caught:
        status(name, value)
    assert caught.value.cause is Cause.AMBIGUOUS
    assert name in caught.value.advice


# ---- all of them


@pytest.mark.parametrize("name", KNOWN_STATUS_ATTRIBUTES)
def test_absent(name: str) -> None:
    """A flag that is not there says nothing."""
    assert status_of(Entry("cn=a", {}), [name], NOW) == FINE
    assert status(name) == FINE


@pytest.mark.parametrize("name", sorted(set(KNOWN_STATUS_ATTRIBUTES) - {"pwdAccountLockedTime"}))
@pytest.mark.parametrize(
    "value",
    ["", " ", "garbage", "1_0", " 1", "1 ", "+1", "01", "-0", "1.5", "0x2", "1e3", "\u0661", "\0", b"\xff", "9" * 5000],
)
def test_unreadable(name: str, value: str | bytes) -> None:
    """What nobody understands is never "fine" (case 56)."""
    refused_as_unreadable(name, value)


@pytest.mark.parametrize("value", ["", "000001010000Z", "20260601115959Z", "20990101000000Z", "garbage"])
def test_locked(value: str) -> None:
    """A lock is one as long as it is there, whatever it says (draft-behera-ldap-password-policy section 5.3.3)."""
    assert reason("pwdAccountLockedTime", value) is Rejection.DISABLED


def test_locked_in_no_language() -> None:
    """Even that is no way in."""
    refused_as_unreadable("pwdAccountLockedTime", b"\xff")


@given(st.sampled_from(KNOWN_STATUS_ATTRIBUTES), st.binary(max_size=25), st.datetimes(timezones=st.just(UTC)))
def test_any_value(name: str, value: bytes, now: datetime) -> None:
    """Any bytes: a status or a DirectoryError."""
    try:
        found = status(name, value, now=now)
    except DirectoryError:
        return
    assert (found.refusal is None) is (not found.why)
    assert found.valid_until is None or now < found.valid_until


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_flavours(flavour: str) -> None:
    """Every default is known, in any case."""
    names = FLAVOURS[flavour].status_attributes
    assert names
    assert set(names) <= set(KNOWN_STATUS_ATTRIBUTES)
    assert status_of(Entry("cn=a", {}), [name.upper() for name in names], NOW) == FINE


# ---- truth values


@pytest.mark.parametrize(("name", "refusal"), [("pwdReset", Rejection.EXPIRED), ("nsAccountLock", Rejection.DISABLED)])
def test_flags(name: str, refusal: Rejection) -> None:
    """TRUE and FALSE; 389 Directory Server writes them in small letters."""
    assert [refusal] * 3 == [reason(name, value) for value in ("TRUE", "true", "True")]
    assert [reason(name, value) for value in ("FALSE", "false", "False")] == [None] * 3


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", ["1", "0", "yes", "no", "TRUE ", " FALSE", "FALSE\0", "T", "FALSCH", "\u017false"])
def test_flags_refuse(name: str, value: str) -> None:
    """No other word is one."""
    refused_as_unreadable(name, value)


# ---- Active Directory


@pytest.mark.parametrize(
    ("name", "value", "refusal"),
    [
        ("userAccountControl", 512, None),
        ("userAccountControl", 514, Rejection.DISABLED),
        ("userAccountControl", 66050, Rejection.DISABLED),
        ("userAccountControl", 66048, None),
        ("userAccountControl", 0, None),
        ("userAccountControl", 2, Rejection.DISABLED),
        ("userAccountControl", 0x10 | 0x80_0000, None),  # elsewhere these say something
        ("userAccountControl", -1, Rejection.DISABLED),
        ("userAccountControl", -2147483648 | 0x2, Rejection.DISABLED),
        ("userAccountControl", -2147483648, None),
        ("userAccountControl", 1 << 40 | 0x200, None),
        ("msDS-User-Account-Control-Computed", 0, None),
        ("msDS-User-Account-Control-Computed", 0x10, Rejection.DISABLED),
        ("msDS-User-Account-Control-Computed", 0x80_0000, Rejection.EXPIRED),
        ("msDS-User-Account-Control-Computed", 0x80_0010, Rejection.DISABLED),
        ("msDS-User-Account-Control-Computed", 0x2, None),
        ("msDS-User-Account-Control-Computed", -2139095040, Rejection.EXPIRED),
        ("pwdLastSet", 0, Rejection.EXPIRED),
        ("pwdLastSet", 1, None),
        ("pwdLastSet", -1, None),
        ("pwdLastSet", 133612345678901234, None),
    ],
)
def test_bits_and_must_change(name: str, value: int, refusal: Rejection | None) -> None:
    """The bits that we know, of a signed number, among others that we do not (ADS_USER_FLAG_ENUM; case 56)."""
    found = status(name, value)
    assert found.refusal is refusal
    assert found.why == ("" if refusal is None else f"{name} is {value}")


@given(st.integers(-(2**31), 2**31 - 1))
def test_every_number_has_its_bits(value: int) -> None:
    """As a 32-bit number of either sign."""
    bits = value & 0xFFFF_FFFF
    assert (reason("userAccountControl", value) is not None) is bool(bits & 2)
    assert (reason("msDS-User-Account-Control-Computed", value) is not None) is bool(bits & 0x80_0010)


@pytest.mark.parametrize("value", [0, NEVER, NEVER - 1, 9223372032559808512])
def test_account_never_expires(value: int) -> None:
    """The two words for never, and moments beyond the year 9999, which come from Samba."""
    assert status("accountExpires", value) == FINE


@pytest.mark.parametrize(
    ("moment", "refusal"),
    [
        (NOW - TICK, Rejection.EXPIRED),
        (NOW, Rejection.EXPIRED),
        (NOW + TICK, None),
        (datetime(1601, 1, 1, 0, 0, 1, tzinfo=UTC), Rejection.EXPIRED),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), None),
    ],
)
def test_account_expires(moment: datetime, refusal: Rejection | None) -> None:
    """From the very moment on; until then the answer says when (case 41)."""
    found = status("accountExpires", filetime(moment))
    assert found.refusal is refusal
    assert found.valid_until == (moment if refusal is None else None)


@pytest.mark.parametrize(
    ("ticks", "refusal"), [(-1, Rejection.EXPIRED), (0, Rejection.EXPIRED), (9, Rejection.EXPIRED)]
)
def test_account_expires_by_single_ticks(ticks: int, refusal: Rejection) -> None:
    """What is less than a microsecond is on the safe side."""
    assert reason("accountExpires", filetime(NOW) + ticks) is refusal


@pytest.mark.parametrize("value", [NEVER + 1, 9999999999999999999, 10**19, 10**30, -(2**63)])
def test_account_expires_refuses(value: int) -> None:
    """No 64-bit number, or a moment before there were any."""
    refused_as_unreadable("accountExpires", value)


def test_account_expired_before_the_epoch() -> None:
    """Negative is long ago, not never."""
    assert reason("accountExpires", -1) is Rejection.EXPIRED


# ---- days


@pytest.mark.parametrize(
    ("days", "refusal"),
    [
        (-1, None),
        (-99999, None),
        (0, Rejection.EXPIRED),
        (1, Rejection.EXPIRED),
        (TODAY - 1, Rejection.EXPIRED),
        (TODAY, Rejection.EXPIRED),
        (TODAY + 1, None),
        (99999, None),
        (2932896, None),
    ],
)
def test_shadow_expire(days: int, refusal: Rejection | None) -> None:
    """Over when the day begins (shadow(5)); -1 is never, and 0 the first day of 1970."""
    found = status("shadowExpire", days)
    assert found.refusal is refusal
    expected = None if refusal is not None or days < 0 else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days)
    assert found.valid_until == expected


@pytest.mark.parametrize("days", [2932897, 2147483647, 9999999999999999999])
def test_shadow_expire_refuses(days: int) -> None:
    """Beyond the year 9999 it is a mistake: seconds in place of days, say."""
    refused_as_unreadable("shadowExpire", days)


# ---- generalized times


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("20260601120000Z", NOW),
        ("202606011200Z", NOW),
        ("2026060112Z", NOW),
        ("20260601140000+0200", NOW),
        ("20260601140000+02", NOW),
        ("20260601063000-0530", NOW),
        ("20260602115900+2359", NOW),
        ("20260601120000+0000", NOW),
        ("20260601120000-00", NOW),
        ("20260601115959.999999Z", NOW - TICK),
        ("20260601120000.0Z", NOW),
        ("20260601120000,000001Z", NOW + TICK),
        ("202606011159.5Z", NOW - timedelta(seconds=30)),
        ("2026060111,75Z", NOW - timedelta(minutes=15)),
        ("2026060113.5+0200", NOW - timedelta(minutes=30)),
        ("20260601115960Z", NOW),
        ("20260601115960.5Z", NOW + timedelta(milliseconds=500)),
        ("20240229000000Z", datetime(2024, 2, 29, tzinfo=UTC)),
        ("00010101000000Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("99991231235959Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("20260601120000." + "0" * 10_000 + "Z", NOW),
    ],
)
def test_generalized_time(text: str, moment: datetime) -> None:
    """Zones, fractions of what stands last, leap seconds (RFC 4517 section 3.3.13); the moment itself is over."""
    for name in ("pwdEndTime", "krbPrincipalExpiration", "krbPasswordExpiration"):
        assert reason(name, text, moment) is Rejection.EXPIRED
        if moment > datetime(1, 1, 1, tzinfo=UTC):
            assert status(name, text, now=moment - TICK) == Status(valid_until=moment)
            assert reason("pwdStartTime", text, moment - TICK) is Rejection.EXPIRED
    assert status("pwdStartTime", text, now=moment) == FINE


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(
    "text",
    [
        "20260601120000",
        "20260601120000z",
        "20260601",
        "20260601Z",
        "20261301120000Z",
        "20260631120000Z",
        "20260229000000Z",
        "20260600120000Z",
        "20260601240000Z",
        "20260601126000Z",
        "20260601120061Z",
        "20260601120000.Z",
        "20260601120000.5",
        "20260601120000+2400",
        "20260601120000+0060",
        "20260601120000+2",
        "20260601120000+02:00",
        "20260601120000ZZ",
        "20260601120000Z\n",
        "2026-06-01T12:00:00Z",
        "00000101000000Z",
        "00010101000000+0001",
        "99991231235960Z",
        "99991231235959-0001",
        "99991231235959.99999999Z",
        "-20260601120000Z",
        "2026060112000\u0660Z",
    ],
)
def test_no_generalized_time(name: str, text: str) -> None:
    """No zone, no such day, a year that no clock has: unreadable, neither over nor not."""
    refused_as_unreadable(name, text)


@given(
    st.sampled_from(["pwdEndTime", "krbPrincipalExpiration", "krbPasswordExpiration", "accountExpires"]),
    st.datetimes(datetime(1700, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - Hypothesis adds UTC
    st.timedeltas(-timedelta(days=1), timedelta(days=1)),
)
def test_ends(name: str, moment: datetime, apart: timedelta) -> None:
    """Whoever comes before the end is let in until then, whoever comes later is not."""
    text = str(filetime(moment)) if name == "accountExpires" else generalized(moment)
    now = moment + apart
    expected = Rejection.EXPIRED if now >= moment else None
    found = status(name, text, now=now)
    assert (found.refusal, found.valid_until) == (expected, None if expected else moment)


# ---- several


def test_the_earliest_end_counts() -> None:
    """Of several ends, the first."""
    entry = Entry(
        "cn=a",
        {
            "krbprincipalexpiration": (b"20270101000000Z",),
            "krbpasswordexpiration": (b"20260701000000Z", b"20260801000000Z"),
            "nsaccountlock": (b"FALSE",),
            "shadowexpire": (b"99999",),
        },
    )
    names = FLAVOURS["rfc2307"].status_attributes
    assert status_of(entry, names, NOW) == Status(valid_until=datetime(2026, 7, 1, tzinfo=UTC))
    assert status_of(entry, ["nsAccountLock"], NOW) == FINE


@given(st.permutations(["FALSE", "TRUE", "FALSE"]), st.permutations(list(FLAVOURS["rfc2307"].status_attributes)))
def test_one_refusal_is_enough(values: list[str], names: list[str]) -> None:
    """Whatever the order of values and flags."""
    entry = Entry(
        "cn=a",
        {"nsaccountlock": tuple(value.encode() for value in values), "krbprincipalexpiration": (b"20990101000000Z",)},
    )
    found = status_of(entry, names, NOW)
    assert found == Status(Rejection.DISABLED, "nsAccountLock is TRUE")
