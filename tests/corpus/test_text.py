"""Plain text of metadata records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.popularity import popularity_in
from idgr.corpus.text import LEFT_OUT, LONGEST_VALUE, described, item_fields, plain_text
from idgr.formats.records import Item


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"item_id": "B1", "title": "Red Shoe", "brand": "ACME"}, "title: red shoe; brand: acme"),
        ({"brand": "ACME", "title": "Red Shoe"}, "brand: acme; title: red shoe"),
        ({"categories": [["Beauty", "Nails"], ["Beauty", "Hair"]]}, "categories: beauty, nails, hair"),
        ({"title": "Salt &amp; Pepper"}, "title: salt & pepper"),
        ({"title": "Salt &amp;amp; Pepper &#39;x&#39;"}, "title: salt & pepper 'x'"),
        ({"a": None, "b": "", "c": [], "d": [[""]], "e": " ", "f": {}, "g": float("nan"), "h": "x"}, "h: x"),
        ({"price": 9.99, "year": 1999, "new": True}, "price: 9.99; year: 1999; new: true"),
        ({"price": float("inf"), "title": "x"}, "title: x"),
        ({"title": "two\n lines\t and   spaces\u3000here"}, "title: two lines and spaces here"),
        ({"title": "a\x00b\u202ec\u200f\ufeff\ud800d"}, "title: abcd"),
        ({"title": "family \U0001f468\u200d\U0001f469"}, "title: family \U0001f468\u200d\U0001f469"),
        ({"title": "手机壳 Größe"}, "title: 手机壳 größe"),
        ({"description": "<b>Soft</b><br/>and<p class='x'>warm"}, "description: soft and warm"),
        ({"description": "a < b, x<y> and I <3 it"}, "description: a < b, x<y> and i <3 it"),
        ({"description": "&lt;br&gt;soft"}, "description: soft"),
        ({"page": "https://example.com/x", "title": "see https://example.com"}, "title: see https://example.com"),
        ({"imUrl": "x.jpg", "related": {"also_bought": ["B2"]}, "salesRank": {"Beauty": 5}, "title": "x"}, "title: x"),
        (
            {"details": {"Color": "Red", "Size": 7, "Tags": ["Soft", "New"]}},
            "details: color red, size 7, tags, soft, new",
        ),
        ({"title": "Acme", "details": {"Home": "https://x.com/y"}}, "title: acme"),
        ({"title": "x", "brand": "N/A", "size": "—", "tags": ["None", "a", "-"]}, "title: x; tags: a"),
        (
            {"title": "x", "details": {"Color": "N/A", "Size": "L", "Parts": ["—"], "Deep": {"Er": []}}},
            "title: x; details: size l",
        ),
        ({"details": '{"Brand": "Acme", "Size": "L", "Tags": ["a", "b"]}'}, "details: brand acme, size l, tags, a, b"),
        ({"details": "{'Brand': 'Acme', 'Size': None, 'New': True}"}, "details: brand acme, new true"),
        ({"details": "{&quot;Brand&quot;: &quot;Acme&quot;}"}, "details: brand acme"),
        ({"details": {"Sizes": '["S", "M"]', "More": '{"a": "[\\"b\\"]"}'}}, "details: sizes, s, m, more, a, b"),
        ({"categories": '["Clothing, Shoes", "Men"]'}, "categories: clothing, shoes, men"),
        ({"title": "[Brand New] Shoe {x}", "size": "{a: b"}, "title: [brand new] shoe {x}; size: {a: b"),
        ({"a": "[]", "b": "{}", "c": "[Set]"}, "c: [set]"),
        ({}, ""),
        ({"item_id": "B1"}, ""),
    ],
)
def test_text_of(record: dict[str, Any], text: str) -> None:
    assert plain_text(record) == text


def test_fields_choose_and_order_the_keys_whatever_is_left_out_otherwise() -> None:
    record = {"title": "X", "brand": "Y", "rank": 3}
    assert plain_text(record, ["rank", "title", "none"]) == "rank: 3; title: x"


POPULAR = {
    "average_rating": 4.8, "rating_number": 300, "Average Rating": "4.8", "salesRank": {"Beauty": 5}, "Sales Rank": 5,
    "rank": [">#1,032 in Beauty (See Top 100)"], "best_sellers_rank": {"Beauty": 1032}, "Best-Sellers Rank": "#3",
    "Amazon Best Sellers Rank:": "#3", "Customer Reviews": "4.5 out of 5 stars", "CUSTOMER_REVIEWS": {"stars": "4"},
    "reviews": [{"text": "good"}], "review_count": 7, "Review Count": "7", "stars": 4.5, "rating": "4.5 out of 5",
    "ratings": {"5": 3, "1": 4}, "num_ratings": 3, "ratings_count": 3, "number of reviews": 3, "voteCount": 3,
    "text_reviews_count": 4, "popularity": 1.5, "checkin_count": 2, "tip_count": 2, "likes": 5,
    "sold": 3, "monthly sales": 4, "helpful_votes": 2, "also_buy": ["B2"],
    "date": "5 star5 star (0%)",
}  # fmt: skip


@pytest.mark.parametrize("name", POPULAR)
def test_what_others_did_is_left_out_at_every_depth(name: str) -> None:
    entry = {name: POPULAR[name]}
    assert plain_text({"title": "x", **entry}) == "title: x"
    kept = {"UPC": "617", "Date First Available": "May 3"}
    for details in (
        {**kept, **entry},
        [kept, {"deep": [entry]}],
        json.dumps({**kept, **entry}),
        str({**kept, **entry}),
    ):
        assert (
            plain_text({"title": "x", "details": details}) == "title: x; details: upc 617, date first available may 3"
        )


def test_tables_of_names_and_values_lose_their_rows_of_popularity() -> None:
    rows = [["Brand", "A"], ["Best Sellers Rank", "#3 in Beauty"]]
    assert plain_text({"details": rows}) == "details: brand, a"
    named = [{"name": name, "value": value} for name, value in rows]
    assert plain_text({"details": named}) == "details: name brand, value a"
    said = [
        "Soft",
        "Best Sellers Rank: #1,032 in Beauty (See Top 100 in Beauty)",
        "1,234 ratings",
        "4.7 out of 5 stars",
    ]
    assert plain_text({"feature": said}) == "feature: soft"


def test_what_only_sounds_like_popularity_stays() -> None:
    record = {
        "title": "5 Star Hotel Towel", "rating": "PG-13", "stars": ["Tom Hanks"], "MPAA rating": "R",
        "Thread count": "300", "Energy Star Rating": "5", "Number of items": "3", "Date First Available": "2010",
        "editorial_reviews": "Fine.",
        "description": "Sales, customer reviews and 4 stars.",
    }  # fmt: skip
    assert [part.partition(": ")[0] for part in plain_text(record).split("; ")] == [name.lower() for name in record]


def test_the_key_is_no_property() -> None:
    assert (
        plain_text({"title": "x", "details": {"ASIN": "B0", "Item_ID": "B0", "id": "M3"}}) == "title: x; details: id m3"
    )


def item(record: dict[str, Any]) -> Item:
    return described("B", item_fields(record))


def test_fields_stand_beside_a_text_that_does_not_tell_them() -> None:
    for record in ({"title": "Tee", "categories": [["Beauty", "Nails"]], "price": 5}, {"title": "opi: red; blue"}, {}):
        assert item(record).fields is None
    categories = {"title": "Tee", "categories": [["Clothing, Shoes & Jewelry", "Men"]]}
    assert item(categories).row() == {
        "item_id": "B",
        "text": "title: tee; categories: clothing, shoes & jewelry, men",
        "fields": {"title": ["tee"], "categories": ["clothing, shoes & jewelry", "men"]},
    }
    assert item({"title": "Kit; size: L"}).fields == {"title": ["kit; size: l"]}
    assert item({"2nd": "x"}).fields == {"2nd": ["x"]}
    assert item({"Size": "a", "size": "b"}).row() == {"item_id": "B", "text": "size: a, b"}
    assert item({"title": "a, " + "b" * 2_000}).fields == {"title": ["a, " + "b" * (LONGEST_VALUE - 3)]}


def test_a_string_of_categories_lists_what_commas_part_and_no_other_string_does() -> None:
    assert item({"categories": "Beauty, Nails", "genres": "a"}).fields is None
    whole = item({"categories": "Beauty, Nails", "brand": "Parts Co., Inc.", "main_category": "Clothing, Shoes"})
    assert whole.values() == {
        "categories": ["beauty", "nails"], "brand": ["parts co., inc."], "main_category": ["clothing, shoes"]
    }  # fmt: skip
    assert item({"categories": ["Clothing, Shoes"]}).values() == {"categories": ["clothing, shoes"]}


def test_deep_nesting_is_no_trouble() -> None:
    value: Any = "x"
    for _ in range(100_000):
        value = [value]
    assert plain_text({"title": value}) == "title: x"


values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    max_leaves=6,
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.dictionaries(st.text() | st.sampled_from(sorted(LEFT_OUT)), values, max_size=4))
def test_any_record_gives_one_clean_line(record: dict[str, Any]) -> None:
    text = plain_text(record)
    assert text == " ".join(text.split())
    assert text == text.lower()
    text.encode()
    assert not any("\x00" <= c < " " or "\u202a" <= c <= "\u202e" for c in text)
    made = item(record)
    assert made.text == text
    assert Item.parse(made.row()) == made
    assert text == "; ".join(f"{name}: {', '.join(values)}" for name, values in made.values().items()) or "," in text


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(sorted(POPULAR)), unique=True), st.lists(st.sampled_from(["details", "a"]), max_size=3))
def test_what_prep_writes_passes_the_audit(names: list[str], path: list[str]) -> None:
    record: dict[str, Any] = {"size": "s, m", **{name: POPULAR[name] for name in names}}
    for step in path:
        record = {step: record}
    assert popularity_in(item(record).values()) is None
