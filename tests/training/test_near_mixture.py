"""A softmax of near items mixed into that of an item head: its definition, its fit, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.decoding.trie import build_trie
from idgr.evaluation.metrics import ndcg, target_ranks
from idgr.formats.rec_folder import ITEM_HEAD
from idgr.prompts.histories import HistoryRenderer
from idgr.recommender import item_head
from idgr.recommender.item_head import IdTokens, item_scores
from idgr.recommender.item_head_file import load_item_head, save_item_head
from idgr.recommender.near_items import NearScores
from idgr.recommender.near_mixture import NearMixture, fit_near_mixture
from idgr.recommender.options import RecommenderOptions
from idgr.recommender.training import mix_near_items, validation

from .test_causal_command import train_rec
from .test_item_head import EOS, made
from .test_near_items import with_pairs

USERS = [([0, 3], 1), ([9], 5), ([4, 6, 2], 7), ([8, 1, 3], 2)]


def drawn(n_rows: int, n_items: int, n_features: int, seed: int) -> tuple[torch.Tensor, NearScores, torch.Tensor]:
    """Scores, what near items add to them, and the same as a matrix [n_rows, n_items, n_features]."""
    random = np.random.default_rng(seed)
    learnt = torch.from_numpy(random.normal(size=(n_rows, n_items)).astype(np.float32) * 2)
    row, item = np.nonzero(random.random((n_rows, n_items)) < 0.2)
    feature = random.integers(0, n_features, size=len(row))
    value = random.random(len(row)).astype(np.float32)
    dense = torch.zeros(n_rows, n_items, n_features)
    dense[row, item, feature] = torch.from_numpy(value)
    return learnt, NearScores(row, item, feature, value), dense


def test_the_mixture_is_that_of_two_softmaxes() -> None:
    learnt, near, dense = drawn(4, 9, 3, seed=0)
    mixture = NearMixture(torch.tensor([1.0, 2.0, 0.5]))
    with torch.no_grad():
        mixture.alone.copy_(torch.tensor([4.0, -1.0, 3.0]))
        mixture.scale.fill_(0.7)
        found = mixture.log_probs(learnt.clone(), near)
        within = ((learnt + dense @ mixture.within) * 0.7).softmax(1)
        alone = (dense @ torch.tensor([4.0, -1.0, 3.0])).softmax(1)
    wanted = (1 - mixture.share) * within + mixture.share * alone
    torch.testing.assert_close(found.exp(), wanted)
    assert mixture.share == pytest.approx(1 / (1 + np.e))


def test_the_fit_finds_the_mixture_that_targets_were_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the targets follow pairs alone; items of histories are no rivals, however high their scores are."""
    from idgr.recommender import near_mixture

    monkeypatch.setattr(near_mixture, "_MOST_SCORES", 30 * 7000)  # several parts
    n, n_items = 20_000, 30
    learnt, near, _ = drawn(n, n_items, 2, seed=1)
    truth = NearMixture(torch.tensor([1.0, 1.0]))
    with torch.no_grad():
        truth.within.copy_(torch.tensor([2.0, 0.0]))
        truth.alone.copy_(torch.tensor([3.0, 6.0]))
        truth.log_odds.fill_(0.0)
        truth.scale.fill_(0.6)
        barred = torch.zeros(n, n_items, dtype=torch.bool)
        barred[:, 0] = True
        learnt[:, 0] = 50
        chance = truth.log_probs(learnt.clone(), near, barred_BI=barred).exp()
        targets = torch.multinomial(chance, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    identity = torch.eye(n_items)  # the products of query and vectors are the scores
    found = fit_near_mixture(torch.ones(2), learnt, identity, near, [[0]] * n, targets.tolist())
    assert not any(one.requires_grad for one in found.parameters())
    assert found.share == pytest.approx(0.5, abs=0.05)
    assert found.scale.item() == pytest.approx(0.6, abs=0.05)
    assert found.alone.tolist() == pytest.approx([3.0, 6.0], abs=0.5)
    assert found.within.tolist() == pytest.approx([2.0, 0.0], abs=0.5)


def test_it_is_saved_with_the_head(tmp_path: Path) -> None:
    model, rows, _ = made()
    objective = with_pairs(model, rows)
    objective.mix(
        model, torch.randn(4, 16, generator=torch.Generator().manual_seed(0)), [h for h, _ in USERS], [1, 5, 7, 2]
    )
    keys = [f"I{item}" for item in range(len(rows))]
    save_item_head(objective.head, keys, tmp_path)
    loaded = load_item_head(tmp_path, keys, 16)
    states, prompts = torch.randn(2, 16), [[EOS, *rows[4], EOS, *rows[9]], [EOS, *rows[2]]]
    ids = IdTokens.of(rows, torch.device("cpu"))
    found = item_scores(loaded, model, ids, EOS)(states, prompts)
    torch.testing.assert_close(found, objective.scores(model)(states, prompts))
    assert found.exp().sum(1).tolist() == pytest.approx([1, 1])
    objective.head.mixture = None
    assert not torch.allclose(found, objective.scores(model)(states, prompts), atol=1e-3)


@pytest.mark.parametrize("better", [True, False])
def test_it_stays_where_it_ranks_better(better: bool, capfd: pytest.CaptureFixture[str]) -> None:
    model, rows, _ = made()
    objective, renderer = with_pairs(model, rows), HistoryRenderer(EOS, rows, 6, 100)
    before = {"hr@10": 0.0, "ndcg@10": -1.0 if better else 1.0, "lambda": 0.2, "epoch": 3}
    options = RecommenderOptions(objective="trie")
    kept = mix_near_items(model, renderer, USERS, options, objective, before)
    assert (objective.head.mixture is not None) == better
    assert ("left out" in capfd.readouterr().err) != better
    if not better:
        assert kept == before
        return
    figures = validation(model, renderer, build_trie(rows, EOS), USERS, options, None, objective)()
    assert kept == before | figures | {"near_share": objective.head.mixture.share if objective.head.mixture else None}


def test_weights_that_are_no_numbers_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model, rows, _ = made()
    objective, renderer = with_pairs(model, rows), HistoryRenderer(EOS, rows, 6, 100)

    def broken(weight_F: torch.Tensor, *_: object) -> NearMixture:
        return NearMixture(weight_F * torch.nan)

    monkeypatch.setattr(item_head, "fit_near_mixture", broken)
    before = {"ndcg@10": 0.1}
    assert mix_near_items(model, renderer, USERS, RecommenderOptions(objective="trie"), objective, before) == before
    assert objective.head.mixture is None
    assert "4 validation users are too few" in capfd.readouterr().err


def test_the_command_ranks_as_it_says(data: Path) -> None:
    options = ["--item-head", "1", "--near-items", "4", "--items", str(data / "items.jsonl"), "--epochs", "2"]
    assert run(train_rec(data, *options)) == 0
    kept = orjson.loads((data / "out" / "run.json").read_bytes())["kept"]
    assert ("mixture.log_odds" in load_file(data / "out" / ITEM_HEAD)) == ("near_share" in kept)
    asked = ["recommend", str(data / "valid.jsonl"), "--rec", str(data / "out"), "-k", "10", "--beams", "20"]
    assert run([*asked, "--item-head-weight", str(kept["lambda"]), "-o", str(data / "recs")]) == 0
    found = [orjson.loads(line)["items"] for line in (data / "recs").read_bytes().splitlines()]
    targets = [orjson.loads(line)["target"] for line in (data / "valid.jsonl").read_bytes().splitlines()]
    assert ndcg(target_ranks(found, targets), 10) == pytest.approx(kept["ndcg@10"])
