"""Steam's reviews and games, on made-up lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.corpus.sources.steam import read_entries, read_events
from idgr.errors import IdgrError

REVIEWS = [
    r"{u'username': u'Ann', u'hours': 5.5, u'product_id': u'10', u'date': u'2017-03-02', u'text': u'a \'b\''}",
    "",
    "{u'username': u'Bo', u'hours': 0.1, u'product_id': u'20', u'date': u'2016-01-01', u'text': u''}",
    '{"username": "Ann", "product_id": "20", "date": "2017-03-01"}',
]
GAMES = [
    "{u'id': u'20', u'app_name': u'Moon Base', u'genres': [u'Strategy', u'Indie'], u'sentiment': u'Very Positive'}",
    "{u'title': u'Without a key'}",
    "{u'id': u'10', u'title': u'Red Car', u'tags': [u'Racing'], u'metascore': 96, u'price': 9.99}",
    "{u'id': u'10', u'developer': u'D & Co', u'title': u'Red Car Again'}",
]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_reviews(tmp_path: Path) -> None:
    path = write(tmp_path / "reviews.json", REVIEWS)
    events = read_events(path)
    assert (events.users, events.items) == (["Ann", "Bo"], ["10", "20"])
    assert events.line.tolist() == [1, 3, 4]
    assert events.time.tolist() == [1488412800000000, 1451606400000000, 1488326400000000]
    write(path, REVIEWS[:3])
    assert read_events(path, min_rating=1).users == ["Ann"]


def test_games_with_a_key(tmp_path: Path) -> None:
    found = list(read_entries(write(tmp_path / "games.json", GAMES)))
    assert [(one.item_id, one.record["title"]) for one in found] == [
        ("20", "Moon Base"), ("10", "Red Car"), ("10", "Red Car Again")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{u'username': print(), u'product_id': u'1', u'date': u'2017-01-01'}", "not a Python literal"),
        ("{u'username': u'Ann', u'date': u'2017-01-01'}", 'reviews.json:2: no "product_id"'),
        ("{u'username': u'Ann', u'product_id': u'1', u'date': u'2017-13-01'}", 'reviews.json:2: "date" is not a date'),
        (r"{u'username': u'\ud800', u'product_id': u'1', u'date': u'2017-01-01'}", "reviews.json:2: holds what JSON"),
        ("{u'username'", "reviews.json:2: not a Python literal"),
    ],
)
def test_faults_have_their_line(line: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(IdgrError) as fault:
        read_events(write(tmp_path / "reviews.json", [REVIEWS[0], line]))
    assert told in str(fault.value)


def test_the_command(tmp_path: Path, prep: Callable[..., Path], load: Callable[[Path], list[dict[str, Any]]]) -> None:
    again = "{u'username': u'Ann', u'product_id': u'20', u'date': u'2017-03-03'}"
    reviews, games = write(tmp_path / "r.json", [*REVIEWS, again]), write(tmp_path / "g.json", GAMES)
    folder = prep("steam", reviews, games, "--k-core", "1")
    assert [(row["item_id"], row["text"]) for row in load(folder / "items.jsonl")] == [
        ("20", "title: moon base; genres: strategy, indie"),
        ("10", "title: red car; tags: racing; developer: d & co"),
    ]
    assert load(folder / "test.jsonl") == [{"user_id": "Ann", "history": ["20", "10"], "target": "20"}]
