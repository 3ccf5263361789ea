"""Yelp's reviews and businesses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from idgr.corpus.sources.yelp import read_entries, read_events, split_categories
from idgr.errors import IdgrError

Write = Callable[[str, Any], Path]
Load = Callable[[Path], list[dict[str, Any]]]


def review(user: str, business: str, date: str, stars: float = 4.0) -> dict[str, Any]:
    return {"review_id": "r", "user_id": user, "business_id": business, "stars": stars, "date": date, "text": "x"}


def test_reviews(write: Write) -> None:
    path = write("review.json", [review("u", "b", "1970-01-01 00:00:02"), review("v", "b", "1970-01-02 00:00:00", 1)])
    events = read_events(path)
    assert (events.users, events.items, events.time.tolist()) == (["u", "v"], ["b"], [2_000_000, 86_400_000_000])
    assert read_events(path, min_rating=2).users == ["u"]


def test_businesses_have_their_categories_as_a_list(write: Write) -> None:
    rows = [
        {"business_id": "b", "name": "N", "city": "C", "categories": "Food, Bubble Tea"},
        {"business_id": "c", "name": "M", "categories": None},
    ]
    first, second = read_entries(write("business.json", rows))
    assert first.record["categories"] == ["Food", "Bubble Tea"]
    assert (second.item_id, second.record["categories"]) == ("c", None)


def test_yelps_own_names_with_commas_stay_whole() -> None:
    text = "Beer, Wine & Spirits, Food, Books, Mags, Music & Video,Used, Vintage & Consignment"
    assert split_categories(text) == [
        "Beer, Wine & Spirits", "Food", "Books, Mags, Music & Video", "Used, Vintage & Consignment"
    ]  # fmt: skip
    assert split_categories("Food, Beer, Wine & Spirits Tours, Books") == [
        "Food", "Beer", "Wine & Spirits Tours", "Books"
    ]  # fmt: skip
    assert split_categories("") == []


def test_a_date_that_is_none_is_named(write: Write) -> None:
    with pytest.raises(IdgrError, match=r'review.json:2: "date" is not a date'):
        read_events(write("review.json", [review("u", "b", "2019-01-01 00:00:00"), review("u", "b", "2019-13-01")]))


def test_a_window_of_dates_repeats_kept_and_the_text(write: Write, prep: Callable[..., Path], load: Load) -> None:
    reviews = [
        review("u", "b", "2018-12-31 23:59:59"),
        review("u", "c", "2019-03-01 00:00:00"),
        review("u", "b", "2019-01-01 00:00:00"),
        review("u", "b", "2019-06-01 00:00:00"),
        review("u", "b", "2019-06-01 00:00:00", 1.0),
        review("u", "c", "2020-01-01 00:00:00"),
    ]
    business = [
        {"business_id": "b", "name": "Bob&#39;s", "address": "1 Street", "categories": "Food, Tea"},
        {"business_id": "c", "name": "C", "address": "2 Street", "categories": ""},
    ]
    window = ("--from", "2019-01-01", "--to", "2020-01-01", "--k-core", "1")
    events, meta = write("review.json", reviews), write("business.json", business)
    folder = prep("yelp", events, meta, *window)
    assert load(folder / "test.jsonl") == [{"user_id": "u", "history": ["b", "c"], "target": "b"}]
    assert load(folder / "train.jsonl") == [{"user_id": "u", "items": ["b"]}]
    assert load(folder / "items.jsonl") == [
        {"item_id": "b", "text": "name: bob's; categories: food, tea"},
        {"item_id": "c", "text": "name: c"},
    ]
    folder = prep("yelp", events, meta, "--fields", "address,name", *window)
    assert [row["text"] for row in load(folder / "items.jsonl")] == [
        "address: 1 street; name: bob's",
        "address: 2 street; name: c",
    ]
