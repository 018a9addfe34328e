"""Whether an account is disabled, locked or expired, by the attributes that directories say it with.

A right password is not enough: a directory may accept the bind of an account that is over (CVE-2025-2291 was a pooler
that did not ask).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import attrs

from auth.backend import Cause, Rejection
from auth.ldap.failure import DirectoryError
from auth.ldap.messages import Entry

__all__ = ["KNOWN_STATUS_ATTRIBUTES", "Status", "status_of"]

_TIME: Final = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)([0-5]\d)?([0-5]\d|60)?(?:[.,](\d+))?(?:Z|([+-])([01]\d|2[0-3])([0-5]\d)?)", re.ASCII
)
_NUMBER: Final = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)  # RFC 4517 section 3.3.16; int() takes "1_0" and " +1" too
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FILETIME_EPOCH: Final = datetime(1601, 1, 1, tzinfo=UTC)
_FILETIME_LAST: Final = datetime.max.replace(tzinfo=UTC) - _FILETIME_EPOCH
_FILETIME_MAX: Final = 0x7FFF_FFFF_FFFF_FFFF
_FILETIME_NEVER: Final = (0, _FILETIME_MAX)

_ACCOUNT_DISABLED: Final = 0x2  # userAccountControl, ADS_USER_FLAG_ENUM
_LOCKED_OUT: Final = 0x10
_PASSWORD_EXPIRED: Final = 0x80_0000


@attrs.frozen
class Status:
    """What the flags say.

    Attributes:
        refusal: why the account gives no access; None: it does.
        why: the attribute that says so, and its value.
        valid_until: when it will be over, if that is known.
    """

    refusal: Rejection | None = None
    why: str = ""
    valid_until: datetime | None = None


_Reader: TypeAlias = Callable[[str, datetime], Status]

_FINE: Final = Status()


def status_of(entry: Entry, attributes: Iterable[str], now: datetime) -> Status:
    """Read the flags.

    Raises:
        DirectoryError: a flag has a value that nobody understands; that lets nobody in.
    """
    until: list[datetime] = []
    for name in attributes:
        reader = _READERS[name.lower()]
        for value in entry.values(name):
            try:
                status = reader(value.decode("ascii"), now)
            except (ValueError, OverflowError):
                raise DirectoryError(
                    f"{name} has a value that cannot be read",
                    Cause.AMBIGUOUS,
                    f"mend the entry, or leave {name} out of status_attributes",
                ) from None
            if status.refusal is not None:
                return attrs.evolve(status, why=f"{name} is {value.decode('ascii')}")
            if status.valid_until is not None:
                until.append(status.valid_until)
    return Status(valid_until=min(until, default=None))


def _locked(_text: str, _now: datetime) -> Status:
    # The moment of the lock, or 000001010000Z for good. It is removed when the lock is over.
    return Status(Rejection.DISABLED)


def _flag(refusal: Rejection) -> _Reader:
    def read(text: str, _now: datetime) -> Status:
        if text.upper() not in ("TRUE", "FALSE"):
            raise ValueError
        return Status(refusal) if text.upper() == "TRUE" else _FINE

    return read


def _bits(refusals: Mapping[int, Rejection]) -> _Reader:
    def read(text: str, _now: datetime) -> Status:
        bits = _number(text)
        return next((Status(refusal) for bit, refusal in refusals.items() if bits & bit), _FINE)

    return read


def _not_before(text: str, now: datetime) -> Status:
    return Status(Rejection.EXPIRED) if now < _generalized_time(text) else _FINE


def _not_after(text: str, now: datetime) -> Status:
    return _until(_generalized_time(text), now)


def _days(text: str, now: datetime) -> Status:
    days = _number(text)
    return _FINE if days < 0 else _until(_EPOCH + timedelta(days=days), now)  # shadow(5): -1 is never


def _filetime(text: str, now: datetime) -> Status:
    ticks = _number(text)  # of 100 ns
    if ticks > _FILETIME_MAX:
        raise ValueError("no FILETIME")
    moment = timedelta(microseconds=ticks // 10)
    if ticks in _FILETIME_NEVER or moment > _FILETIME_LAST:
        return _FINE
    return _until(_FILETIME_EPOCH + moment, now)


def _must_change(text: str, _now: datetime) -> Status:
    return Status(Rejection.EXPIRED) if _number(text) == 0 else _FINE


def _until(moment: datetime, now: datetime) -> Status:
    return Status(Rejection.EXPIRED) if now >= moment else Status(valid_until=moment)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError("no number")
    return int(text)


def _generalized_time(text: str) -> datetime:
    """RFC 4517 section 3.3.13: up to a leap second, and with a fraction of what stands last.

    Raises:
        ValueError: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("no generalized time")
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = found.groups()
    unit_s = 1 if second else 60 if minute else 3600
    seconds = timedelta(seconds=int(second or 0) + unit_s * float(f"0.{fraction or 0}"))
    offset = timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0))
    moment = datetime(int(year), int(month), int(day), int(hour), int(minute or 0), tzinfo=UTC)
    return moment + seconds + (offset if sign == "-" else -offset)


# By the lower-case name.
_READERS: Final[Mapping[str, _Reader]] = {
    "pwdaccountlockedtime": _locked,  # OpenLDAP, draft-behera-ldap-password-policy
    "pwdreset": _flag(Rejection.EXPIRED),
    "pwdstarttime": _not_before,
    "pwdendtime": _not_after,
    "shadowexpire": _days,  # RFC 2307
    "useraccountcontrol": _bits({_ACCOUNT_DISABLED: Rejection.DISABLED}),  # Active Directory
    "msds-user-account-control-computed": _bits(
        {_LOCKED_OUT: Rejection.DISABLED, _PASSWORD_EXPIRED: Rejection.EXPIRED}
    ),
    "accountexpires": _filetime,
    "pwdlastset": _must_change,
    "nsaccountlock": _flag(Rejection.DISABLED),  # 389 Directory Server, FreeIPA
    "krbprincipalexpiration": _not_after,
    "krbpasswordexpiration": _not_after,
}

KNOWN_STATUS_ATTRIBUTES: Final = (
    "pwdAccountLockedTime",
    "pwdReset",
    "pwdStartTime",
    "pwdEndTime",
    "shadowExpire",
    "userAccountControl",
    "msDS-User-Account-Control-Computed",
    "accountExpires",
    "pwdLastSet",
    "nsAccountLock",
    "krbPrincipalExpiration",
    "krbPasswordExpiration",
)
