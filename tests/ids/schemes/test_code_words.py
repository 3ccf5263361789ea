"""Numbers as words, and fields read back from plain texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idgr.corpus.text import plain_text
from idgr.formats.item_text import read_fields
from idgr.ids.schemes.code_words import LEAF, LEVELS, among_equals, by_twos, code_word, width_of


@pytest.mark.parametrize(
    ("level", "number", "width", "word"),
    [(0, 0, 1, "aa"), (0, 17, 2, "aar"), (2, 255, 2, "cjv"), (24, 25, 1, "yz"), (25, 1, 1, "ab"), (LEAF, 27, 2, "zbb")],
)
def test_code_words(level: int | str, number: int, width: int, word: str) -> None:
    assert code_word(level, number, width) == word


def test_no_level_has_the_letter_of_leaves() -> None:
    assert LEAF not in {code_word(level, 0, 1)[0] for level in range(3 * LEVELS)}


@given(st.integers(1, 20_000), st.data())
def test_words_tell_numbers_apart_and_keep_their_order(count: int, data: st.DataObject) -> None:
    one, other = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    width = width_of(count)
    for spell in (lambda number: code_word(0, number, width), lambda number: by_twos(number, count)):
        assert (spell(one) < spell(other)) == (one < other)
        assert len(spell(one)) == len(spell(other))


def test_widths_are_the_least() -> None:
    assert [width_of(count) for count in (0, 1, 26, 27, 676, 677)] == [1, 1, 1, 2, 2, 3]
    assert [by_twos(99, 100), by_twos(99, 101), by_twos(777, 12_101)] == ["99", "00 99", "00 07 77"]


def test_among_equals() -> None:
    assert among_equals(["a", "b", "a", "a", "b"]) == [0, 0, 1, 2, 1]
    assert among_equals([]) == []


def test_fields_are_those_that_prep_wrote() -> None:
    record = {"title": "OPI: Lacquer; Red", "categories": [["Beauty", "Nails"], ["Beauty", "Gifts"]], "price": 5.5}
    assert read_fields(plain_text(record)) == {
        "title": "opi: lacquer; red",
        "categories": "beauty, nails, gifts",
        "price": "5.5",
    }


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("red nail polish", {}),
        ("title: a; title: b", {"title": "a"}),
        ("title: ; brand: x", {"title": "", "brand": "x"}),
        ("title: soap; red: the colour; brand: x", {"title": "soap", "red": "the colour", "brand": "x"}),
    ],
)
def test_what_is_no_plain_record(text: str, fields: dict[str, str]) -> None:
    assert read_fields(text) == fields
