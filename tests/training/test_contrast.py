"""The contrast beside a causal model's generation: its values and gradients, and that nothing of it stays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from idgr.decoding.trie import build_trie
from idgr.models.backbone import CausalPreset, new_causal_backbone
from idgr.models.llama import fit_item_slots
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.recommender.contrast import TEMPERATURE, Contrast, beside, info_nce, new_contrast
from idgr.recommender.sequences import Windows, make_windows, window_loss

from ..decoding.oracle import plain_places
from .conftest import TEXTUAL_IDS

SHAPE = CausalPreset(d_model=16, d_ff=24, num_layers=2, num_heads=2, vocab_size=400)
EOS = 1
# Of different lengths; the first and the last end with the same item.
SEQUENCES = [[0, 3, 1, 8, 2], [5, 9], [4, 4, 6], [7, 6, 0, 2]]
Loss = Callable[[np.ndarray[Any, Any], int], tuple[Tensor, int]]


def unit_vectors(width: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    drawn = np.random.default_rng(seed).normal(size=(len(TEXTUAL_IDS), width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def made(*, slots: bool = True) -> tuple[Any, list[list[int]], Windows]:
    tokenizer = train_tokenizer(TEXTUAL_IDS, SHAPE.vocab_size)
    model = new_causal_backbone(SHAPE, tokenizer, seed=3).model.eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    rows = id_tokens(tokenizer, TEXTUAL_IDS)
    model.config.item_slots = 0
    if slots:
        fit_item_slots(model, rows, new=True)
    return model, rows, make_windows(SEQUENCES, 6)


def contrast_for(model: Any, semantic: float, behavior: float) -> Contrast:
    kinds = {"semantic": (semantic, unit_vectors(5, 1)), "behavior": (behavior, unit_vectors(7, 2))}
    return new_contrast(model, kinds, seed=4)


def gradients_of(model: Any, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def by_hand(projected: list[list[float]], vectors: list[list[float]], items: list[int]) -> float:
    total = 0.0
    for i, row in enumerate(projected):
        length = math.sqrt(sum(value * value for value in row))
        scores = [sum(a * b for a, b in zip(row, vector, strict=True)) / length / TEMPERATURE for vector in vectors]
        others = [math.exp(score) for j, score in enumerate(scores) if j == i or items[j] != items[i]]
        total -= scores[i] - math.log(sum(others))
    return total / len(projected)


def test_the_cost_is_that_worked_out_by_hand() -> None:
    projected = [[2.0, 0.0], [0.0, 0.5], [0.06, 0.08], [1.0, 1.0]]
    vectors = [[1.0, 0.0], [0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]
    items = [7, 3, 7, 5]
    cost = info_nce(torch.tensor(projected), torch.tensor(vectors), torch.tensor(items))
    assert cost.item() == pytest.approx(by_hand(projected, vectors, items), rel=1e-5)
    # Rows 0 and 2 have the same item; the second and the last of row 0 cost e^-4 and e^-10 beside its own.
    first = info_nce(torch.tensor(projected)[[0, 1, 3]], torch.tensor(vectors)[[0, 1, 3]], torch.tensor([7, 3, 5]))
    alone = [math.log(1 + math.exp(-4) + math.exp(-10)), math.log(1 + math.exp(2) + math.exp(-8))]
    root = math.sqrt(0.5) / TEMPERATURE
    alone.append(math.log(2 * math.exp(root) + math.exp(1.4 * root)) - root)
    assert first.item() == pytest.approx(sum(alone) / 3, rel=1e-5)
    assert info_nce(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([2])).item() == 0.0


@pytest.mark.parametrize(("slots", "leads"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("objective", ["trie", "full"])
def test_gradients_are_those_of_generation_and_of_a_contrast_written_by_hand(
    objective: str, slots: bool, leads: bool
) -> None:
    model, rows, windows = made(slots=slots)
    trie, batch = build_trie(rows, EOS), np.arange(len(windows.begin))
    contrast = contrast_for(model, 0.3, 0.7)
    with beside(model, contrast):
        plain, terms = window_loss(model, trie, windows, objective, leads=leads)(batch, 0)
        generation = gradients_of(model, plain)
        ends = [[windows.items[place] for place in range(windows.begin[w], windows.end[w])] for w in batch]
        states = []
        for items in ends:  # each window alone: its items, and `<con>` where an EOS would stand
            tokens = [token for item in items for token in (EOS, *rows[item])][not leads :]
            read = torch.cat([model.model.embed_tokens(torch.tensor(tokens)), contrast.summary.embedding_D[None]])
            places = torch.tensor([plain_places([*tokens, EOS], model.config.item_slots)])
            mask = torch.ones(1, len(read))
            states.append(model.model(inputs_embeds=read[None], position_ids=places, attention_mask=mask)[0][0, -1])
        last = [int(items[-1]) for items in ends]
        expected = torch.zeros(())
        costs = {}
        for name, weight in contrast.weights.items():
            projected = [contrast.summary.projectors[name](state) for state in states]
            each = []
            for i, row in enumerate(projected):
                scores = {
                    j: (row / row.norm() * contrast.vectors_IE[name][item]).sum() / TEMPERATURE
                    for j, item in enumerate(last)
                    if j == i or item != last[i]
                }
                each.append(torch.stack(list(scores.values())).exp().sum().log() - scores[i])
            costs[name] = torch.stack(each).mean()
            expected = expected + weight * costs[name] * terms
        drawn = gradients_of(model, expected)
        loss, again = window_loss(model, trie, windows, objective, contrast, leads=leads)(batch, 0)
        whole = gradients_of(model, loss)
    assert again == terms
    assert loss.item() == pytest.approx((plain + expected).item(), rel=1e-5)
    assert contrast.found["generation"].tolist() == pytest.approx([plain.item(), terms], rel=1e-5)
    for name, cost in costs.items():
        assert contrast.found[name].tolist() == pytest.approx([cost.item() * terms, terms], rel=1e-5)
    assert any(value.abs().max() > 1e-3 for name, value in drawn.items() if name.startswith("model.layers"))
    for name, value in whole.items():
        torch.testing.assert_close(value, generation[name] + drawn[name], rtol=1e-3, atol=1e-4)
        assert name.startswith("contrast.") == bool(not generation[name].any() and drawn[name].any()), name


def test_without_weights_the_model_learns_what_it_would_alone() -> None:
    model, rows, windows = made()
    trie, batch = build_trie(rows, EOS), np.arange(len(windows.begin))
    alone, _ = window_loss(model, trie, windows, "trie")(batch, 0)
    wanted = gradients_of(model, alone)
    contrast = contrast_for(model, 0.0, 0.0)
    with beside(model, contrast):
        loss, _ = window_loss(model, trie, windows, "trie", contrast)(batch, 0)
        found = gradients_of(model, loss)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)
    for name, value in found.items():
        torch.testing.assert_close(value, wanted.get(name, torch.zeros_like(value)), rtol=1e-4, atol=1e-5)


def test_it_is_part_of_the_model_only_while_that_learns() -> None:
    model, _, _ = made()
    before = set(model.state_dict())
    contrast = contrast_for(model, 1.0, 1.0)
    assert torch.equal(contrast.summary.embedding_D, model.get_input_embeddings().weight[EOS])
    with beside(model, contrast):
        added = {name for name, _ in model.named_parameters()} - before
    assert "contrast.embedding_D" in added
    assert len(added) == 1 + 2 * 4
    assert set(model.state_dict()) == before
    with pytest.raises(ZeroDivisionError), beside(model, contrast):
        1 / 0  # noqa: B018 - a training that fails
    assert set(model.state_dict()) == before
    again = contrast_for(model, 1.0, 1.0)
    pairs = zip(contrast.summary.parameters(), again.summary.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
