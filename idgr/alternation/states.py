"""The states of a frozen recommender that decide the tokens of answers behind prompts: of a T5, or of a Llama.

A Llama reads no row that another one begins with: prompts of a sequence that are shorter, with the answers behind them.
Of the rows that it reads, it reads once what those of a context share, and then each one's own tokens.

Legend: E prompts, R rows, W of them that are read, C contexts, S tokens of a row, P that a context's rows share, U of a
row's own, T of an answer, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from idgr.decoding.trie import common_length
from idgr.models.device import to_device
from idgr.models.llama import item_slots, pad_token, position_ids
from idgr.models.padding import causal_mask, decoder_inputs, encoder_mask, pad_labels, pad_rows, padded, prompt_mask

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
    encoded_ESD = model.encoder(input_ids=prompt_ES, attention_mask=encoder_mask(model, prompt_ES, mask_ES))[0]
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
    pad, device, slots = pad_token(model), model.device, item_slots(model)
    whole = [[*prompts[row.prompt], separator, *path[:-1]] for row, path in zip(rows, paths, strict=True)]
    host_R = _hosts(whole)
    read = sorted(set(host_R))
    begin_R = [len(prompts[row.prompt]) for row in rows]
    of_context: dict[int, list[int]] = {}
    for one in read:
        of_context.setdefault(rows[one].context, []).append(one)
    asked_from: dict[int, int] = {}  # no answer begins in what is shared
    for begin, host in zip(begin_R, host_R, strict=True):
        asked_from[rows[host].context] = min(begin, asked_from.get(rows[host].context, begin))
    shared: list[list[int]] = []
    for context, mine in of_context.items():
        ordered = sorted(whole[one] for one in mine)  # so that all share what the first and the last do
        n_alike = common_length(ordered[0], ordered[-1])
        shared.append(ordered[0][: min(n_alike, asked_from[context])])
    number = {context: place for place, context in enumerate(of_context)}
    context_W = np.array([number[rows[one].context] for one in read], dtype=np.int64)
    shared_W = np.array([len(part) for part in shared], dtype=np.int64)[context_W]

    tokens_WS, _ = padded([whole[one] for one in read], pad)
    own = int((np.array([len(whole[one]) for one in read]) - shared_W).max())
    along_WU = np.minimum(shared_W[:, None] + np.arange(own), tokens_WS.shape[1] - 1)
    place_WS = position_ids(tokens_WS, separator, slots)
    tokens_WU, place_WU = (
        to_device(np.take_along_axis(values_WS, along_WU, axis=1), device) for values_WS in (tokens_WS, place_WS)
    )
    mask, known = causal_mask(model, tokens_WU), None
    if shared_W.any():
        shared_CP, is_token_CP = padded(shared, pad)
        read_CP, of_W = to_device(shared_CP, device), to_device(context_W, device)
        known = model.model(
            input_ids=read_CP,
            position_ids=to_device(position_ids(shared_CP, separator, slots), device),
            attention_mask=causal_mask(model, read_CP),
            use_cache=True,
        ).past_key_values
        known.batch_select_indices(of_W)
        mask = torch.cat([to_device(is_token_CP, device)[of_W], torch.ones_like(tokens_WU)], dim=1)
    hidden_WUD = model.model(
        input_ids=tokens_WU, position_ids=place_WU, attention_mask=mask, past_key_values=known, use_cache=False
    )[0]
    rank_R = np.searchsorted(read, host_R)
    answer_RT = (np.array(begin_R) - shared_W[rank_R])[:, None] + np.arange(max(map(len, paths)))
    found_RTD: Tensor = hidden_WUD[
        to_device(rank_R, device)[:, None], to_device(np.minimum(answer_RT, own - 1), device)
    ]
    return found_RTD


def _hosts(whole: Tokens) -> list[int]:
    """For each row the number of one that begins with all of it, itself or a longer one; none begins with that."""
    order = sorted(range(len(whole)), key=lambda row: list(whole[row]))
    host = list(range(len(whole)))
    for row, following in zip(order[-2::-1], order[:0:-1], strict=True):
        if whole[following][: len(whole[row])] == whole[row]:
            host[row] = host[following]
    return host
