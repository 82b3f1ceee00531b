"""Retry-After: the vectors, tables of corners, and properties against the standard library's calendar."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from throttle.retry_after import (
    LONGEST,
    LONGEST_TEXT,
    epoch,
    format_retry_after,
    http_date,
    parse_retry_after,
    wall_clock,
)

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
VECTORS = json.loads((Path(__file__).parent / "vectors" / "retry_after.json").read_text())["vectors"]


def told(vector: dict[str, Any]) -> Any:
    """The vector's outcome in the words of the vectors."""
    fields = {name.lower(): value for name, value in vector["headers"]}
    values = [value for name, value in vector["headers"] if name.lower() == "retry-after"]
    if not values:
        return "absent"
    wait = parse_retry_after(", ".join(values), now=vector["now"], date=fields.get("date"))
    return "invalid" if wait is None else wait


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["name"]) for vector in VECTORS])
def test_vectors_strictly(vector: dict[str, Any]) -> None:
    assert told(vector) == vector["expect"]["retry_after_s"]


@pytest.mark.parametrize("value", [None, 120, 1.5, [], object(), b"\xff", "", b"", " ", ",", "١٢", "¹", "1.", ".5"])
def test_what_is_no_retry_after_is_none(value: Any) -> None:
    assert parse_retry_after(value, now=NOW) is None


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (b"120", 120.0),
        (bytearray(b"1.5"), 1.5),
        (" \t7\t ", 7.0),
        ("0000000000000000000000000000000000005", 5.0),
        ("10, 60", 60.0),
        ("10,\t60 ,  Tue, 14 Nov 2023 22:14:50 GMT", 90.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT, 10", 60.0),
        ("Tue Nov 14 22:14:20 2023, 10", 60.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT, Tue, 14 Nov 2023 22:15:20 GMT", 120.0),
        ("10, soon", None),  # half read is not read: the part that was lost may have asked for more
        ("Tue, 14", None),  # a date cut short is no number of seconds
        ("10,60", None),  # may be a decimal comma
        ("10, ", None),
        ("0, -5", None),
    ],
)
def test_text_and_its_seconds(value: Any, wait: float | None) -> None:
    assert parse_retry_after(value, now=NOW) == wait


@pytest.mark.parametrize("digits", ["9" * 16, "9" * 400, "9" * 9000, "1" + "0" * 5000 + ".5"])
def test_huge_numbers_are_cut_and_stay_finite(digits: str) -> None:
    assert parse_retry_after(digits, now=NOW) == LONGEST


@pytest.mark.parametrize("year", ["0000", "0001", "1600", "1969", "1970"])
def test_the_first_years_are_past(year: str) -> None:
    assert parse_retry_after(f"Sat, 01 Jan {year} 00:00:00 GMT", now=NOW) == 0.0


def test_the_last_second_of_all() -> None:
    assert http_date("Fri, 31 Dec 9999 23:59:60 GMT", NOW) == 253_402_300_800.0


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf, 10**400, "soon", None])
def test_a_now_that_is_none_reads_the_wall_clock(now: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throttle.retry_after.time.time", lambda: NOW)
    assert parse_retry_after("Tue, 14 Nov 2023 22:14:20 GMT", now=now) == 60.0


@pytest.mark.parametrize(
    ("date", "wait"),
    [
        ("Tue, 14 Nov 2023 22:14:00 GMT", 20.0),
        (b"\tTue, 14 Nov 2023 22:14:00 GMT ", 20.0),
        ("Tuesday, 14-Nov-23 22:14:00 GMT", 20.0),
        ("Tue Nov 14 22:14:00 2023", 20.0),
        ("Tue, 14 Nov 2023 23:14:00 GMT", 0.0),
        ("Tue, 14 Nov 2023 22:14:00 +0100", 60.0),
        ("now", 60.0),
        (7, 60.0),
        (None, 60.0),
    ],
)
def test_the_servers_own_date_beats_the_clock(date: Any, wait: float) -> None:
    assert parse_retry_after("Tue, 14 Nov 2023 22:14:20 GMT", now=NOW, date=date) == wait
    assert parse_retry_after("30", now=NOW, date=date) == 30.0


@pytest.mark.parametrize(
    ("stamp", "now", "year"),
    [
        ("14-Nov-73 22:13:20", NOW, 2073),  # 50 years to the second are not more than 50
        ("14-Nov-73 22:13:21", NOW, 1973),
        ("13-Nov-73 23:00:00", NOW, 2073),
        ("31-Dec-73 00:00:00", NOW, 1973),
        ("01-Jan-99 00:00:00", 915_148_800.0, 1999),
        ("01-Jan-00 00:00:00", 946_684_799.0, 2000),
        ("31-Dec-49 23:59:59", 946_684_799.0, 2049),  # seen from the last second of 1999
        ("01-Jan-50 00:00:00", 946_684_799.0, 1950),
        ("29-Feb-96 00:00:00", 2_403_475_200.0, 2096),  # seen from the first instant of 1 March 2046
        ("29-Feb-96 00:00:00", 2_403_475_199.0, 1996),
        ("01-Jan-20 00:00:00", -1.0, 1920),  # seen from 1969
        ("01-Jan-20 00:00:00", 0.0, 2020),
    ],
)
def test_two_digit_years_turn_fifty_years_from_now(stamp: str, now: float, year: int) -> None:
    day = datetime.strptime(stamp[:7] + str(year) + stamp[9:], "%d-%b-%Y %H:%M:%S").replace(tzinfo=UTC)
    assert http_date(f"Monday, {stamp} GMT", now) == day.timestamp()


def test_a_leap_day_in_a_two_digit_year_that_has_none() -> None:
    assert http_date("Monday, 29-Feb-23 00:00:00 GMT", NOW) is None


stamps = st.datetimes(min_value=datetime(1, 1, 1), timezones=st.just(UTC)).map(lambda day: day.replace(microsecond=0))
near = st.floats(min_value=-3e9, max_value=1e10)


@given(stamps, near)
def test_all_forms_agree_with_the_calendar(stamp: datetime, now: float) -> None:
    since = (stamp - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    wait = max(0.0, since - now)
    fixed = f"{stamp:%a, %d %b} {stamp.year:04} {stamp:%H:%M:%S} GMT"
    asctime = f"{stamp:%a %b} {stamp.day:2} {stamp:%H:%M:%S} {stamp.year:04}"
    for text in (fixed, asctime, fixed.lower(), asctime.encode()):
        assert parse_retry_after(text, now=now) == wait


@given(stamps.filter(lambda stamp: stamp.year > 1820), st.timedeltas(timedelta(days=-18000), timedelta(days=18000)))
def test_two_digit_years_come_back(stamp: datetime, since: timedelta) -> None:
    """Any stamp within 49 years of now is read as it was written."""
    now = (stamp - datetime(1970, 1, 1, tzinfo=UTC) + since).total_seconds()
    written = f"{stamp:%A, %d-%b}-{stamp.year % 100:02} {stamp:%H:%M:%S} GMT"
    assert http_date(written, now) == (stamp - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


@given(st.one_of(st.text(), st.binary(), st.text("0123456789.,-+eE_ \tTueGMT:Nov"), st.none(), st.integers()), near)
@example("." * 100, NOW)
@example(" " * 9000 + "x", NOW)
@example("1," + " " * 9000 + "x", NOW)
@example("Tue, " * 2000, NOW)
def test_nothing_raises_and_waits_are_finite(value: Any, now: float) -> None:
    wait = parse_retry_after(value, now=now, date=value)
    assert wait is None or 0.0 <= wait <= LONGEST


@given(st.decimals(min_value=0, max_value=10**12, places=3, allow_nan=False))
def test_a_fraction_is_never_rounded(number: Decimal) -> None:
    assert parse_retry_after(str(number)) == float(number)


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (1e-9, "1"),
        (1.0, "1"),
        (1.0000001, "2"),
        (0.1 + 0.2, "1"),
        (10**20 + 1, "100000000000000000001"),
        (Fraction(7, 2), "4"),
        (Decimal("2.5"), "3"),
    ],
)
def test_the_least_whole_seconds(seconds: Any, text: str) -> None:
    assert format_retry_after(seconds) == text


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1, -1e-9])
def test_no_wait_can_be_written(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"seconds of a Retry-After must be a finite number of at least 0, not"):
        format_retry_after(seconds)


@pytest.mark.parametrize("seconds", ["5", None, True, timedelta(seconds=1)])
def test_what_is_no_number_cannot_be_written(seconds: Any) -> None:
    with pytest.raises(TypeError, match="seconds of a Retry-After must be a number, not"):
        format_retry_after(seconds)


@given(st.floats(min_value=0, max_value=1e12))
def test_written_and_read_again_it_is_the_ceiling(seconds: float) -> None:
    again = parse_retry_after(format_retry_after(seconds))
    assert again is not None
    assert again - 1 < seconds <= again


@pytest.mark.parametrize("year", [1900, 1996, 1999, 2000, 2001, 2004, 2005, 2100, 2101, 2104, 2400, 2401])
def test_every_month_of_years_that_leap_or_do_not(year: int) -> None:
    for month in range(1, 13):
        for day in (1, 28, 29, 30, 31):
            try:
                stamp = datetime(year, month, day, 23, 59, 59, tzinfo=UTC)
            except ValueError:
                name = datetime(year, month, 1, tzinfo=UTC).strftime("%b")
                assert http_date(f"Mon, {day} {name} {year} 00:00:00 GMT", 0.0) is None
            else:
                assert http_date(stamp.strftime("%a, %d %b %Y %H:%M:%S GMT"), 0.0) == stamp.timestamp()


@pytest.mark.parametrize(
    ("clock", "there"),
    [("23:59:59", True), ("24:00:00", False), ("00:60:00", False), ("00:00:60", True), ("00:00:61", False),
     ("24:30:30", False), ("12:60:30", False)],
)  # fmt: skip
def test_what_a_clock_cannot_show(clock: str, there: bool) -> None:
    assert (http_date(f"Tue, 14 Nov 2023 {clock} GMT", 0.0) is not None) == there


@pytest.mark.parametrize(
    ("clock", "there"),
    [((23, 59, 60.5), True), ((24, 0, 0), False), ((0, 60, 0), False), ((0, 60, 61), False), ((0, 0, 61), False)],
)
def test_what_a_clock_cannot_show_is_no_time_either(clock: tuple[int, int, float], there: bool) -> None:
    assert (epoch(2023, 10, 14, *clock) is not None) == there


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_blanks_around_are_those_of_http(blank: str) -> None:
    date = "Tue, 14 Nov 2023 22:14:20 GMT"
    sent = f"{blank}Tue, 14 Nov 2023 22:13:20 GMT{blank}"
    assert parse_retry_after(f"{blank}{date}{blank}, 3{blank}", date=sent) == 60
    assert parse_retry_after(f"3{blank}, {date}{blank}", date=sent) == 60
    for other in ("\v", "\xa0"):
        assert parse_retry_after(f"3{other}, 2") is None
        assert parse_retry_after(f"2, {date}{other}", date=sent) is None
        assert parse_retry_after("2, " + date, date=sent + other, now=0.0) == http_date(date, 0.0)


def test_bounds_are_inside() -> None:
    longest = "1, 1" + "0" * (LONGEST_TEXT - 4)
    assert parse_retry_after(longest) == LONGEST
    assert parse_retry_after(longest + "0") is None
    assert wall_clock(LONGEST) != LONGEST
    assert wall_clock(LONGEST - 1) == LONGEST - 1
