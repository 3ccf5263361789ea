"""The two losses against plain implementations, against transformers, and against the search with the same score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idgr.decoding.beam import SearchOptions, beam_search
from idgr.decoding.trie import build_trie
from idgr.models.backbone import Backbone
from idgr.models.padding import IGNORED, decoder_inputs, pad_labels, pad_rows
from idgr.prompts.rendering import PromptRenderer
from idgr.recommender.objectives import branch_targets, decoder_states, find_branches, full_loss, trie_loss
from idgr.recommender.training import instance_loss, make_instances

EOS = 1
CPU = torch.device("cpu")

id_sets = st.lists(
    st.lists(st.integers(2, 7), min_size=1, max_size=5), min_size=1, max_size=12, unique_by=tuple
)  # fmt: skip


def plain_trie_loss(ids: list[list[int]], targets: list[int], hidden_BTD: Tensor, head_VD: Tensor) -> Tensor:
    """Children from a dictionary of prefixes, one softmax at a time."""
    children: dict[tuple[int, ...], set[int]] = {}
    for row in ids:
        for t, token in enumerate([*row, EOS]):
            children.setdefault(tuple(row[:t]), set()).add(token)
    total = hidden_BTD.new_zeros(())
    for b, item in enumerate(targets):
        row = [*ids[item], EOS]
        for t, token in enumerate(row):
            valid = sorted(children[tuple(row[:t])])
            scores = torch.stack([hidden_BTD[b, t] @ head_VD[other] for other in valid])
            total = total - torch.log_softmax(scores, 0)[valid.index(token)]
    return total


@settings(derandomize=True, deadline=None, max_examples=80)
@given(id_sets, st.data())
def test_trie_loss_and_gradient_are_those_of_a_plain_implementation(ids: list[list[int]], data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=6))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    hidden_BTD = torch.randn(len(targets), 6, 3, generator=random, dtype=torch.float64, requires_grad=True)
    head_VD = torch.randn(8, 3, generator=random, dtype=torch.float64, requires_grad=True)
    wanted = plain_trie_loss(ids, targets, hidden_BTD, head_VD)

    branches = find_branches(build_trie(ids, EOS))
    length = int(branches.decoder_lengths()[targets].max())
    points = branch_targets(branches, np.array(targets), CPU)
    loss, n = trie_loss(hidden_BTD[:, :length], head_VD, points, len(targets))

    assert n == len(targets)
    torch.testing.assert_close(loss, wanted.float(), rtol=1e-5, atol=1e-5)
    if wanted.requires_grad and len(points.instance):
        ours = torch.autograd.grad(loss, [hidden_BTD, head_VD])
        plain = torch.autograd.grad(wanted, [hidden_BTD, head_VD])
        for one, other in zip(ours, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_golden_trie_loss() -> None:
    # Root: 3 or 5, behind 3: 4 or EOS. With these states every logit is the token's own head.
    branches = find_branches(build_trie([[3, 4, 6], [3], [5, 6, 6]], EOS))
    head_VD = torch.tensor([[0.0], [0.5], [0.0], [1.0], [2.0], [-1.0], [9.0], [9.0]])
    hidden_BTD = torch.ones(3, 2, 1)
    points = branch_targets(branches, np.array([0, 1, 2]), CPU)
    loss, _ = trie_loss(hidden_BTD, head_VD, points, 3)
    root, below = math.log(math.e + math.exp(-1)), math.log(math.exp(2) + math.exp(0.5))
    assert loss.item() == pytest.approx((root - 1 + below - 2) + (root - 1 + below - 0.5) + (root + 1), abs=1e-5)
    assert branches.decoder_lengths().tolist() == [2, 2, 1]


def test_a_catalogue_of_one_item_costs_nothing() -> None:
    branches = find_branches(build_trie([[3, 4]], EOS))
    points = branch_targets(branches, np.array([0, 0]), CPU)
    hidden_BTD = torch.randn(2, 1, 3, requires_grad=True)
    loss, n = trie_loss(hidden_BTD, torch.randn(8, 3), points, 2)
    loss.backward()
    assert (loss.item(), n) == (0.0, 2)


def test_full_loss_is_that_of_transformers(small: Backbone) -> None:
    model = small.model.eval()
    labels_BT = pad_labels([[9, 5, 1], [7, 1]])
    assert labels_BT.tolist() == [[9, 5, 1], [7, 1, IGNORED]]
    prompt_BS, mask_BS = pad_rows([[5, 6, 7, 1], [8, 1]], 0, CPU)
    hidden_BTD = decoder_states(model, prompt_BS, mask_BS, decoder_inputs(model, labels_BT))
    loss, n_tokens = full_loss(hidden_BTD, model.lm_head.weight, labels_BT)
    theirs = model(input_ids=prompt_BS, attention_mask=mask_BS, labels=torch.from_numpy(labels_BT))
    assert n_tokens == 5
    torch.testing.assert_close(loss / n_tokens, theirs.loss)
    torch.testing.assert_close(torch.nn.functional.linear(hidden_BTD, model.lm_head.weight), theirs.logits)


@pytest.mark.parametrize("objective", ["full", "trie"])
def test_the_loss_of_an_item_is_its_score_in_the_search(
    small: Backbone, small_renderer: PromptRenderer, objective: str
) -> None:
    trie = build_trie(small_renderer.id_tokens, small.tokenizer.eos_token_id)
    model, n_items = small.model.eval(), len(trie.item)
    # One template, so that the instances show what the search is given.
    small_renderer.before, small_renderer.after = small_renderer.before[:1], small_renderer.after[:1]
    instances = make_instances([[4, item] for item in range(n_items)], max_history=4)
    loss_of = instance_loss(model, small_renderer, trie, instances, objective, seed=0)
    losses = [loss_of(np.array([number]), 0)[0].item() for number in range(n_items)]

    prompt = small_renderer.render([4], 0).tokens
    options = SearchOptions(k=n_items, beams=2 * n_items, normalize=objective)
    ranking = beam_search(model, trie, [prompt], options)[0]
    found = dict(zip(ranking.items, ranking.scores, strict=True))
    assert len(found) == n_items
    for item, loss in enumerate(losses):
        assert found[item] == pytest.approx(-loss, abs=1e-4)
    if objective == "trie":
        assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1.0, abs=1e-5)
