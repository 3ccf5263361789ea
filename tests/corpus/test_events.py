"""Reading events into columns: the fast path against the plain one, units of time, and faults with file and line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idgr.corpus.events import Events, Layout, from_rows, read_events
from idgr.corpus.times import microseconds, parse_date
from idgr.errors import IdgrError

LAYOUT = Layout("user_id", "item_id", "timestamp", "rating")


def event(user: Any = "u", item: Any = "a", time: Any = 1, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "timestamp": time, **more}


def read(path: Path, lines: list[Any], min_rating: float | None = None) -> Events:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_events(path, [LAYOUT], min_rating=min_rating)


def triples(events: Events) -> list[tuple[str, str, int]]:
    return [
        (events.users[user], events.items[item], time)
        for user, item, time in zip(events.user.tolist(), events.item.tolist(), events.time.tolist(), strict=True)
    ]


def test_thousands_of_events_are_read_as_the_standard_library_reads_them(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [event(f"u{rng.randrange(50)}", f"ï{rng.randrange(90)}", rng.randrange(10**9), n=n) for n in range(3_000)]
    events = read(tmp_path / "x", rows)
    assert triples(events) == [(row["user_id"], row["item_id"], row["timestamp"] * 10**6) for row in rows]
    assert events.users == list(dict.fromkeys(row["user_id"] for row in rows))
    assert events.line.tolist() == list(range(1, 3_001))


def test_one_odd_line_among_thousands_changes_nothing_else(tmp_path: Path) -> None:
    rows: list[Any] = [event(f"u{n % 7}", f"i{n % 11}", n) for n in range(1_000)]
    rows[500] = event(3, 4, 500.0)
    rows.insert(700, "")
    events = read(tmp_path / "x", rows)
    expected = [event(f"u{n % 7}", f"i{n % 11}", n) for n in range(1_000)]
    expected[500] = event("3", "4", 500)
    assert triples(events) == [(row["user_id"], row["item_id"], row["timestamp"] * 10**6) for row in expected]
    assert events.line[699:702].tolist() == [700, 702, 703]


def test_ratings_below_the_least_are_left_out_and_lines_stay_right(tmp_path: Path) -> None:
    rows = [event(time=n, rating=n % 5 + 1) for n in range(600)]
    events = read(tmp_path / "x", rows, min_rating=4)
    assert events.line.tolist() == [n + 1 for n in range(600) if n % 5 + 1 >= 4]
    assert read(tmp_path / "x", [event(rating=1), event(rating=2)], min_rating=4).line.tolist() == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"user_id": "u", "item_id": "a"', "not valid JSON"),
        ('["u", "a", 1]', "not an object"),
        ({"item_id": "a", "timestamp": 1}, 'no "user_id"'),
        ({"user_id": "u", "timestamp": 1}, 'no "item_id"'),
        ({"user_id": "u", "item_id": "a"}, 'no "timestamp"'),
        (event(user=""), '"user_id" is not'),
        (event(item=None), '"item_id" is not'),
        (event(item=["a"]), '"item_id" is not'),
        (event(user=True), '"user_id" is not'),
        (event(time=True), '"timestamp" is not a number'),
        (event(time="2019-01-01"), '"timestamp" is not a number'),
        (event(time=None), '"timestamp" is not a number'),
        (event(time=2**63), "out of range"),
        (event(time=-(2**200)), "not valid JSON|out of range"),
    ],
)
@pytest.mark.parametrize("before", [1, 256, 300])
def test_a_faulty_line_is_named(tmp_path: Path, line: Any, what: str, before: int) -> None:
    with pytest.raises(IdgrError, match=what) as caught:
        read(tmp_path / "x", [*[event()] * before, line, event()])
    assert (caught.value.where, caught.value.line) == (str(tmp_path / "x"), before + 1)


def test_invalid_utf8_is_named(tmp_path: Path) -> None:
    good = json.dumps(event()).encode() + b"\n"
    (tmp_path / "x").write_bytes(good * 3 + good.replace(b'"u"', b'"\xff"') + good)
    with pytest.raises(IdgrError, match=r"x:4: not valid JSON .*UTF-8"):
        read_events(tmp_path / "x", [LAYOUT])


def test_a_missing_rating_is_named_where_ratings_count(tmp_path: Path) -> None:
    with pytest.raises(IdgrError, match=r'x:2: "rating" is missing'):
        read(tmp_path / "x", [event(rating=5), event()], min_rating=3)
    assert len(read(tmp_path / "x", [event(rating=5), event()])) == 2


def test_records_of_another_platform_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IdgrError, match=r'x:1: no "user_id" and "item_id"'):
        read(tmp_path / "x", [{"userId": 1, "movieId": 2}])


def test_dates_are_read_in_utc_unless_they_name_a_zone(tmp_path: Path) -> None:
    times = ["1970-01-02", "1970-01-02 00:00:01", "1970-01-02T01:00:00+01:00", "1970-01-02T00:00:00.5Z"]
    day = 86_400 * 10**6
    assert read(tmp_path / "x", [event(time=time) for time in times]).time.tolist() == [
        day,
        day + 10**6,
        day,
        day + 500_000,
    ]
    with pytest.raises(IdgrError, match=r'x:2: "timestamp" is not a date; write it like'):
        read(tmp_path / "x", [event(time="1970-01-02"), event(time="yesterday")])
    with pytest.raises(IdgrError, match=r"x:2: .* is not a date as in the first record"):
        read(tmp_path / "x", [event(time="1970-01-02"), event(time=5)])


def test_the_unit_of_times_follows_from_their_size() -> None:
    moment = parse_date("2014-07-23")
    for unit in (10**6, 10**3, 1):
        assert microseconds(np.array([0, moment // unit])).tolist() == [0, moment]
    assert microseconds(np.array([moment * 1_000])).tolist() == [moment]
    assert microseconds(np.array([1.25, 1_400_000_000.5])).tolist() == [1_250_000, 1_400_000_000_500_000]
    assert microseconds(np.array([], dtype=np.int64)).tolist() == []


def test_times_that_are_counters_keep_their_order(tmp_path: Path) -> None:
    assert np.all(np.diff(read(tmp_path / "x", [event(time=n) for n in range(-5, 400)]).time) > 0)


def test_rows_at_hand_become_events() -> None:
    events = from_rows("demo", [event("u", "b", 5), event("v", "b", 6)])
    assert triples(events) == [("u", "b", 5_000_000), ("v", "b", 6_000_000)]
    assert len(from_rows("demo", [])) == 0
