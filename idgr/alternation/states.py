"""The states of a frozen recommender that decide the tokens of answers behind prompts: of a T5, or of a Llama.

A Llama reads once what all prompts of a context begin with, and then each row's own tokens: what is left of its prompt
and the answer.

Legend: E prompts, R rows, C contexts, S tokens of a row, P that a context's prompts share, U of its own, T of an
answer, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from idgr.alternation.renamed_tree import common_length
from idgr.models.device import to_device
from idgr.models.llama import item_slots, pad_token, position_ids
from idgr.models.padding import causal_mask, decoder_inputs, pad_labels, pad_rows, padded, prompt_mask

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

Tokens = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Row:
    """What a recommender is asked for: the cost of `target` where `item` has the tokens `name`.

    Attributes:
        prompt: which of a batch's prompts it is asked behind.
        context, place: where the cost goes.
    """

    prompt: int
    target: int
    item: int
    name: Sequence[int]
    context: int
    place: int


@torch.inference_mode()
def t5_states(model: T5ForConditionalGeneration, prompts: Tokens, rows: Sequence[Row], paths: Tokens) -> Tensor:
    """[R, T, D] the states that decide each token of the rows' paths; the prompts are encoded once each."""
    prompt_ES, mask_ES = pad_rows(prompts, model.config.pad_token_id, model.device)
    encoded_ESD = model.encoder(input_ids=prompt_ES, attention_mask=prompt_mask(model, mask_ES))[0]
    prompt_R = to_device(np.array([row.prompt for row in rows], dtype=np.int64), model.device)
    hidden_RTD: Tensor = model.decoder(
        input_ids=decoder_inputs(model, pad_labels(paths)),
        encoder_hidden_states=encoded_ESD[prompt_R],
        encoder_attention_mask=prompt_mask(model, mask_ES[prompt_R]),
        use_cache=False,
    )[0]
    return hidden_RTD * model.config.d_model**-0.5 if model.config.scale_decoder_outputs else hidden_RTD


@torch.inference_mode()
def causal_states(
    model: LlamaForCausalLM, separator: int, prompts: Tokens, rows: Sequence[Row], paths: Tokens
) -> Tensor:
    """As `t5_states`, of a Llama whose items stand behind a separator."""
    pad, device = pad_token(model), model.device
    of_context: dict[int, set[int]] = {}
    for row in rows:
        of_context.setdefault(row.context, set()).add(row.prompt)
    shared: list[list[int]] = []
    for mine in of_context.values():
        ordered = sorted(list(prompts[one]) for one in mine)  # so that all share what the first and the last do
        shared.append(ordered[0][: common_length(ordered[0], ordered[-1])])
    number = {context: place for place, context in enumerate(of_context)}
    context_R = np.array([number[row.context] for row in rows], dtype=np.int64)
    shared_R = np.array([len(part) for part in shared], dtype=np.int64)[context_R]

    whole = [[*prompts[row.prompt], separator, *path[:-1]] for row, path in zip(rows, paths, strict=True)]
    tokens_RS, _ = padded(whole, pad)
    own = int((np.fromiter(map(len, whole), dtype=np.int64) - shared_R).max())
    along_RU = np.minimum(shared_R[:, None] + np.arange(own), tokens_RS.shape[1] - 1)
    place_RS = position_ids(tokens_RS, separator, item_slots(model))
    tokens_RU, place_RU = (
        to_device(np.take_along_axis(values_RS, along_RU, axis=1), device) for values_RS in (tokens_RS, place_RS)
    )
    mask, known = causal_mask(model, tokens_RU), None
    if shared_R.any():
        shared_CP, is_token_CP = padded(shared, pad)
        read_CP = to_device(shared_CP, device)
        known = model.model(
            input_ids=read_CP,
            position_ids=to_device(position_ids(shared_CP, separator, item_slots(model)), device),
            attention_mask=causal_mask(model, read_CP),
            use_cache=True,
        ).past_key_values
        known.batch_select_indices(to_device(context_R, device))
        mask = torch.cat([to_device(is_token_CP, device)[to_device(context_R, device)], torch.ones_like(tokens_RU)], 1)
    hidden_RUD = model.model(
        input_ids=tokens_RU, position_ids=place_RU, attention_mask=mask, past_key_values=known, use_cache=False
    )[0]
    begin_R = np.array([len(prompts[row.prompt]) for row in rows], dtype=np.int64) - shared_R
    answer_RT = np.minimum(begin_R[:, None] + np.arange(max(map(len, paths))), own - 1)
    found_RTD: Tensor = hidden_RUD[torch.arange(len(rows), device=device)[:, None], to_device(answer_RT, device)]
    return found_RTD
