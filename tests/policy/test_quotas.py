"""Quotas: the calendar of real time zones, and accounts that forget nothing and give nothing twice. P7."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioproxy.policy.quotas import Delta, QuotaAccount, period_of
from trioproxy.policy.units import Period, Quota

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Kiritimati"),
    *("America/Sao_Paulo", "Africa/Cairo", "America/Havana", "Asia/Beirut"),  # no midnight on some days, or two
    *("America/Goose_Bay", "America/Toronto", "Pacific/Apia", "Pacific/Kwajalein"),  # back over midnight; skipped days
]
HOUR = timedelta(hours=1)

periods = st.sampled_from(Period)
zones = st.sampled_from(ZONES).map(ZoneInfo)
moments = st.one_of(
    st.integers(-2_208_900_000, 4_102_444_800).map(
        lambda seconds: datetime.fromtimestamp(seconds, UTC)
    ),  # 1900 to 2100
    st.builds(  # around changes of the clock
        lambda at, seconds: at + timedelta(seconds=seconds),
        st.sampled_from(
            [
                *(datetime(2010, 11, 7, hour, tzinfo=UTC) for hour in (2, 3, 4)),
                *(datetime(1919, 3, 31, hour, 30, tzinfo=UTC) for hour in (3, 4, 5)),
                datetime(2011, 12, 30, 10, tzinfo=UTC),
                datetime(1993, 8, 21, 12, tzinfo=UTC),
                datetime(2017, 10, 15, 3, tzinfo=UTC),
                datetime(2023, 4, 27, 22, tzinfo=UTC),
                datetime(2023, 11, 5, 5, tzinfo=UTC),
            ]
        ),
        st.integers(-7200, 7200),
    ),
)


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    """A moment by the clock on the wall."""
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@given(periods, moments, zones)
def test_a_moment_lies_in_its_period(period: Period, now_at: datetime, zone: ZoneInfo) -> None:
    """And every moment of a period has the same one."""
    begins_at, ends_at = period_of(period, now_at, zone)
    assert begins_at <= now_at < ends_at
    for same_at in (begins_at, ends_at - timedelta(microseconds=1), now_at.astimezone(zone)):
        assert period_of(period, same_at, zone) == (begins_at, ends_at)


@given(periods, moments, zones)
def test_periods_follow_each_other(period: Period, now_at: datetime, zone: ZoneInfo) -> None:
    """Where one ends the next one begins: no gap, no overlap."""
    begins_at, ends_at = period_of(period, now_at, zone)
    assert period_of(period, ends_at, zone)[0] == ends_at
    assert period_of(period, begins_at - timedelta(microseconds=1), zone)[1] == begins_at


@given(moments, zones)
def test_a_period_begins_with_a_new_date(now_at: datetime, zone: ZoneInfo) -> None:
    """Weeks on a Monday, months on the first; a second earlier it is another day."""
    for period in Period:
        begins_at, ends_at = period_of(period, now_at, zone)
        first, before = begins_at.astimezone(zone).date(), (begins_at - timedelta(seconds=1)).astimezone(zone).date()
        assert before < first
        if date(2011, 12, 20) < first < date(2012, 1, 3) or date(1993, 8, 15) < first < date(1993, 8, 31):
            continue  # Apia and Kwajalein skip a day, and it may be the first of a period
        assert first.weekday() == 0 or period is not Period.WEEK
        assert first.day == 1 or period is not Period.MONTH
        assert ends_at - begins_at <= timedelta(days=31, hours=25)


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2026-03-28", "Europe/Berlin", 24),
        ("2026-03-29", "Europe/Berlin", 23),
        ("2026-10-25", "Europe/Berlin", 25),
        ("2017-10-15", "America/Sao_Paulo", 23),
        ("2018-02-17", "America/Sao_Paulo", 25),
        ("2023-04-28", "Africa/Cairo", 23),
        ("2023-11-05", "America/Havana", 25),
        ("2023-04-02", "Australia/Lord_Howe", 24.5),
        ("1919-03-31", "America/Toronto", 23.5),
        ("2011-12-29", "Pacific/Apia", 24),
    ],
)
def test_days_are_as_long_as_their_clocks_say(day: str, zone: str, hours: float) -> None:
    """23 and 25 hours where the clock changes, also where that is at midnight."""
    begins_at, ends_at = period_of(Period.DAY, at(f"{day}T12:00", ZoneInfo(zone)), ZoneInfo(zone))
    assert ends_at - begins_at == hours * HOUR
    assert begins_at.tzinfo is ends_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("day", "zone", "begins"),
    [
        ("2017-10-15", "America/Sao_Paulo", "2017-10-15T03:00Z"),  # 01:00 there
        ("2023-04-28", "Africa/Cairo", "2023-04-27T22:00Z"),
        ("1919-03-31", "America/Toronto", "1919-03-31T04:30Z"),  # 23:30 became 00:30
        ("2010-11-07", "America/Goose_Bay", "2010-11-07T03:00Z"),  # the first of its two midnights
        ("2023-11-05", "America/Havana", "2023-11-05T04:00Z"),
        ("2011-12-31", "Pacific/Apia", "2011-12-30T10:00Z"),
    ],
)
def test_days_without_midnight_and_with_two(day: str, zone: str, begins: str) -> None:
    """A day begins with its first moment."""
    assert period_of(Period.DAY, at(f"{day}T12:00", ZoneInfo(zone)), ZoneInfo(zone))[0] == datetime.fromisoformat(
        begins
    )


def test_a_day_that_has_begun_goes_on() -> None:
    """One minute after midnight the clock is set back to 23:01: it is the day before once more, but not its quota."""
    zone = ZoneInfo("America/Goose_Bay")
    again_at = datetime(2010, 11, 7, 3, 30, tzinfo=UTC)
    assert again_at.astimezone(zone).day == 6
    for now_at in (again_at, again_at - HOUR / 2, again_at + HOUR):
        assert period_of(Period.DAY, now_at, zone)[0] == datetime(2010, 11, 7, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "now", "begins", "ends"),
    [
        (Period.DAY, "2026-07-01T00:00", "2026-07-01", "2026-07-02"),
        (Period.DAY, "2026-12-31T23:59:59", "2026-12-31", "2027-01-01"),
        (Period.WEEK, "2026-03-29T23:00", "2026-03-23", "2026-03-30"),
        (Period.WEEK, "2027-01-01T00:00", "2026-12-28", "2027-01-04"),
        (Period.MONTH, "2024-02-29T12:00", "2024-02-01", "2024-03-01"),
        (Period.MONTH, "2026-12-31T23:00", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "2026-01-31T23:00", "2026-01-01", "2026-02-01"),
    ],
)
def test_periods_of_the_calendar(period: Period, now: str, begins: str, ends: str) -> None:
    """Weeks from Monday to Monday, months of their own lengths, leap years, in the zone's own time."""
    assert period_of(period, at(now), BERLIN) == (at(begins).astimezone(UTC), at(ends).astimezone(UTC))


def test_a_moment_without_a_zone_is_refused() -> None:
    """Nobody knows which moment it is."""
    with pytest.raises(ValueError, match="time zone"):
        period_of(Period.DAY, datetime(2026, 1, 1), BERLIN)  # noqa: DTZ001 - that is the point


def day_account(size: int = 1_000) -> QuotaAccount:
    """A quota for each day in Berlin."""
    return QuotaAccount(Quota(size, Period.DAY), BERLIN)


def test_counts_down_and_begins_anew() -> None:
    """What flowed is used; at the end of the period there is a new quota, without anybody doing anything."""
    account = day_account()
    assert account.left(at("2026-10-25T01:00")) == 1_000
    assert account.charge(300, at("2026-10-25T02:30")) == 700
    assert account.charge(900, at("2026-10-25T23:59:59")) == 0
    assert account.used(at("2026-10-25T23:59:59")) == 1_200
    assert account.left(at("2026-10-26T00:00")) == 1_000
    assert account.charge(0, at("2026-10-26T00:00")) == 1_000


def test_a_quota_may_change() -> None:
    """More or less of it, from now on."""
    account, now_at = day_account(), at("2026-07-01T12:00")
    account.charge(600, now_at)
    account.quota = Quota(500, Period.DAY)
    assert account.left(now_at) == 0
    account.quota = Quota(5_000, Period.DAY)
    assert account.left(now_at) == 4_400


def test_a_clock_that_goes_back_gives_no_second_quota() -> None:
    """Over the border, back and over it again: each of the two days has one quota."""
    account = day_account()
    evening, morning = at("2026-07-01T23:00"), at("2026-07-02T01:00")
    account.charge(800, evening)
    account.charge(900, morning)
    assert account.left(evening) == 200
    account.charge(200, evening)
    assert account.left(morning) == 100
    assert account.left(evening) == 0


def test_a_clock_that_was_far_ahead_is_forgotten() -> None:
    """Years later and back: the present day goes on as it was."""
    account = day_account()
    now_at = at("2026-07-01T12:00")
    account.charge(800, now_at)
    for year in range(2030, 2040):
        account.charge(1_000, at(f"{year}-01-01T00:00"))
        assert account.left(now_at) == 200
        account.charge(0, now_at)
    assert len(account._used) <= 4


def test_what_is_stored_comes_back() -> None:
    """After a restart the account goes on from there; what belongs to another day is kept for that one."""
    account, now_at = day_account(), at("2026-07-01T12:00")
    begins_at, ends_at = account.period(now_at)
    account.restore(begins_at, 400)
    account.restore(begins_at - 24 * HOUR, 1_000)
    account.restore(ends_at.astimezone(BERLIN), 10)
    assert account.left(now_at) == 600
    assert account.left(now_at + 24 * HOUR) == 990
    assert account.take_deltas() == []


def test_deltas_are_by_period() -> None:
    """What was used before midnight and not stored yet is not lost behind it."""
    account = day_account()
    evening, morning = at("2026-07-01T23:00"), at("2026-07-02T01:00")
    account.charge(5, morning)
    account.charge(3, evening)
    account.charge(4, evening)
    deltas = account.take_deltas()
    assert deltas == [Delta(account.period(evening)[0], 7), Delta(account.period(morning)[0], 5)]
    assert account.take_deltas() == []
    account.charge(1, evening)
    account.put_back(deltas)
    assert account.take_deltas() == [Delta(account.period(evening)[0], 8), Delta(account.period(morning)[0], 5)]


def test_a_charge_is_never_negative() -> None:
    """Nobody gets bytes back."""
    with pytest.raises(ValueError, match="fewer than none"):
        day_account().charge(-1, at("2026-07-01T12:00"))


def test_sums_are_exact_and_never_wrap() -> None:
    """Beyond 64 bits too."""
    account, now_at = day_account(2**60), at("2026-07-01T12:00")
    for _ in range(5):
        account.charge(2**62 + 1, now_at)
    assert account.used(now_at) == 5 * 2**62 + 5
    assert account.left(now_at) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 2**40), st.integers(-40, 90), st.sampled_from("cccstp")),
        max_size=60,
    )
)
def test_processes_agree_after_flushing(events: list[tuple[int, int, int, str]]) -> None:
    """Two processes with deltas, whatever the clock does: what is stored is what was charged, and both learn it."""
    accounts = [day_account(2**50), day_account(2**50)]
    stored: dict[datetime, int] = {}
    charged: dict[datetime, int] = {}
    now_at = at("2026-03-27T12:00").astimezone(UTC)

    def flush(account: QuotaAccount) -> None:
        for delta in account.take_deltas():
            stored[delta.begins_at] = stored.get(delta.begins_at, 0) + delta.used

    for which, count, hours, what in events:
        account = accounts[which]
        if what == "c":
            account.charge(count, now_at)
            begins_at = account.period(now_at)[0]
            charged[begins_at] = charged.get(begins_at, 0) + count
        elif what == "s":
            flush(account)
            for begins_at, used in stored.items():
                account.restore(begins_at, used)
        elif what == "p":
            account.put_back(account.take_deltas())
        else:
            now_at += hours * HOUR
    for account in accounts:
        flush(account)
    begins_at = accounts[0].period(now_at)[0]
    for account in accounts:
        account.restore(begins_at, stored.get(begins_at, 0))
        assert account.used(now_at) == charged.get(begins_at, 0)
    assert stored == {begins: used for begins, used in charged.items() if used}


def test_another_time_zone_has_other_days() -> None:
    """From the moment it is set; what was used in a day of the old one stays with that."""
    account = QuotaAccount(Quota(1_000, Period.DAY), UTC)
    noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
    account.charge(600, noon)
    account.set_zone(UTC)
    assert account.left(noon) == 400
    account.set_zone(ZoneInfo("Asia/Tokyo"))
    assert account.period(noon)[0] == datetime(2026, 3, 9, 15, tzinfo=UTC)
    assert account.left(noon) == 1_000
    account.set_zone(UTC)
    assert account.left(noon) == 400
