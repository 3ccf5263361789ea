"""Amazon's dumps of three years, with metadata that is a Python literal and must never be run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.corpus.literals import MAX_LITERAL_BYTES, parse_literal
from idgr.corpus.sources.amazon import read_entries, read_events
from idgr.errors import IdgrError

Write = Callable[[str, Any], Path]


def test_reviews_of_2014_and_2018(write: Write) -> None:
    reviews = [
        {"reviewerID": "U1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1405987200, "reviewText": "x"},
        {"reviewerID": "U2", "asin": "B1", "overall": 2.0, "unixReviewTime": 1405900800, "vote": "3"},
    ]
    events = read_events(write("reviews.json.gz", reviews))
    assert (events.users, events.items, events.user.tolist()) == (["U1", "U2"], ["B1"], [0, 1])
    assert events.time.tolist() == [1405987200_000_000, 1405900800_000_000]
    assert read_events(write("reviews.json.gz", reviews), min_rating=3).users == ["U1"]


def test_reviews_of_2023_have_milliseconds_and_parents(write: Write) -> None:
    reviews = [{"user_id": "U1", "asin": "B9", "parent_asin": "B1", "rating": 4.0, "timestamp": 1588687728923}]
    events = read_events(write("reviews.jsonl.gz", reviews))
    assert (events.items, events.time.tolist()) == (["B1"], [1588687728923_000])


def test_metadata_of_2014_is_a_literal(write: Write) -> None:
    lines = (
        b"{'asin': '0001', 'title': \"O'Neil &amp; Sons\", 'price': 9.99, 'imUrl': 'http://x/y.jpg', "
        b"'categories': [['Beauty', 'Nails'], ['Beauty']], 'related': {'also_bought': ['0002']}, 'gone': None}\n"
        b"{'asin': u'0002', 'title': 'caf\\xe9 \\d', 'description': '\xe6\x89\x8b'}\n"
    )
    first, second = read_entries(write("meta.json.gz", lines))
    assert (first.item_id, first.line) == ("0001", 1)
    assert first.record["title"] == "O'Neil &amp; Sons"
    assert first.record["categories"] == [["Beauty", "Nails"], ["Beauty"]]
    assert first.record["gone"] is None
    assert (second.item_id, second.record["title"], second.record["description"]) == ("0002", "café \\d", "手")


def test_metadata_of_2018_and_2023_is_json(write: Write) -> None:
    rows = [
        {"asin": "B1", "title": "var aPageStart = (new Date()).getTime();", "brand": "X", "category": ["A", "B"]},
        {"asin": "B2", "parent_asin": "B3", "title": "T", "features": ["f"], "store": "S", "details": {"Color": "Red"}},
    ]
    first, second = read_entries(write("meta.jsonl", rows))
    assert (first.item_id, first.record["title"], first.record["brand"]) == ("B1", None, "X")
    assert second.item_id == "B3"


HOSTILE = [
    "__import__('os').system('touch ran')",
    "open('ran', 'w')",
    "{'asin': open('ran', 'w').write('x')}",
    "{'asin': 'B1', 'x': [n for n in range(10)]}",
    "{'asin': 'B1', 'x': lambda: 1}",
    "{'asin': 'B1', 'x': 'a' * 1000000000}",
    "{'asin': 'B1', 'x': 9 ** 9 ** 9}",
    "{'asin': 'B1', 'x': f'{open(0)}'}",
    "{'asin': 'B1', [1]: 2}",
    "{'asin': 'B1', **{}}",
    "{'asin': 'B1', 'x': " + "9" * 10_000 + "}",
    "{'asin': 'B1', 'x': " + "-" * 100_000 + "1}",
    "{'asin': 'B1', 'x': " + "[" * 1_000 + "]" * 1_000 + "}",
    "{'asin': 'B1', 'x': " + "a." * 50_000 + "a}",
    "{'asin': 'B1', 'x': " + "lambda:" * 20_000 + "1}",
    "{'asin': 'B1', 'x': " + "1+" * 50_000 + "1}",
    "{'asin': 'B1', 'x': '\0'}",
    "{'asin': 'B1'",
    "{'asin': 'B1'}}",
    "{'asin': 'B1'};{'asin': 'B2'}",
    "{'asin': '\\ud800'}",
    "{'asin': b'B1'}",
    "{'title': 'no key'}",
    "{'asin'}",
]


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: line[:40].replace("\0", "NUL"))
def test_hostile_metadata_is_refused_with_its_line_and_never_run(
    write: Write, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write("meta.json", b"{'asin': 'B0'}\n" + line.encode() + b"\n")
    with pytest.raises(IdgrError) as caught:
        list(read_entries(path))
    assert (caught.value.where, caught.value.line) == (str(path), 2)
    assert not (tmp_path / "ran").exists()


def test_a_line_too_long_to_be_honest_is_refused(write: Write) -> None:
    path = write("meta.json", b"{'asin': 'B1', 'x': '" + b"y" * MAX_LITERAL_BYTES + b"'}\n")
    with pytest.raises(IdgrError, match=r"meta.json:1: a line of 2,000,\d\d\d bytes"):
        list(read_entries(path))


@pytest.mark.parametrize("place", ["'x': {}", "'x': ['a', {}]", "'x': {{'a': {}}}", "'x': {{{}: 'a'}}", "{}: 'a'"])
def test_a_number_that_python_does_not_write_out_is_refused(write: Write, place: str) -> None:
    path = write("meta.json", f"{{'asin': 'B1', {place.format('0x' + 'f' * 5_000)}}}\n".encode())
    with pytest.raises(IdgrError, match=r"meta.json:1: not a Python literal .* a number of thousands of digits"):
        list(read_entries(path))
    assert list(read_entries(write("meta.json", f"{{'asin': 'B1', 'x': '0x{'f' * 5_000}'}}".encode())))


def test_invalid_utf8_in_a_literal_is_refused(write: Write) -> None:
    with pytest.raises(IdgrError, match=r"meta.json:1: not valid UTF-8"):
        list(read_entries(write("meta.json", b"{'asin': 'B1', 'x': '\xff'}\n")))


@pytest.mark.parametrize("line", ['{"asin": "B1"', "nonsense", '["B1"]', "7", "'B1'"])
def test_what_is_neither_json_nor_a_literal_is_refused(write: Write, line: str) -> None:
    with pytest.raises(IdgrError, match=r"meta.json:1: "):
        list(read_entries(write("meta.json", line.encode())))


def test_a_literal_has_the_value_that_python_gives_it() -> None:
    value = {"a": [1, -2.5, ("x", None, True)], "b": {"c": "d\n"}}
    assert parse_literal(repr(value).encode()) == value


def test_a_dump_grouped_by_item_has_its_ties_shuffled(
    write: Write, prep: Callable[..., Path], load: Callable[[Path], list[dict[str, Any]]]
) -> None:
    items = [f"B{n}" for n in range(6)]
    reviews = [
        {"reviewerID": f"U{user}", "asin": item, "overall": 5.0, "unixReviewTime": 86_400}
        for item in items
        for user in range(30)
    ]
    meta = write("meta.json", "".join(f"{{'asin': '{item}', 'title': 'thing'}}\n" for item in items).encode())
    folder = prep("amazon", write("reviews.json", reviews), meta)
    orders = {tuple(row["history"] + [row["target"]]) for row in load(folder / "test.jsonl")}
    assert len(orders) > 20
    assert json.loads((folder / "stats.json").read_text())["ties"]["order"] == "shuffle"
    again = prep("amazon", write("reviews.json", reviews), meta, "--ties", "file", "--allow-sorted")
    assert {tuple(row["history"] + [row["target"]]) for row in load(again / "test.jsonl")} == {tuple(items)}


def test_of_entries_that_the_dump_repeats_each_field_is_the_first_that_is_not_empty(
    write: Write, prep: Callable[..., Path], load: Callable[[Path], list[dict[str, Any]]]
) -> None:
    reviews = [{"reviewerID": "U", "asin": f"B{n}", "overall": 5.0, "unixReviewTime": n} for n in range(3)]
    meta = [{"asin": f"B{n}", "title": title} for title in ("first", "second") for n in range(3)]
    folder = prep("amazon", write("reviews.json", reviews), write("meta.json", meta), "--k-core", "0")
    assert [row["text"] for row in load(folder / "items.jsonl")] == ["title: first"] * 3
    meta = [
        {"asin": "B1", "title": "var t = (new Date()).getTime();", "brand": "Acme", "date": "5 star5 star (0%)"},
        {"asin": "B0", "title": "", "brand": "N/A"},
        {"asin": "B2", "title": "Cap", "color": "Red"},
        {"asin": "B1", "title": "Real hat", "brand": "Other", "size": "L, M"},
        {"asin": "B0", "title": "<b></b>"},
        {"asin": "B0", "title": "Scarf"},
        {"asin": "B2"},
    ]
    for missing in ("error", "drop"):
        options = ("--k-core", "0", "--missing-text", missing)
        folder = prep("amazon", write("reviews.json", reviews), write("meta.json", meta), *options)
        assert load(folder / "items.jsonl") == [
            {
                "item_id": "B1",
                "text": "title: real hat; brand: acme; size: l, m",
                "fields": {"title": ["real hat"], "brand": ["acme"], "size": ["l, m"]},
            },
            {"item_id": "B0", "text": "title: scarf"},
            {"item_id": "B2", "text": "title: cap; color: red"},
        ]
