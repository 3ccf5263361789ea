"""Ranking a catalogue with a SASRec, beside scores that are computed one history at a time."""

from __future__ import annotations

import pytest
import torch

from idgr.errors import IdgrError
from idgr.item_models.ranking import rank_items
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


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_numbers_are_refused(broken: float) -> None:
    model = new_sasrec(SasrecConfig(12, width=8, max_history=4), seed=0).eval()
    with torch.no_grad():
        model.items.weight[5, 0] = broken
    with pytest.raises(IdgrError, match="the model's scores are not numbers"):
        rank_items(model, [[1, 2], [3]], 4, excluded=[{1, 2}, {3}])


def test_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_sasrec(SasrecConfig(12, width=8, max_history=4), seed=0).eval()
    histories = [[n % 12] for n in range(9)]
    wanted = rank_items(model, histories, 4)
    scores, sizes, told = Sasrec.catalogue_scores, [], []

    def cramped(self: Sasrec, items_BL: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        sizes.append(len(items_BL))
        if len(items_BL) > 2:
            raise torch.OutOfMemoryError("no room")
        return scores(self, items_BL, lengths_B)

    monkeypatch.setattr(Sasrec, "catalogue_scores", cramped)
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(sizes[-1]))
    found = rank_items(model, histories, 4, batch_size=8, advance=told.append)
    assert [ranking.items for ranking in found] == [ranking.items for ranking in wanted]
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert emptied == [8, 4]
    assert told == [2, 2, 2, 2, 1]
