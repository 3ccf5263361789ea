"""Trees of vectors and their IDs: exact paths of tiny vectors, and what holds for all."""

from __future__ import annotations

import random
from collections import Counter
from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.cli.main import run
from idgr.errors import IdgrError, UsageError
from idgr.formats.item_text import read_fields
from idgr.formats.records import Item, read_items
from idgr.ids.schemes.choice import scheme_ids
from idgr.ids.schemes.item_vectors import item_vectors
from idgr.ids.schemes.options import TREES, SchemeOptions
from idgr.ids.schemes.text_vectors import text_vectors
from idgr.ids.schemes.tree_words import check_room, dual_paths, path_words, single_paths
from idgr.ids.schemes.vector_tree import divide, tree_paths, usual_branches
from idgr.models.backbone import CausalPreset, load_causal_backbone, new_causal_backbone, save_backbone
from idgr.models.sasrec import SasrecConfig, new_sasrec, save_sasrec
from idgr.models.tokenizer import train_tokenizer

# Two far groups, of two near groups each.
GROUPED = np.array([[0, 0], [10, 0], [0, 1], [10, 1], [0, 0], [10, 1]], dtype=np.float32)


def sasrec_folder(folder: Path, keys: list[str], vectors: np.ndarray | None = None) -> str:
    folder.mkdir()
    model = new_sasrec(SasrecConfig(len(keys), width=4 if vectors is None else vectors.shape[1], layers=1), seed=0)
    if vectors is not None:
        with torch.no_grad():
            model.items.weight[:-1] = torch.from_numpy(vectors)
    save_sasrec(model, keys, folder)
    return str(folder)


def test_paths_of_grouped_vectors() -> None:
    """The far groups at the first level, the near ones at the second, and equal vectors at the last in their order."""
    paths = tree_paths(GROUPED, levels=3, codebook=4, branches=2, seed=0)
    assert paths.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]]
    assert path_words(paths[1:2], 4) == ["ab ba ca"]
    assert path_words(np.array([[17, 255]]), 256) == ["aar bjv"]
    # With as many children as different vectors, the first level tells them all apart.
    paths = tree_paths(GROUPED, levels=2, codebook=4, branches=4, seed=0)
    assert paths.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0], [0, 1], [3, 1]]
    assert tree_paths(GROUPED[:1], levels=2, codebook=1, branches=1, seed=0).tolist() == [[0, 0]]


def test_a_part_holds_no_more_than_it_may() -> None:
    """Five at one place and one elsewhere, at most three a part: the nearest stay."""
    line = np.array([[0.0], [0.2], [0.1], [9.0], [0.3], [0.4]], dtype=np.float32)
    assert divide(line, 2, 5, seed=0).tolist() == [0, 0, 0, 1, 0, 0]
    crowded = divide(line, 2, 3, seed=0)
    # The centre is at 0.2, so those at 0 and 0.4 are the farthest and must go.
    assert np.bincount(crowded).tolist() == [3, 3]
    assert len({int(crowded[place]) for place in (1, 2, 4)}) == 1
    assert crowded[3] != crowded[1]
    same = np.zeros((7, 2), dtype=np.float32)
    assert divide(same, 2, 3, seed=0).tolist() == [0, 0, 0, 1, 1, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_paths_are_different_and_below_the_codebook(data: st.DataObject) -> None:
    """Few different vectors, many equal ones, and catalogues that take all paths there are."""
    levels, codebook = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 5))
    count = data.draw(st.integers(1, min(60, codebook**levels)) | st.just(min(60, codebook**levels)))
    places = data.draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    vectors = np.array([[place % 3, place // 3] for place in places], dtype=np.float32)
    branches = data.draw(st.integers(2, codebook))
    paths = tree_paths(vectors, levels, codebook, branches, seed=0)
    assert paths.shape == (count, levels)
    assert len({tuple(path) for path in paths.tolist()}) == count
    assert 0 <= paths.min() <= paths.max() < codebook
    assert (paths == tree_paths(vectors, levels, codebook, branches, seed=0)).all()


@pytest.mark.parametrize("levels", range(2, 9))
def test_dual_paths_are_different_in_each_half(levels: int) -> None:
    """At every length of the paper's; where a half is too short to be unique, both together are."""
    drawn = np.random.default_rng(levels)
    semantic, behavior = (drawn.integers(0, 3, (250, 3)).astype(np.float32) for _ in range(2))
    paths = dual_paths(semantic, behavior, levels, codebook=17, branches=0, seed=0)
    assert paths.shape == (250, levels)
    assert paths.max() < 17
    assert len(np.unique(paths, axis=0)) == 250
    half = levels - levels // 2
    if levels > 2:
        assert len(np.unique(paths[:, :half], axis=0)) == 250
        assert (paths[:, :half] == single_paths(semantic, half, 17, 0, 0)).all()
    if levels > 3:
        assert len(np.unique(paths[:, half:], axis=0)) == 250


def test_a_short_dual_id_has_near_behaviour_codes() -> None:
    """Two levels: items of a semantic group take different codes, the nearest where they can."""
    semantic = np.array([[0], [0], [9], [9]], dtype=np.float32)
    behavior = np.array([[0], [9], [0], [0.1]], dtype=np.float32)
    paths = dual_paths(semantic, behavior, 2, codebook=2, branches=0, seed=0)
    assert paths[:, 0].tolist() == [0, 0, 1, 1]
    zero, nine = paths[0, 1], paths[1, 1]
    assert zero != nine
    assert paths[2:, 1].tolist() == [zero, nine], "the nearer one keeps the code that both are near to"
    alone = dual_paths(semantic[:3], behavior[:3], 3, codebook=2, branches=0, seed=0)
    assert alone[:, 2].tolist() == [alone[0, 2], 1 - alone[0, 2], alone[0, 2]], "two items may share a behaviour code"


def test_usual_branches() -> None:
    assert [usual_branches(12_101, levels, 256) for levels in (2, 3, 4)] == [221, 37, 15]
    assert usual_branches(100_000, 2, 256) == 256
    assert usual_branches(1, 8, 256) == 2


@pytest.mark.parametrize(
    ("n_items", "levels", "dual", "what"),
    [
        (65, 3, False, "--codebook 4 has 64 paths of 3 levels for 65 items"),
        (17, 2, True, "has 16 paths of 2 levels for 17"),
        (17, 3, True, "has 16 paths of 2 of the 3 levels for 17"),
        (17, 5, True, "has 16 paths of 2 of the 5 levels for 17"),
        (3, 1, True, "--levels 1 of a dual ID"),
    ],
)
def test_too_few_paths(n_items: int, levels: int, dual: bool, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        check_room(n_items, levels, 4, dual=dual)
    if levels > 1:
        check_room(n_items - 1, levels, 4, dual=dual)


def test_branches_out_of_range() -> None:
    for branches in (-1, 1, 257):
        with pytest.raises(UsageError, match=f"--branches {branches}"):
            SchemeOptions("dual", branches=branches)


def shop_items() -> list[Item]:
    drawn = random.Random(0)
    words = [f"word{n}" for n in range(200)]
    return [Item(f"i{n}", " ".join(drawn.sample(words, 5))) for n in range(300)]


@pytest.mark.parametrize("scheme", TREES)
def test_ids_do_not_depend_on_threads_or_on_the_order_of_items(scheme: str, tmp_path: Path) -> None:
    import faiss

    items = shop_items() + [Item(f"same{n}", "equal words") for n in range(3)]
    folder = sasrec_folder(tmp_path / "sasrec", [item.item_id for item in items])
    options = SchemeOptions(scheme, levels=4, codebook=32, item_vectors=folder)
    made = scheme_ids(items, [], options)
    assert len(set(made)) == len(items)
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        apply_rotary = scheme_ids(items[::-1], [], options)
    finally:
        faiss.omp_set_num_threads(before)
    assert apply_rotary[::-1] == made


def entropy(clusters: list[str], labels: list[str]) -> float:
    """The entropy in bits of the labels within a cluster, on average over the items."""
    sizes, pairs = Counter(clusters), Counter(zip(clusters, labels, strict=True))
    return sum(n * log2(sizes[cluster] / n) for (cluster, _), n in pairs.items()) / len(labels)


def test_first_levels_are_purer_than_chance(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run(["prep", "demo", "--items", "300", "--users", "100", "--seed", "1", "-o", str(data)]) == 0
    items = read_items(data / "items.jsonl")
    labels = [read_fields(item.text)["categories"].split(",")[0] for item in items]
    kinds = sorted(set(labels))
    assert len(kinds) > 3
    # Behaviour vectors that say the category, blurred.
    drawn = np.random.default_rng(0)
    planted = np.stack([np.eye(len(kinds) + len(kinds) % 2)[kinds.index(label)] for label in labels])
    planted = (planted + drawn.normal(0, 0.2, planted.shape)).astype(np.float32)
    folder = sasrec_folder(tmp_path / "sasrec", [item.item_id for item in items], planted)
    for scheme in TREES:
        ids = scheme_ids(items, [], SchemeOptions(scheme, levels=4, codebook=64, item_vectors=folder))
        # The first word of each source.
        for place in (0, 2) if scheme == "dual" else (0,):
            clusters = [text.split()[place] for text in ids]
            shuffled = random.Random(0)
            by_chance = [entropy(shuffled.sample(clusters, len(clusters)), labels) for _ in range(20)]
            assert entropy(clusters, labels) < 0.6 * min(by_chance), (scheme, place)


def test_item_vectors_are_of_length_one_and_in_the_order_asked_for(tmp_path: Path) -> None:
    vectors = np.array([[3, 4], [0, 0], [0, 2]], dtype=np.float32)
    folder = sasrec_folder(tmp_path / "sasrec", ["a", "b", "c"], vectors)
    assert item_vectors(["c", "a", "b"], folder) == pytest.approx(np.array([[0, 1], [0.6, 0.8], [0, 0]]))
    with pytest.raises(IdgrError, match=r"sasrec: does not know 2 of 3 items, the first of them 'x'; .*--items"):
        item_vectors(["a", "x", "y"], folder)


def test_text_vectors_of_a_causal_model(tmp_path: Path) -> None:
    """The mean of a Llama's own last states over the tokens of the text alone."""
    texts = ["red nail polish", "blue hair dryer with a much longer text", "red"]
    preset = CausalPreset(d_model=16, d_ff=32, num_layers=2, num_heads=2, vocab_size=350)
    folder = tmp_path / "llama"
    folder.mkdir()
    save_backbone(new_causal_backbone(preset, train_tokenizer(texts, 350), seed=0), folder)
    vectors = text_vectors(texts, str(folder), seed=0)
    backbone = load_causal_backbone(str(folder))
    for text, vector in zip(texts, vectors, strict=True):
        tokens = backbone.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = backbone.model.eval()(input_ids=tokens, output_hidden_states=True).hidden_states[-1][0]
        mean = states.mean(0).numpy()
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    # Llamas as they are published have no token to fill up rows with.
    backbone.tokenizer.pad_token = None
    backbone.tokenizer.save_pretrained(folder)
    assert text_vectors(texts, str(folder), seed=0) == pytest.approx(vectors, abs=1e-6)
