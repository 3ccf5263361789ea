"""Pairs of items whose texts or buyers are alike: what they add to the scores of an item head."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError
from idgr.evaluation.shared_words import fit_shared_words
from idgr.formats.rec_folder import ITEM_HEAD
from idgr.recommender import item_loss as item_loss_module
from idgr.recommender.contrast import beside
from idgr.recommender.item_head import AGES, IdTokens, ItemObjective, item_scores, new_item_head
from idgr.recommender.item_head_file import load_item_head, save_item_head
from idgr.recommender.item_loss import item_loss
from idgr.recommender.near_items import NearItems, NearScores, OwnItems, near_items
from idgr.recommender.sequences import window_loss
from idgr.recommender.told_items import newest_items
from idgr.stages.train_rec import Options

from .test_causal_command import lists_of, train_rec
from .test_item_head import EOS, SEQUENCES, made

TEXTS = [
    "red nail polish", "blue nail polish", "red lipstick", "hair brush", "hair dryer", "soap", "blue soap",
    "nail file", "brush", "red red nail polish remover",
]  # fmt: skip
WEIGHT = torch.tensor([3.0, 2.0, 1.0, 5.0, 0.5, 0.25])


def plain(newest: list[int], sequences: list[list[int]], weight_F: torch.Tensor = WEIGHT) -> list[float]:
    """What is added to the scores of all items, from the definition: `sequences` are those that are counted."""
    words = fit_shared_words(TEXTS).items_IW.toarray()
    weights = weight_F.tolist()
    sets = [set(row) for row in sequences]
    count = [sum(item in row for row in sets) for item in range(len(TEXTS))]
    added = [0.0] * len(TEXTS)
    for age, item in enumerate(newest):
        for other in range(len(TEXTS)):
            if other == item:
                continue
            both = sum(item in row and other in row for row in sets)
            use = both / math.sqrt(count[item] * count[other]) if both else 0.0
            added[other] += float(weights[age] * words[item] @ words[other] + weights[AGES + age] * use)
    return added


def dense(near: NearScores, n_rows: int, weight_F: torch.Tensor = WEIGHT) -> torch.Tensor:
    logits = torch.zeros(n_rows, len(TEXTS))
    item_loss_module.add_near(logits, near, weight_F)
    return logits


def test_scores_are_those_of_the_definition() -> None:
    near = near_items(TEXTS, SEQUENCES, len(TEXTS))
    newest = [[1, 3, 0], [9, 5], [4], []]
    padded = np.array([[*row, -1, -1, -1][:AGES] for row in newest])
    np.testing.assert_allclose(dense(near.scores(padded), 4), [plain(row, SEQUENCES) for row in newest], atol=1e-6)


def test_a_training_sequence_is_left_out_of_its_own_counts() -> None:
    near, own = near_items(TEXTS, SEQUENCES, len(TEXTS)), OwnItems.of(SEQUENCES, len(TEXTS))
    newest = np.array([[0, -1, -1], [3, 0, -1], [6, 4, 4], [0, 6, 7]])
    found = dense(near.scores(newest, (own, np.array([0, 0, 2, 3]))), 4)
    for row, sequence in enumerate([0, 0, 2, 3]):
        others = [items for number, items in enumerate(SEQUENCES) if number != sequence]
        items = [item for item in newest[row].tolist() if item >= 0]
        np.testing.assert_allclose(found[row], plain(items, others), atol=0.35)  # other items' counts stay as they are
        mine = sorted(set(SEQUENCES[sequence]))
        np.testing.assert_allclose(found[row][mine], np.array(plain(items, others))[mine], atol=1e-6)


def test_the_nearest_are_kept() -> None:
    near = near_items(TEXTS, SEQUENCES, 2)
    words = fit_shared_words(TEXTS).items_IW.toarray()
    alike = words @ words.T
    np.fill_diagonal(alike, 0)
    for item in range(len(TEXTS)):
        part = slice(near.text.begin[item], near.text.begin[item + 1])
        wanted = sorted(alike[item])[::-1][:2]
        assert sorted(near.text.value[part].tolist())[::-1] == pytest.approx([value for value in wanted if value])
        assert (np.diff(near.text.other[part]) > 0).all()
    assert np.diff(near.use.begin).max() == 2


@pytest.mark.parametrize("most", [1, 25, 1 << 24])
def test_the_loss_and_its_gradient_are_those_of_cross_entropy(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(item_loss_module._MOST_SCORES, "cpu", most)
    drawn = np.random.default_rng(1)
    query = torch.tensor(drawn.normal(size=(7, 4)), dtype=torch.float32, requires_grad=True)
    vectors = torch.tensor(drawn.normal(size=(len(TEXTS), 4)), dtype=torch.float32, requires_grad=True)
    weight = WEIGHT.clone().requires_grad_()
    items = torch.from_numpy(drawn.integers(0, len(TEXTS), size=7))
    newest = drawn.integers(-1, len(TEXTS), size=(7, AGES))
    near = near_items(TEXTS, SEQUENCES, 4).scores(newest)
    features = torch.zeros(7, len(TEXTS), len(WEIGHT)).index_put_(
        tuple(torch.from_numpy(part) for part in (near.row, near.item, near.feature)),
        torch.from_numpy(near.value),
        accumulate=True,
    )
    wanted = F.cross_entropy(query @ vectors.T + features @ weight, items, reduction="sum")
    expected = torch.autograd.grad(2 * wanted, [query, vectors, weight])
    loss = item_loss(query, vectors, items, near, weight)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    for mine, theirs in zip(torch.autograd.grad(2 * loss, [query, vectors, weight]), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def with_pairs(model: Any, rows: list[list[int]]) -> ItemObjective:
    near, own = near_items(TEXTS, SEQUENCES, 5), OwnItems.of(SEQUENCES, len(rows))
    return new_item_head(model, rows, 1.0, 0.0, 4, EOS, near=near, own=own)


@pytest.mark.parametrize("reorder", [0.0, 3.0])
def test_training_asks_with_the_items_that_a_window_shows_before_a_target(
    reorder: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows, windows = made()
    both, asked = with_pairs(model, rows), []
    scores = NearItems.scores

    def recorded(self: NearItems, newest: Any, own: Any = None) -> NearScores:
        asked.append((newest.tolist(), own[1].tolist()))
        return scores(self, newest, own)

    monkeypatch.setattr(NearItems, "scores", recorded)
    batch = np.array([2, 0])
    with beside(model, None, both):
        loss, _ = window_loss(model, build_trie(rows, EOS), windows, "trie", None, both, reorder=reorder)(batch, 0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert both.head.near_weight is not None
    assert both.head.near_weight.grad is not None
    assert both.head.near_weight.grad.abs().min() > 0
    ((newest, sequences),) = asked
    assert sequences == [2, 2, 0, 0, 0, 0]
    if not reorder:
        assert newest == [[4, -1, -1], [4, 4, -1], [0, -1, -1], [3, 0, -1], [1, 3, 0], [8, 1, 3]]
    else:
        assert all(set(row) - {-1} <= set(SEQUENCES[sequence]) for row, sequence in zip(newest, sequences, strict=True))


def test_searches_find_the_newest_items_in_prompts() -> None:
    number = {(7,): 0, (8, 9): 1, (7, 9): 2}
    prompts = [[1, 7, 1, 8, 9, 1, 7, 9], [1, 8, 9], [], [5, 1, 7, 9], [7, 1, 7, 1, 7, 1, 8, 9]]
    found = newest_items(prompts, number, 1, 3).tolist()
    assert found == [[2, 1, 0], [1, -1, -1], [-1, -1, -1], [2, -1, -1], [1, 0, 0]]


def test_a_head_is_read_again_for_another_catalogue(tmp_path: Path) -> None:
    model, rows, _ = made()
    both = with_pairs(model, rows)
    keys = [f"I{item}" for item in range(len(rows))]
    save_item_head(both.head, keys, tmp_path)
    order = [4, 9, 0, 2, 1]  # and a new one between
    place = {item: number + (number > 1) for number, item in enumerate(order)}
    loaded = load_item_head(tmp_path, [keys[4], keys[9], "new", keys[0], keys[2], keys[1]], 16)
    newest = [[9, 4, -1], [1, 0, 2]]
    states, prompts = (
        torch.randn(3, 16),
        [[EOS, *rows[4], EOS, *rows[9]], [EOS, *rows[2], EOS, *rows[0], EOS, *rows[1]]],
    )
    ids = IdTokens.of([rows[4], rows[9], [999 % 400], rows[0], rows[2], rows[1]], torch.device("cpu"))
    found = item_scores(loaded, model, ids, EOS)(states[:2], prompts)
    assert found.exp().sum(1).tolist() == pytest.approx([1, 1])
    assert both.head.near is not None
    assert loaded.near is not None
    assert both.head.near_weight is not None
    here = dense(both.head.near.scores(np.array(newest)), 2, both.head.near_weight.detach())
    there = torch.zeros(2, 6)
    moved = np.array([[place.get(item, -1) for item in row] for row in newest])
    item_loss_module.add_near(there, loaded.near.scores(moved), both.head.near_weight.detach())
    assert not there[:, 2].any()
    for item, number in place.items():
        torch.testing.assert_close(there[:, number], here[:, item])


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    model, rows, _ = made()
    keys = [f"I{item}" for item in range(len(rows))]
    save_item_head(with_pairs(model, rows).head, keys, tmp_path)
    whole = load_file(tmp_path / ITEM_HEAD)
    damages = ({"pairs.use_other": whole["pairs.use_other"][:-1]}, {"pairs.text_other": whole["pairs.text_other"] + 99})
    for damage in (*damages, {"pairs.count": whole["pairs.count"][:-1]}):
        save_file(whole | damage, tmp_path / ITEM_HEAD, metadata={"items": orjson.dumps(keys).decode()})
        with pytest.raises(IdgrError, match=r"item_head\.safetensors: .*pairs"):
            load_item_head(tmp_path, keys, 16)
    left = {name: tensor for name, tensor in whole.items() if not name.startswith("pairs.")}
    save_file(left, tmp_path / ITEM_HEAD, metadata={"items": orjson.dumps(keys).decode()})
    with pytest.raises(IdgrError, match="near_weight"):
        load_item_head(tmp_path, keys, 16)


@pytest.mark.parametrize(
    ("given", "n"),
    [
        ({"item_head": 1.0, "items": "items.jsonl"}, 50),
        ({"item_head": 1.0, "items": "items.jsonl", "near_items": 0, "reconstruction": 0.5}, 0),
        ({"item_head": 1.0}, 0),
        ({"reconstruction": 0.5, "items": "items.jsonl"}, 0),
    ],
)
def test_a_head_with_texts_heeds_near_items_by_default(given: dict[str, Any], n: int) -> None:
    assert Options(train="train.jsonl", ids="ids.jsonl", arch="causal", output="rec", **given).near_items == n


def test_the_command(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--near-items", "4", "--items", str(data / "items.jsonl")]
    assert run(train_rec(data, *options, "--epochs", "1")) == 2
    assert "--near-items without --item-head" in capfd.readouterr().err
    assert run(train_rec(data, "--item-head", "1", "--near-items", "4", "--epochs", "1")) == 2
    assert "--near-items without --items" in capfd.readouterr().err
    assert run(train_rec(data, "--item-head", "1", *options, "--epochs", "2")) == 0
    head = load_file(data / "out" / ITEM_HEAD)
    assert not torch.equal(head["near_weight"], new_weight())
    assert lists_of(data, "1") == lists_of(data, "32")


def new_weight() -> torch.Tensor:
    model, rows, _ = made()
    weight = with_pairs(model, rows).head.near_weight
    assert weight is not None
    return weight.detach()
