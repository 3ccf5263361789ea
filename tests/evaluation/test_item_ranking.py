"""Ranking a catalogue with a SASRec, beside scores that are computed one history at a time."""

from __future__ import annotations

import pytest
import torch

from idgr.evaluation.item_ranking import rank_items
from idgr.models.sasrec import Sasrec, SasrecConfig, new_sasrec

HISTORIES = [[0, 1, 2], [5], [], [8, 7, 6, 5, 4], [3, 3]]


@pytest.fixture
def model() -> Sasrec:
    model = new_sasrec(SasrecConfig(9, width=8, layers=1, heads=1, max_history=4), seed=0).eval()
    with torch.no_grad():
        model.items.weight.mul_(30)
    return model


def expected(model: Sasrec, history: list[int], left_out: set[int], k: int) -> tuple[list[int], list[float]]:
    read = torch.tensor([history[-4:] or [9]])
    with torch.inference_mode():
        scores = (model.item_vectors() @ model(read)[0, -1]).log_softmax(0).tolist()
    best = sorted(set(range(9)) - left_out, key=lambda item: -scores[item])[:k]
    return best, [scores[item] for item in best]


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_items_and_scores_in_the_order_asked(model: Sasrec, batch_size: int) -> None:
    found = rank_items(model, HISTORIES, 4, batch_size=batch_size)
    for ranking, history in zip(found, HISTORIES, strict=True):
        items, scores = expected(model, history, set(), 4)
        assert ranking.items == items
        assert ranking.scores == pytest.approx(scores, abs=1e-4)


def test_items_left_out_and_allowed_make_lists_short(model: Sasrec) -> None:
    allowed = torch.tensor([item in (0, 3, 5, 8) for item in range(9)])
    found = rank_items(model, HISTORIES, 20, excluded=[set(history) for history in HISTORIES], allowed=allowed)
    for ranking, history in zip(found, HISTORIES, strict=True):
        items, scores = expected(model, history, {1, 2, 4, 6, 7} | set(history), 20)
        assert ranking.items == items
        assert ranking.scores == pytest.approx(scores, abs=1e-4)  # among all items, whatever is left out


def test_nobody_asks(model: Sasrec) -> None:
    assert rank_items(model, [], 3) == []
