"""IDs that begin with the words of the clusters in which items are used."""

from __future__ import annotations

import random
from collections import Counter

import faiss  # noqa: F401 - before `one_thread`, as is scikit-learn
import numpy as np
import pytest
import sklearn.utils.extmath  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.ids.keyphrase import words_of
from idgr.ids.schemes.bought_together import bought_vectors, near_pairs
from idgr.ids.schemes.cluster_words import cluster_word_ids, nested_clusters
from idgr.ids.schemes.libraries import one_thread
from idgr.ids.spelling import fold

# Green and black tea, copper and iron kettles; each kind is bought among itself, and of teas now and then the other.
KINDS = [("green", "tea"), ("black", "tea"), ("copper", "kettle"), ("iron", "kettle")]
TEXTS = [f"title: {first} {second} {name}{number}" for number, (first, second) in enumerate(KINDS)
         for name in ("ada", "bea", "cid", "dot", "eve")] + ["title: gift box zoe", "title: gift box yul"]  # fmt: skip
GREEN, BLACK, COPPER, IRON = ([*range(5 * kind, 5 * kind + 5)] for kind in range(4))
# The first gift is bought with green tea and the second with iron kettles.
KINDS_OF_USERS = [[*GREEN, 20], BLACK, COPPER, [*IRON, 21], [*GREEN, *BLACK], [*COPPER, *IRON]]
BOUGHT = [random.Random(n).sample(items, len(items)) for n in range(20) for items in KINDS_OF_USERS]

USUAL = {"cluster_size": 24, "n_telling": 4, "seed": 0}


def test_the_words_of_the_clusters_come_first() -> None:
    ids = cluster_word_ids(TEXTS, BOUGHT, cluster_size=5, n_telling=1, seed=0)
    assert [text.split()[:2] for text in ids] == [
        *[["tea", "green"]] * 5, *[["tea", "black"]] * 5, *[["kettle", "copper"]] * 5, *[["kettle", "iron"]] * 5,
        ["tea", "green"], ["kettle", "iron"],
    ]  # fmt: skip
    assert ids[-2:] == ["tea green gift", "kettle iron gift"]  # what is of two items tells more than a name of one
    assert [len(text.split()) for text in ids] == [3] * 22
    assert len(set(ids)) == 22


def test_telling_words_stand_in_the_order_of_the_text() -> None:
    texts = [f"title: soap {name} {colour}" for name, colour in zip("abcdefgh", ["red", "blue"] * 4, strict=True)]
    ids = cluster_word_ids([text.replace(" ", " big ", 1) for text in texts], [[*range(8)]] * 3, **USUAL)
    assert ids[0].split()[-2:] == ["a", "red"]


def test_items_that_nobody_bought_have_ids_too() -> None:
    assert cluster_word_ids(["title: green tea"] * 2, [], **USUAL) == ["green tea", "green"]
    assert cluster_word_ids(["", ""], [], **USUAL) == ["item 1", "item 2"]
    assert cluster_word_ids(["title: tea"], [[0]], **USUAL) == ["tea"]


def test_clusters_lie_within_larger_ones() -> None:
    drawn = np.random.default_rng(0)
    with one_thread():
        large_N, small_N = nested_clusters(drawn.normal(size=(600, 4)).astype(np.float32), 6, seed=0)
        again = nested_clusters(drawn.normal(size=(1, 4)).astype(np.float32), 6, seed=0)
    assert len(set(large_N.tolist())) == 10
    assert 60 <= len(set(small_N.tolist())) <= 140
    assert all(len(set(large_N[small_N == number].tolist())) == 1 for number in set(small_N.tolist()))
    assert not set(large_N.tolist()) & set(small_N.tolist())
    assert [level.tolist() for level in again] == [[0], [1]]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_unique_and_of_words_of_texts(data: st.DataObject) -> None:
    words = st.lists(st.sampled_from(["tea", "Tea", "pot", "cup", "tin", "9", "x", "the"]), max_size=6)
    texts = ["title: " + " ".join(row) for row in data.draw(st.lists(words, min_size=1, max_size=40))]
    bought = data.draw(st.lists(st.lists(st.integers(0, len(texts) - 1), max_size=6), max_size=8))
    size, telling = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 3))
    ids = cluster_word_ids(texts, bought, cluster_size=size, n_telling=telling, seed=1)
    assert len({fold(text) for text in ids}) == len(texts)
    assert ids == cluster_word_ids(texts, bought, cluster_size=size, n_telling=telling, seed=1)
    known = {word for text in texts for word in words_of(text)}
    assert all(word in known or word.isdigit() or word == "item" for text in ids for word in text.split())


@pytest.mark.parametrize("seed", range(3))
def test_no_word_stands_for_two_clusters(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    texts = [f"title: {' '.join(drawn.choice([f'w{chr(97 + n)}' for n in range(20)], 5))} n{n}" for n in range(200)]
    bought = [drawn.choice(200, 6).tolist() for _ in range(300)]
    ids = cluster_word_ids(texts, bought, cluster_size=20, n_telling=1, seed=seed)
    with one_thread():
        levels = nested_clusters(bought_vectors(bought, 200, seed), 20, seed)
    firsts = Counter((text.split()[0], int(number)) for text, number in zip(ids, levels[0], strict=True))
    assert len({word for word, _ in firsts}) == len({number for _, number in firsts}) == len(firsts)


def test_what_is_bought_with_the_same_items_points_the_same_way() -> None:
    """Items 0 and 1 are never bought together, but each with items 2 to 4."""
    bought = [[0, 2], [0, 3], [0, 4], [1, 2], [1, 3], [1, 4], [5, 6], [6, 7]] * 3
    with one_thread():
        found_ND = bought_vectors(bought, 9, seed=0)
    assert found_ND[0] @ found_ND[1] > 0.9
    assert abs(found_ND[0] @ found_ND[5]) < 1e-5
    assert not found_ND[8].any()
    near = near_pairs([[0, 1, 0, 2], [3]], 4).toarray()
    assert near.tolist() == [[0, 2, 4 / 3, 0], [2, 0, 1 / 2, 0], [4 / 3, 1 / 2, 0, 0], [0, 0, 0, 0]]
