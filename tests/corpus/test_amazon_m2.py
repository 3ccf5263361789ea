"""Amazon-M2's sessions and products, on made-up lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.corpus.sources.amazon_m2 import read_entries, read_events
from idgr.errors import IdgrError

SESSIONS = """prev_items,next_item,locale
"['B1' 'B2'
 'B3']",B4,UK
['B2' 'B1'],B3,DE
"['B1', 'B1']",B2,UK
"""
PRODUCTS = """id,locale,title,price,brand,color,size,model,material,author,desc
B1,UK,Red soap,3.5,Acme,red,,,,,"Soap, red"
B1,DE,Rote Seife,4.5,Acme,rot,,,,,
B2,UK,Blue soap,3.5,,,,,,,
B3,UK,Comb,1,,,,,,,
B4,UK,Towel,1,,,,,,,
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_sessions(tmp_path: Path) -> None:
    path = write(tmp_path / "sessions.csv", SESSIONS)
    events = read_events(path)
    found = [(events.users[user], events.items[item]) for user, item in zip(events.user, events.item, strict=True)]
    assert found == [
        *[("session-1", f"B{n}-UK") for n in (1, 2, 3, 4)],
        *[("session-2", f"B{n}-DE") for n in (2, 1, 3)],
        *[("session-3", f"B{n}-UK") for n in (1, 1, 2)],
    ]
    assert (events.timed, events.sequences) == (False, True)
    assert events.line.tolist() == [2] * 4 + [4] * 3 + [5] * 3
    assert read_events(path, locale="DE").users == ["session-2"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prev_items,locale\n['B1'],UK\n", "sessions.csv:1: has no column next_item"),
        (SESSIONS + "B1,B2,UK\n", "sessions.csv:6: \"prev_items\" is 'B1', not keys"),
        (SESSIONS + "[],B2,UK\n", "sessions.csv:6: \"prev_items\" is '[]', not keys"),
        (SESSIONS + "['B1' B2],B2,UK\n", 'sessions.csv:6: "prev_items" is'),
        (SESSIONS + "['B1'],,UK\n", "sessions.csv:6: nothing in the column next_item"),
        (SESSIONS + "['B1'],B2\n", "sessions.csv:6: 2 fields, not 3"),
    ],
)
def test_faults_have_their_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(IdgrError) as fault:
        read_events(write(tmp_path / "sessions.csv", text))
    assert told in str(fault.value)


def test_a_locale_that_is_not_there_and_ratings(tmp_path: Path) -> None:
    path = write(tmp_path / "sessions.csv", SESSIONS)
    with pytest.raises(IdgrError, match="has no session of the locale FR"):
        read_events(path, locale="FR")
    with pytest.raises(IdgrError, match="sessions have no ratings"):
        read_events(path, min_rating=3)


def test_products(tmp_path: Path) -> None:
    first, second, *_ = read_entries(write(tmp_path / "products.csv", PRODUCTS))
    assert (first.item_id, first.line, first.record["desc"]) == ("B1-UK", 2, "Soap, red")
    assert "price" not in first.record
    assert (second.item_id, second.record["title"]) == ("B1-DE", "Rote Seife")


def test_the_command(tmp_path: Path, prep: Callable[..., Path], load: Callable[[Path], list[dict[str, Any]]]) -> None:
    sessions, products = write(tmp_path / "s.csv", SESSIONS), write(tmp_path / "p.csv", PRODUCTS)
    folder = prep("amazon-m2", sessions, products, "--locale", "UK")
    assert load(folder / "test.jsonl") == [
        {"user_id": "session-1", "history": ["B1-UK", "B2-UK", "B3-UK"], "target": "B4-UK"},
        {"user_id": "session-3", "history": ["B1-UK", "B1-UK"], "target": "B2-UK"},
    ]
    texts = {row["item_id"]: row["text"] for row in load(folder / "items.jsonl")}
    assert texts["B2-UK"] == "title: blue soap"
    assert texts["B1-UK"].startswith("title: red soap; brand: acme; color: red; desc: soap")
