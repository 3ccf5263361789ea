"""Plain text of metadata records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.text import LEFT_OUT, plain_text


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
        ({}, ""),
        ({"item_id": "B1"}, ""),
    ],
)
def test_text_of(record: dict[str, Any], text: str) -> None:
    assert plain_text(record) == text


def test_fields_choose_and_order_the_keys_whatever_is_left_out_otherwise() -> None:
    record = {"title": "X", "brand": "Y", "rank": 3}
    assert plain_text(record, ["rank", "title", "none"]) == "rank: 3; title: x"


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
