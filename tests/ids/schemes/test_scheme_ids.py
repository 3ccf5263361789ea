"""The schemes: exact IDs of small catalogues, and what holds for all of them."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.errors import IdgrError, UsageError
from idgr.formats.records import Item
from idgr.ids.schemes import collaborative
from idgr.ids.schemes.category import category_ids
from idgr.ids.schemes.choice import scheme_ids
from idgr.ids.schemes.collaborative import co_occurrences, collaborative_ids, spectral_labels
from idgr.ids.schemes.options import SCHEMES, SchemeOptions
from idgr.ids.schemes.order import training_order
from idgr.ids.schemes.random_codes import random_ids
from idgr.ids.schemes.semantic import residual_codes, semantic_ids
from idgr.ids.schemes.sequential import sequential_ids
from idgr.ids.schemes.text_vectors import text_vectors
from idgr.ids.schemes.title import title_ids
from idgr.ids.spelling import clean_id, fold
from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec


def test_sequential_ids_are_numbers_by_first_occurrence_in_training() -> None:
    items = ["e", "d", "c", "b", "a", "x", "y"]
    ids = dict(zip(items, sequential_ids(items, [["c", "a"], ["a", "b", "e"], ["d"]], seed=0), strict=True))
    assert [ids[item] for item in "cabed"] == ["00", "01", "02", "03", "04"]
    assert {ids["x"], ids["y"]} == {"05", "06"}, "what training never shows comes last"
    assert sequential_ids([f"i{n}" for n in range(101)], [["i100"]], seed=0)[-1] == "00 00"


def test_the_order_of_the_unseen_is_one_of_chance() -> None:
    items = [f"i{n:03}" for n in range(200)]
    order, n_seen = training_order(items, [["i007", "i003"]], seed=0)
    assert (order[:2], n_seen, len(order)) == (["i007", "i003"], 2, 200)
    assert order == training_order(items[::-1], [["i007", "i003"]], seed=0)[0], "nor does the file's order tell"
    assert order != training_order(items, [["i007", "i003"]], seed=1)[0]
    ascending = sum(one < other for one, other in pairwise(order[2:]))
    assert 70 < ascending < 130


GROUPS = [[f"{letter}{n}" for n in range(6)] for letter in "pqr"]


def group_sequences() -> list[list[str]]:
    """Users who buy within one of three groups of six items; one user joins all groups."""
    rng = random.Random(0)
    rows = [rng.sample(group, 4) for group in GROUPS for _ in range(12)]
    return [*rows, ["p0", "q0", "r0"]]


def test_collaborative_ids_have_a_cluster_and_a_number() -> None:
    items = [item for group in GROUPS for item in group] + ["alone"]
    ids = dict(zip(items, collaborative_ids(items, group_sequences(), clusters=4, leaf_size=6, seed=0), strict=True))
    clusters = [{ids[item].split()[0] for item in group} for group in GROUPS]
    assert [sorted(cluster) for cluster in clusters] == [["aa"], ["ab"], ["ac"]], "one cluster a group, in their order"
    assert ids["alone"] == "ad za"
    order, _ = training_order(items, group_sequences(), 0)
    assert [ids[item] for item in order if item[0] == "p"] == [f"aa z{letter}" for letter in "abcdef"]


def test_collaborative_clusters_are_divided_again_and_parts_of_the_graph_are_clusters() -> None:
    """Two platforms with nothing in common, the larger of three groups of items."""
    other = [[f"o{n}", f"o{(n + 1) % 7}", f"o{(n + 2) % 7}"] for n in range(7)]
    items = [item for group in GROUPS for item in group] + [f"o{n}" for n in range(7)] + ["alone"]
    made = collaborative_ids(items, [*group_sequences(), *other], clusters=3, leaf_size=6, seed=0)
    ids = dict(zip(items, made, strict=True))
    assert [{ids[item].split()[0] for item in group} for group in GROUPS] == [{"aa"}] * 3
    assert len({ids[group[0]].split()[1] for group in GROUPS}) == 3
    assert {ids[f"o{n}"].split()[0] for n in range(7)} == {"ab"}
    assert ids["alone"].split()[0] == "ac"
    assert {len(text.split()) for text in made} == {2, 3}


def test_a_graph_that_cannot_be_divided_comes_to_an_end() -> None:
    items = [f"i{n}" for n in range(300)]
    for sequences in ([], [[item] for item in items], [[items[0], item] for item in items]):
        ids = collaborative_ids(items, sequences, clusters=2, leaf_size=3, seed=0)
        assert len(set(ids)) == 300
        assert max(len(text.split()) for text in ids) <= collaborative._DEEPEST + 12


def test_co_occurrences_are_counted_within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[0, 1, 2], [1, 0, 1], [3]]
    expected = np.array([[0, 3, 1, 0], [3, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert co_occurrences(rows, 4).toarray().tolist() == expected.tolist()
    monkeypatch.setattr(collaborative, "WINDOW", 1)
    assert co_occurrences(rows, 4).toarray()[0].tolist() == [0, 3, 0, 0]
    assert co_occurrences([], 4).shape == (4, 4)


@pytest.mark.parametrize("n_each", [10, 150])
def test_spectral_labels_find_planted_clusters(n_each: int) -> None:
    """By the full matrix and by an iteration: three dense blocks on a ring of weak links."""
    from scipy.sparse import csr_array

    rng = np.random.default_rng(0)
    n = 3 * n_each
    block = np.arange(n) // n_each
    full = np.where(block[:, None] == block, rng.random((n, n)) < 0.3, 0.0) + np.eye(n, k=1) * 0.01
    labels = spectral_labels(csr_array(full + full.T), 3, seed=0)
    assert labels.tolist() == block.tolist()


def items_of(texts: list[str]) -> list[Item]:
    return [Item(f"I{place}", text) for place, text in enumerate(texts)]


def test_category_ids() -> None:
    texts = [
        "title: a; categories: Beauty, Nails & Polish",
        "title: b; categories: beauty, nails & polish",
        "title: c; categories: beauty, nails & polish, matte",
        "title: d",
        "title: e; categories: &, —",
        "title: f; categories: other",
    ]
    expected = ["Beauty Nails Polish 1", "beauty nails polish 2", "beauty nails polish matte 1", "other 1", "other 2",
                "other 3"]  # fmt: skip
    assert category_ids(items_of(texts), "categories", 5) == expected
    assert category_ids(items_of(texts), "Categories", 2)[2] == "beauty nails polish 3"
    with pytest.raises(IdgrError, match=r"no item has a field 'genres'; .*--category-field"):
        category_ids(items_of(texts), "genres", 5)


def test_title_ids() -> None:
    texts = [
        "title: OPI: Red, Red Lacquer; brand: opi",
        "brand: opi; title: opi red red wine",
        "title: opi red red 2; brand: x",
        "title: opi red red",
        "name: golden curry; title: ",
        "hair dryer of no field at all",
        "title: 🎉",
        "title: ; brand: ",
        "title: 红色指甲油红色指甲油",
    ]
    assert title_ids(items_of(texts), "title", 3) == [
        "OPI Red Red",
        "opi red red 2",
        "opi red red 3",
        "opi red red 4",
        "golden curry",
        "hair dryer of",
        "item 1",
        "item 2",
        "红色 指甲 油红",
    ]


def test_random_ids() -> None:
    ids = random_ids(16, levels=2, codebook=4, seed=0)
    assert sorted(ids) == [f"a{one} b{other}" for one in "abcd" for other in "abcd"]
    assert ids != sorted(ids)
    assert ids == random_ids(16, levels=2, codebook=4, seed=0) != random_ids(16, levels=2, codebook=4, seed=1)
    with pytest.raises(UsageError, match="give 16 IDs for 17 items"):
        random_ids(17, levels=2, codebook=4, seed=0)


def test_semantic_ids_have_codes_and_a_word_for_conflicts() -> None:
    # Two far clusters, each of two near ones: the first level tells the far ones apart, the second the near ones.
    near = np.array([[0, 0], [0, 1], [10, 0], [10, 1], [0, 0], [0, 0]], dtype=np.float32)
    ids = [text.split() for text in semantic_ids(near, levels=2, codebook=2, seed=0)]
    first, second, third = zip(*ids, strict=True)
    assert first[0] == first[1] == first[4] == first[5] != first[2] == first[3]
    assert len({(one, other) for one, other in zip(first, second, strict=True)}) == 4
    assert third == ("ca", "ca", "ca", "ca", "cb", "cc")


def test_residual_codes_come_nearer_with_every_level() -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    codes = residual_codes(vectors, levels=3, codebook=8, seed=0)
    assert codes.shape == (400, 3)
    assert codes.min() == 0
    assert codes.max() == 7
    spread = []
    for depth in range(4):
        _, group = np.unique(codes[:, :depth], axis=0, return_inverse=True)
        group = group.ravel()
        centres = np.stack([vectors[group == n].mean(axis=0) for n in range(group.max() + 1)])
        spread.append(float(((vectors - centres[group]) ** 2).sum()))
    assert spread[0] > 1.2 * spread[1] > 1.3 * spread[2] > 1.4 * spread[3]
    assert (residual_codes(vectors[:3], levels=3, codebook=8, seed=0)[:, 1:] == 0).all(), "nothing is left over"


def test_vectors_of_equal_words_are_equal_and_of_length_one() -> None:
    texts = ["title: red soap", "title: Red soap!", "title: blue lamp", "🎉"] + [f"title: word{n}" for n in range(90)]
    vectors = text_vectors(texts, "tfidf", seed=0)
    assert vectors.dtype == np.float32
    assert vectors.shape == (94, 64)
    assert np.linalg.norm(vectors[:3], axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[1] == pytest.approx(1, abs=1e-5)
    assert abs(vectors[0] @ vectors[2]) < 0.1
    assert text_vectors(["a"], "tfidf", seed=0).tolist() == [[1.0]]


def test_vectors_of_an_encoder(generator_folder: Path) -> None:
    texts = ["red nail polish", "blue hair dryer with a longer text", "red nail polish"]
    vectors = text_vectors(texts, str(generator_folder), seed=0)
    assert vectors.shape == (3, 32)
    assert (vectors[0] == vectors[2]).all()
    assert text_vectors(texts[:1], str(generator_folder), seed=0)[0] == pytest.approx(vectors[0], abs=1e-5), (
        "padding plays no part"
    )
    with pytest.raises(IdgrError, match="there is no such folder"):
        text_vectors(texts, "/nowhere", seed=0)


TITLES = st.text(alphabet="aAbß 2;:,&é红", max_size=8)


@pytest.fixture(scope="module")
def sasrec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Item vectors for the keys that are drawn below."""
    folder = tmp_path_factory.mktemp("sasrec")
    keys = ["k", *(f"k{n}" for n in range(30))]
    save_sasrec(new_sasrec(SasrecConfig(len(keys), width=4, layers=1), seed=0), keys, folder)
    return str(folder)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TITLES, TITLES), min_size=1, max_size=30), st.integers(0, 3))
def test_ids_are_words_and_unique_and_the_same_again(sasrec: str, texts: list[tuple[str, str]], seed: int) -> None:
    items = [Item("k", "categories: a")]  # one at least has the field
    items += [Item(f"k{n}", f"title: {title}; categories: {names}" if names else title)
              for n, (title, names) in enumerate(texts)]  # fmt: skip
    keys = [item.item_id for item in items]
    drawn = random.Random(seed)
    sequences = [[drawn.choice(keys) for _ in range(4)] for _ in range(6)]
    for scheme in SCHEMES:
        options = SchemeOptions(scheme, seed, clusters=3, leaf_size=4, codebook=6, item_vectors=sasrec)
        ids = scheme_ids(items, sequences, options)
        assert len({fold(text) for text in ids}) == len(items)
        for text in ids:
            assert text == clean_id(text)
            assert re.fullmatch(r"\S+( \S+)*", text)
        assert ids == scheme_ids(items, sequences, options)


@pytest.mark.parametrize("scheme", ["collaborative", "semantic", "clusters"])
def test_ids_do_not_depend_on_the_number_of_threads(scheme: str) -> None:
    import sklearn.cluster  # noqa: F401 - its libraries must be there to be limited
    from threadpoolctl import threadpool_limits

    drawn = random.Random(0)
    words = [f"word{n}" for n in range(300)]
    items = [Item(f"i{n}", " ".join(drawn.sample(words, 6))) for n in range(500)]
    sequences = [[f"i{(start + drawn.randrange(40)) % 500}" for _ in range(8)] for start in range(500)]
    options = SchemeOptions(scheme, leaf_size=20, codebook=16)
    made = []
    for threads in (1, 3):
        with threadpool_limits(threads):
            made.append(scheme_ids(items, sequences, options))
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"scheme": "rqvae"}, "--scheme rqvae"),
        ({"clusters": 1}, "--clusters 1"),
        ({"leaf_size": 0}, "--leaf-size 0"),
        ({"levels": 25}, "--levels 25"),
        ({"codebook": 0}, "--codebook 0"),
        ({"title_words": 0}, "--title-words 0"),
    ],
)
def test_numbers_out_of_range(wrong: dict[str, int | str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        SchemeOptions(**{"scheme": "random", **wrong})  # type: ignore[arg-type]
