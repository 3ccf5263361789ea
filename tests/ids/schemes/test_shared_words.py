"""IDs that begin with words an item shares with what is bought with it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.ids.keyphrase import words_of
from idgr.ids.schemes.shared_words import shared_word_ids

# Teas are bought with teas and kettles with kettles; the colour says nothing of it.
TEXTS = [f"title: {colour} {name} tea" for colour, name in zip(["red", "blue"] * 3, "abcdef", strict=True)]
TEXTS += [f"title: {colour} {name} kettle" for colour, name in zip(["red", "blue"] * 3, "ghijkl", strict=True)]
TEXTS = [text.replace(" a ", " assam ").replace(" g ", " gooseneck ") for text in TEXTS]
BOUGHT = [[0, 1, 2, 3, 4, 5], [5, 3, 1, 4, 2, 0], [6, 7, 8, 9, 10, 11], [11, 9, 7, 10, 8, 6]]


def test_the_word_that_purchases_share_comes_first() -> None:
    ids = shared_word_ids(TEXTS, BOUGHT, n_words=2, n_shared=1)
    assert ids[0] == "tea assam"
    assert ids[6] == "kettle gooseneck"
    assert [text.split()[0] for text in ids] == ["tea"] * 6 + ["kettle"] * 6


def test_without_purchases_or_shared_words_the_telling_words_stand_alone() -> None:
    telling = shared_word_ids(TEXTS, [], n_words=2, n_shared=1)
    assert telling == shared_word_ids(TEXTS, BOUGHT, n_words=2, n_shared=0)
    assert telling[0].split()[0] == "assam"


def test_an_id_has_the_words_asked_for_while_they_differ() -> None:
    assert [len(text.split()) for text in shared_word_ids(TEXTS, BOUGHT, n_words=3, n_shared=1)] == [3] * 12
    same = ["title: green tea"] * 3
    assert shared_word_ids(same, [[0, 1, 2]], n_words=2, n_shared=1) == ["green tea", "green tea 2", "green tea 3"]
    assert shared_word_ids(["", ""], [], n_words=3, n_shared=1) == ["item 1", "item 2"]


def test_of_equal_items_the_nearer_purchase_counts_more() -> None:
    """Item 0 is bought next to the x and four places from the y, which are as frequent."""
    texts = ["title: x y q", *[f"title: x p{n}" for n in range(4)], *[f"title: y r{n}" for n in range(4)]]
    ids = shared_word_ids(texts, [[0, 1, 2, 5, 6], [0, 3, 4, 7, 8]], n_words=2, n_shared=1)
    assert ids[0].split()[0] == "x"


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_unique_and_of_the_items_own_words(data: st.DataObject) -> None:
    words = st.lists(st.sampled_from(["tea", "Tea", "pot", "cup", "tin", "9", "x", "the"]), max_size=6)
    texts = ["title: " + " ".join(row) for row in data.draw(st.lists(words, min_size=1, max_size=12))]
    places = st.integers(0, len(texts) - 1)
    sequences = data.draw(st.lists(st.lists(places, max_size=6), max_size=6))
    n_words = data.draw(st.integers(1, 4))
    ids = shared_word_ids(texts, sequences, n_words, data.draw(st.integers(0, n_words)))
    assert len({text.lower() for text in ids}) == len(texts)
    for text, made in zip(texts, ids, strict=True):
        own = set(words_of(text))
        assert all(word in own or word.isdigit() or word == "item" for word in made.split())


@pytest.mark.parametrize("n_shared", [1, 2])
def test_a_shared_word_is_part_of_enough_texts(n_shared: int) -> None:
    texts = ["title: oolong tea", "title: oolong pot", *[f"title: tea b{n}" for n in range(4)]]
    texts += [f"title: cup c{n}" for n in range(25)]
    bought = [[0, 1]] * 6 + [[0, place] for place in range(2, 6)]
    ids = shared_word_ids(texts, bought, n_words=2, n_shared=n_shared)
    assert ids[0] == "tea oolong", "two items have `oolong`: too few to share it"
