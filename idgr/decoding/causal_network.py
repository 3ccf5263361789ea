"""A Llama as the decoder asks it: the prompt and the answer are one sequence, whose keys and values answers attend to.

The prompt's keys and values are held once a user, whatever the number of prefixes that go on from it.

Legend: B users, Q query tokens of a user in one pass, R queries that are no padding, C slots, S prompt tokens, H heads
of queries, U heads of keys and values, K width of a head, D width of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from idgr.decoding.kv_cache import MASKED, KVCache, Pass, Told, attend_all
from idgr.models.llama import (
    apply_rotary,
    feed_forward,
    grouped_heads,
    next_position,
    norm,
    position_ids,
    read_weights,
    rotary_embedding,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


class CausalNetwork:
    """A Llama made ready for searches; see `idgr.decoding.kv_cache.Network`.

    Args:
        model: its weights are read as they are, in its own precision.
        separator: the token behind which an answer starts, as items do; None for EOS.
        told: what is added to the embeddings of prompts; None for nothing.
    """

    def __init__(self, model: LlamaForCausalLM, separator: int | None = None, told: Told | None = None) -> None:
        self._told = told
        self.llama = read_weights(model, model.dtype)
        self.head_VD, self.n_heads = self.llama.head_VD, self.llama.n_heads
        self.start: int = model.config.eos_token_id if separator is None else separator
        self.scale = self.shape[-1] ** -0.5

    @property
    def device(self) -> torch.device:
        return self.llama.device

    @property
    def dtype(self) -> torch.dtype:
        return self.llama.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        layers, H = self.llama.layers, self.n_heads
        return len(layers), H // self.llama.n_shared, layers[0].out.weight.shape[1] // H

    def read(self, prompts: list[list[int]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        llama, B, S = self.llama, len(prompts), max(map(len, prompts))
        tokens_BS = np.zeros((B, S), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            tokens_BS[row, : len(prompt)] = prompt
        rotary = rotary_embedding(
            llama, torch.from_numpy(position_ids(tokens_BS, self.start, llama.item_slots)).to(self.device)
        )
        rotary = rotary[0][:, None], rotary[1][:, None]
        hidden = F.embedding(torch.from_numpy(tokens_BS).to(self.device).view(-1), llama.embedding_VD)
        if self._told is not None:
            row_N, place_N, told_ND = self._told.within(prompts)
            hidden = hidden.index_add(0, row_N * S + place_N, told_ND.to(hidden.dtype))
        kept = []
        for layer in llama.layers:
            query, key, value = (
                part.view(B, S, *part.shape[1:]).transpose(1, 2) for part in grouped_heads(llama, layer, hidden)
            )
            key = apply_rotary(key, rotary)
            kept.append((key, value))
            if layer is llama.layers[-1]:
                break  # the outputs at the prompt's own tokens are not needed
            key, value = (part.repeat_interleave(llama.n_shared, dim=1) for part in (key, value))
            mixed = F.scaled_dot_product_attention(apply_rotary(query, rotary), key, value, is_causal=True)
            hidden = hidden + F.linear(mixed.transpose(1, 2).reshape(B * S, -1), *layer.out)
            hidden = hidden + feed_forward(llama, layer, hidden)
        return kept

    def origin(self, prompt: list[int]) -> int:
        return next_position(np.asarray(prompt), self.start, self.llama.item_slots)

    def told(self, prompts: list[list[int]]) -> torch.Tensor | None:
        return None if self._told is None else self._told.behind(prompts).to(self.dtype)

    def extend(self, cache: KVCache, step: Pass) -> torch.Tensor:
        llama = self.llama
        (B, Q), C = step.position_BQ.shape, step.last
        rotary = rotary_embedding(llama, cache.origin[:, None] + step.position_BQ)
        rotary = rotary[0][:, None], rotary[1][:, None]
        own_BQC = step.sees_BQC.new_zeros(B, Q, C, dtype=self.dtype).masked_fill_(~step.sees_BQC, MASKED)
        bias = torch.cat([cache.prompt_bias[:, 0].expand(-1, Q, -1), own_BQC], dim=-1)[:, None]
        hidden = F.embedding(step.token_R, llama.embedding_VD)
        if cache.told is not None:
            starts_R1 = (step.position_BQ.flatten()[step.cell_R] == 0)[:, None]
            hidden = hidden + cache.told[step.cell_R // Q] * starts_R1
        for index, layer in enumerate(llama.layers):
            query, key, value = (
                step.heads(part.flatten(1), part.shape[1]) for part in grouped_heads(llama, layer, hidden)
            )
            own = step.keep(cache, index, apply_rotary(key, rotary), value)
            mixed = attend_all(apply_rotary(query, rotary) * self.scale, [cache.prompt[index], *own], bias)
            hidden = hidden + F.linear(step.gather(mixed), *layer.out)
            hidden = hidden + feed_forward(llama, layer, hidden)
        return norm(llama, hidden, llama.norm_D)
