"""Soft IDs against hard ones: one layout, and with one-hot distributions the same embeddings, loss and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode
from transformers import T5Config, T5ForConditionalGeneration

from idgr.generator.soft_ids import (
    anchor_divergence,
    expected_embeddings,
    id_probabilities,
    plan_splice,
    prompt_embeddings,
    straight_through,
)
from idgr.prompts.rendering import Prompt

VOCABULARY, UNUSED = 40, 8  # T5 too has more embeddings than its tokenizer has tokens
IDS = {0: [5, 6], 1: [7], 2: [8, 9, 10], 3: [11, 12]}
PROMPTS = [
    Prompt([20, 5, 6, 21, 7, 21, 8, 9, 10, 1], [(0, 1, 3), (1, 4, 5), (2, 6, 9)]),
    Prompt([20, 7, 21, 5, 6, 1], [(1, 1, 2), (0, 3, 5)]),
    Prompt([20, 1], []),
]


@pytest.fixture(scope="module")
def recommender() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY + UNUSED, d_model=16, d_ff=32, d_kv=8, num_layers=2, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return T5ForConditionalGeneration(config).eval()


def padded() -> torch.Tensor:
    width = max(len(prompt.tokens) for prompt in PROMPTS)
    return torch.tensor([prompt.tokens + [0] * (width - len(prompt.tokens)) for prompt in PROMPTS])


def loss_and_gradients(model: T5ForConditionalGeneration, inputs_BSD: torch.Tensor) -> tuple[torch.Tensor, ...]:
    labels = torch.tensor([[11, 12, 1], [8, 9, 1], [7, 1, -100]])
    loss = model(inputs_embeds=inputs_BSD, attention_mask=(padded() != 0).long(), labels=labels).loss
    gradients = torch.autograd.grad(loss, [*model.parameters(), inputs_BSD])
    return loss, *gradients


@pytest.mark.parametrize("hard_forward", [False, True])
def test_a_one_hot_distribution_is_the_hard_prompt(recommender: T5ForConditionalGeneration, hard_forward: bool) -> None:
    embedding = recommender.shared.weight
    tokens = padded()
    splice = plan_splice(PROMPTS, tokens.shape[1])
    current = torch.tensor([token for item in splice.items for token in IDS[item]])
    logits = torch.full((len(current), VOCABULARY + UNUSED), -1e4).scatter(1, current[:, None], 1e4)
    logits.requires_grad_()

    hard = prompt_embeddings(tokens, embedding)
    probabilities = id_probabilities(logits, VOCABULARY)
    soft_rows = expected_embeddings(probabilities, embedding)
    if hard_forward:
        soft_rows = straight_through(soft_rows, embedding[current])
    soft = prompt_embeddings(tokens, embedding, splice, soft_rows)

    assert torch.equal(hard, recommender.encoder.embed_tokens(tokens))
    assert (soft - hard).abs().max() <= 1e-6
    for ours, theirs in zip(loss_and_gradients(recommender, soft), loss_and_gradients(recommender, hard), strict=True):
        assert (ours - theirs).abs().max() <= 1e-6


def test_each_distinct_item_has_its_rows_once() -> None:
    splice = plan_splice(PROMPTS, 10)
    assert splice.items == [0, 1, 2]
    assert splice.rows == [2, 1, 3]
    assert splice.place.tolist() == [1, 2, 4, 6, 7, 8, 11, 13, 14]
    assert splice.source.tolist() == [0, 1, 2, 3, 4, 5, 2, 0, 1]


histories = st.lists(st.lists(st.sampled_from(sorted(IDS)), max_size=5), min_size=1, max_size=4)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(histories)
def test_soft_rows_stand_exactly_where_the_ids_stand(batch: list[list[int]]) -> None:
    prompts = []
    for history in batch:
        tokens, spans = [20], []
        for item in history:
            spans.append((item, len(tokens), len(tokens) + len(IDS[item])))
            tokens = [*tokens, *IDS[item], 21]
        prompts.append(Prompt([*tokens, 1], spans))
    width = max(len(prompt.tokens) for prompt in prompts)
    tokens = torch.tensor([prompt.tokens + [0] * (width - len(prompt.tokens)) for prompt in prompts])
    embedding = torch.arange(30.0)[:, None].expand(30, 2)
    splice = plan_splice(prompts, width)
    # A row that tells its item and its place in the ID: where it comes to stand is the only thing in question.
    told = [100.0 * (item + 1) + place for item in splice.items for place in range(len(IDS[item]))]
    found = prompt_embeddings(tokens, embedding, splice, torch.tensor(told)[:, None].expand(len(told), 2))

    expected = tokens.float()
    for row, prompt in enumerate(prompts):
        for item, start, end in prompt.spans:
            for place in range(end - start):
                expected[row, start + place] = 100.0 * (item + 1) + place
    assert torch.equal(found[..., 0], expected)


def test_gradient_sums_over_the_places_where_an_item_stands() -> None:
    splice = plan_splice(PROMPTS, 10)
    soft = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    prompt_embeddings(padded(), torch.zeros(30, 4), splice, soft).sum().backward()
    assert soft.grad is not None
    assert soft.grad[:, 0].tolist() == [2.0, 2.0, 2.0, 1.0, 1.0, 1.0]


def test_unused_columns_of_the_generator_get_no_probability() -> None:
    logits = torch.zeros(2, VOCABULARY + UNUSED)
    logits[:, VOCABULARY:] = 50.0
    probabilities = id_probabilities(logits, VOCABULARY)
    assert probabilities.shape == (2, VOCABULARY)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


def test_temperature_flattens_and_sharpens() -> None:
    logits = torch.tensor([[0.0, 2.0]])
    assert id_probabilities(logits, 2, 4.0)[0, 1] < id_probabilities(logits, 2)[0, 1]
    torch.testing.assert_close(id_probabilities(logits, 2, 0.5), torch.tensor([[0.0, 4.0]]).softmax(-1))


def test_straight_through_has_hard_values_and_the_soft_gradient() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    embedding = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))

    def soft() -> torch.Tensor:
        return expected_embeddings(id_probabilities(logits, 6), embedding)

    hard = embedding[torch.tensor([0, 3, 5])]
    through = straight_through(soft(), hard)
    torch.testing.assert_close(through, hard)
    (got,) = torch.autograd.grad((through * weight).sum(), logits)
    (expected,) = torch.autograd.grad((soft() * weight).sum(), logits)
    assert torch.equal(got, expected)


def test_anchor_is_the_mean_divergence_from_the_start() -> None:
    start = torch.tensor([[0.0, 0.0, 9.0], [1.0, 2.0, 9.0]])
    now = torch.tensor([[1.0, 0.0, -9.0], [1.0, 2.0, -9.0]])
    assert anchor_divergence(start, start, 2) == pytest.approx(0.0, abs=1e-7)
    p, q = F.softmax(start[0, :2], -1), F.softmax(now[0, :2], -1)
    assert anchor_divergence(now, start, 2).item() == pytest.approx(float((p * (p / q).log()).sum() / 2), abs=1e-6)


def test_soft_ids_in_another_precision_are_put_into_the_prompt_as_it_is() -> None:
    """index_copy takes one dtype, and CUDA's autocast does not see to that; so the mode here refuses what it would."""
    splice = plan_splice(PROMPTS, 10)
    embedding, soft = torch.randn(30, 4), torch.randn(6, 4).bfloat16().requires_grad_()
    with OneDtype():
        read = prompt_embeddings(padded(), embedding, splice, soft)
    assert read.dtype == torch.float32
    read.sum().backward()
    assert soft.grad is not None
    assert soft.grad.dtype == torch.bfloat16


class OneDtype(TorchFunctionMode):
    """Refuses tensors of two dtypes where CUDA's autocast promotes nothing."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.__name__.rstrip("_") in ("index_copy", "index_add", "index_put", "scatter", "baddbmm"):
            dtypes = {part.dtype for part in args if isinstance(part, torch.Tensor) and part.is_floating_point()}
            assert len(dtypes) == 1, f"{function.__name__} of {dtypes}"
        return function(*args, **(kwargs or {}))
