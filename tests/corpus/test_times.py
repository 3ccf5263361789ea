"""Times of any form: a unit per value, dates with and without zones, and what is refused with its line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.events import Layout, read_events
from idgr.corpus.times import check_units, is_date, is_number, microseconds, parse_date, parse_time
from idgr.errors import IdgrError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS = st.integers(200_000_000, 4_000_000_000)  # 1976 to 2096
UNITS = (1, 10**3, 10**6, 10**9)  # of a second
LAYOUT = Layout("user_id", "item_id", "timestamp", "rating")


def read(path: Path, times: list[Any]) -> list[int]:
    rows = ({"user_id": "u", "item_id": str(n), "timestamp": time} for n, time in enumerate(times))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_events(path, [LAYOUT]).time.tolist()


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(SECONDS, st.sampled_from(UNITS)), min_size=1, max_size=30))
def test_each_time_has_the_unit_that_its_size_tells(moments: list[tuple[int, int]]) -> None:
    times = np.array([second * unit for second, unit in moments])
    check_units(times, np.arange(1, len(times) + 1, dtype=np.int32), "x")
    assert microseconds(times).tolist() == [second * 10**6 for second, _ in moments]


@settings(derandomize=True, deadline=None)
@given(st.lists(SECONDS, min_size=1, max_size=30), st.sampled_from(UNITS[:3]), st.booleans())
def test_fractions_are_the_times_that_they_are(seconds: list[int], unit: int, negative: bool) -> None:
    times = np.array([float(second * unit) for second in seconds]) * (-1 if negative else 1)
    assert microseconds(times).tolist() == [int(second * 10**6 * (-1 if negative else 1)) for second in seconds]


@settings(derandomize=True, deadline=None)
@given(
    st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9998, 1, 1)),
    st.integers(-14 * 60, 14 * 60) | st.none(),
    st.sampled_from(["T", " "]),
)
def test_a_date_is_its_moment_in_any_zone_and_form(moment: datetime, minutes: int | None, between: str) -> None:
    zone = UTC if minutes is None else timezone(timedelta(minutes=minutes))
    aware = moment.replace(tzinfo=zone)
    expected = (aware - EPOCH) // timedelta(microseconds=1)
    text = (moment if minutes is None else aware).isoformat(between)
    assert is_date(text)
    assert parse_time({"t": text}, "t", dated=True) == expected
    if minutes is None:
        assert parse_date(f"{text}Z") == parse_date(f" {text} UTC ") == expected


@settings(derandomize=True, deadline=None)
@given(st.integers(-(2**61), 2**61) | st.floats(-1e18, 1e18))
def test_a_number_in_quotes_is_the_number(value: float) -> None:
    assert is_number(str(value))
    assert parse_time({"t": str(value)}, "t", dated=False) == value


def test_seconds_and_milliseconds_in_one_file(tmp_path: Path) -> None:
    assert read(tmp_path / "x", [1_500_000_000, 1_500_000_001_000, 1_500_000_002.5, -62_135_596_800_000, 0]) == [
        1_500_000_000_000_000,
        1_500_000_001_000_000,
        1_500_000_002_500_000,
        -62_135_596_800_000_000,
        0,
    ]


def test_whole_nanoseconds_keep_their_digits_though_a_fraction_comes_after_them(tmp_path: Path) -> None:
    times: list[Any] = [1_400_000_000_123_457_000 + n * 1_000 for n in range(256)]
    assert read(tmp_path / "x", [*times, 1.5])[:256] == [time // 1_000 for time in times]


@pytest.mark.parametrize(
    ("times", "line", "what"),
    [
        ([1_500_000_000_000, 50_000_000_000], 2, r"50000000000 could be in seconds \(after 2100\) or in milliseconds"),
        ([1_500_000_000, 253_402_300_799], 2, "253402300799 is the end of the year 9999"),
        ([253_402_214_400_000, 1_500_000_000_000], 1, "is the end of the year 9999"),
        (["2019-01-01", "9999-12-31 23:59:59"], 2, "is in the year 9999, which stands for no date"),
        ([1, None], 2, "is not a number but missing, null or NaN"),
        ([1, float("nan")], 2, "is not a number but missing, null or NaN"),
        ([1, float("inf")], 2, "is not a number but missing, null or NaN"),
        (["2019-01-01", float("nan")], 2, "is not a date but missing, null or NaN"),
        (["5", "nan"], 2, "is not a number but missing, null or NaN"),
        (["5", "2019-01-01"], 2, "is not a number as in the first record"),
        (["2019-01-01", "5"], 2, "is not a date"),
        (["5", "9" * 5_000], 2, "is out of range"),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_line(tmp_path: Path, times: list[Any], line: int, what: str) -> None:
    with pytest.raises(IdgrError, match=what) as caught:
        read(tmp_path / "x", times)
    assert (caught.value.where, caught.value.line) == (str(tmp_path / "x"), line)


def test_times_of_one_unit_may_be_anything(tmp_path: Path) -> None:
    counters = [50_000_000_000, 7, 99_999_999_999]
    assert read(tmp_path / "x", counters) == [time * 10**6 for time in counters]
    early = [253_402_300_799, 150_000_000_000]  # of 1978 and 1974 where all are milliseconds
    assert read(tmp_path / "x", early) == [time * 1_000 for time in early]
    assert read(tmp_path / "x", ["20140723", "20140724"]) == [parse_date("2014-07-23"), parse_date("2014-07-24")]
    assert read(tmp_path / "x", ["838985046.0", "838985047"]) == [838985046 * 10**6, 838985047 * 10**6]
