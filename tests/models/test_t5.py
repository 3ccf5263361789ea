"""T5's forward pass in pieces against that of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from idgr.models.t5 import decode_step, encode, new_cache, read_weights, source_of

ROWS = [[5, 6, 7, 8, 1], [9, 10, 1], [3, 4] * 20 + [1]]
B, K, L = 3, 2, 6


def build(activation: str, tied: bool) -> Any:
    config = T5Config(
        vocab_size=60,
        d_model=32,
        d_ff=48,
        d_kv=8,
        num_heads=3,
        num_layers=2,
        num_decoder_layers=3,
        feed_forward_proj=activation,
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = T5ForConditionalGeneration(config).eval()
        if not tied:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(60, 32))
    return model


def targets() -> torch.Tensor:
    """Beams of tokens after the start token; those of the first source agree for three steps."""
    tokens_BKL = torch.randint(2, 60, (B, K, L), generator=torch.Generator().manual_seed(1))
    tokens_BKL[:, :, 0] = 0
    tokens_BKL[0, 1, :3] = tokens_BKL[0, 0, :3]
    return tokens_BKL


def logits_in_pieces(model: Any, dtype: torch.dtype) -> torch.Tensor:
    """[B, K, L, V], with the two beams of the first source as one row while they agree."""
    t5, tokens_BKL = read_weights(model, dtype), targets()
    source, cache, bias = source_of(t5, *encode(t5, ROWS)), new_cache(t5, B, K, L), t5.decoder_bias(L, L)
    steps = []
    for step in range(L):
        first_R = torch.tensor([0, 2, 3, 4, 5]) if step < 3 else torch.arange(B * K)
        rows_BK = torch.tensor([[0, 0], [1, 2], [3, 4]]) if step < 3 else torch.arange(B * K).view(B, K)
        logits_RV = decode_step(
            t5, source, cache, tokens_BKL[:, :, step].flatten()[first_R], rows_BK, first_R, step, bias
        )
        steps.append(logits_RV[rows_BK])
    return torch.stack(steps, 2)


def logits_of_transformers(model: Any) -> torch.Tensor:
    S = max(map(len, ROWS))
    tokens_BS = torch.tensor([row + [0] * (S - len(row)) for row in ROWS])
    mask_BS = torch.tensor([[1] * len(row) + [0] * (S - len(row)) for row in ROWS])
    tokens_BKL = targets()
    return torch.stack(
        [
            model(input_ids=tokens_BS, attention_mask=mask_BS, decoder_input_ids=tokens_BKL[:, beam]).logits
            for beam in range(K)
        ],
        dim=1,
    )


@pytest.mark.parametrize("activation", ["relu", "gated-gelu"])
@pytest.mark.parametrize("tied", [True, False])
def test_gives_the_logits_of_transformers(activation: str, tied: bool) -> None:
    model = build(activation, tied)
    with torch.inference_mode():
        ours, theirs = logits_in_pieces(model, torch.float32), logits_of_transformers(model)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_double_precision_is_that_of_a_double_model() -> None:
    model = build("gated-gelu", tied=True)
    with torch.inference_mode():
        together = logits_in_pieces(model, torch.double)
        single = logits_in_pieces(model, torch.float32)
    assert together.dtype == torch.double
    difference = (together - single).abs().max()
    assert 0 < difference < 1e-4


def test_weights_are_not_copied_where_they_have_the_precision() -> None:
    model = build("relu", tied=True)
    assert read_weights(model, torch.float32).head_VD.data_ptr() == model.lm_head.weight.data_ptr()
