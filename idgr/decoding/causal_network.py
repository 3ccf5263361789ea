"""A Llama as the decoder asks it: the prompt and the answer are one sequence, whose keys and values answers attend to.

The prompt's keys and values are held once a user, whatever the number of prefixes that go on from it.

Legend: B users, Q query tokens of a user in one pass, R queries that are no padding, C slots, S prompt tokens, N tokens
of all prompts that are read, M that are known, T separators in prompts, H heads of queries, U heads of keys and values,
I index of a layer's keys (2·layer) or values (2·layer + 1), K width of a head, D width of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from idgr.decoding.kv_cache import MASKED, KVCache, Pass, Told, attend_all
from idgr.decoding.prompt_memory import PromptMemory
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

    Attributes:
        memory: of prompts read before; None to read all of each prompt.
        n_read: how many tokens of prompts were read.
    """

    def __init__(self, model: LlamaForCausalLM, separator: int | None = None, told: Told | None = None) -> None:
        self._told = told
        self.memory: PromptMemory | None = None
        self.n_read = 0
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
        known = [None if self.memory is None else self.memory.beginning(prompt) for prompt in prompts]
        first_B = np.array([0 if states is None else len(states) for states in known])
        tokens_BS = np.zeros((B, S), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            tokens_BS[row, : len(prompt)] = prompt
        along_S, length_B = np.arange(S), np.array(list(map(len, prompts)))
        new_BS = (along_S >= first_B[:, None]) & (along_S < length_B[:, None])
        place_BS = position_ids(tokens_BS, self.start, llama.item_slots)
        cell_N, token_N, place_N = (
            torch.from_numpy(part).to(self.device)
            for part in (np.flatnonzero(new_BS), tokens_BS[new_BS], place_BS[new_BS])
        )
        self.n_read += len(cell_N)
        rotary_N = rotary_embedding(llama, place_N)
        rotary = rotary_N[0][:, None], rotary_N[1][:, None]
        hidden = F.embedding(token_N, llama.embedding_VD)
        if self._told is not None and len(cell_N):
            row_T, place_T, told_TD = self._told.within(prompts)
            new_T1 = torch.from_numpy(new_BS).to(self.device)[row_T, place_T][:, None]
            into_T = torch.searchsorted(cell_N, row_T * S + place_T).clamp(max=len(cell_N) - 1)
            hidden = hidden.index_add(0, into_T, (told_TD * new_T1).to(hidden.dtype))
        attention = _Reading(cell_N, first_B, length_B, [states for states in known if states is not None])
        kept = []
        for index, layer in enumerate(llama.layers):
            query, key, value = grouped_heads(llama, layer, hidden)
            key = attention.with_known(apply_rotary(key, rotary), 2 * index)
            value = attention.with_known(value, 2 * index + 1)
            kept.append((key, value))
            if layer is llama.layers[-1]:
                break  # the outputs at the prompt's own tokens are not needed
            key, value = (part.repeat_interleave(llama.n_shared, dim=1) for part in (key, value))
            hidden = hidden + F.linear(attention.mixed(apply_rotary(query, rotary), key, value), *layer.out)
            hidden = hidden + feed_forward(llama, layer, hidden)
        if self.memory is not None:
            parts = [part.transpose(1, 2) for pair in kept for part in pair]
            for row, prompt in enumerate(prompts):
                if first_B[row] < len(prompt):
                    self.memory.keep(prompt, torch.stack([part[row, : len(prompt)] for part in parts], dim=1))
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


class _Reading:
    """Attention of prompts' new tokens, packed for all other products, to all tokens before them.

    Args:
        cell_N: the places of [B, S], flattened, of the new tokens, ascending.
        first_B, length_B: the place of each prompt's first new token, and its number of tokens.
        known: [P, I, U, K] keys and values of the tokens before the new ones, of each prompt that has any.
    """

    def __init__(
        self,
        cell_N: torch.Tensor,
        first_B: npt.NDArray[np.int64],
        length_B: npt.NDArray[np.int64],
        known: list[torch.Tensor],
    ) -> None:
        S, device = int(length_B.max()), cell_N.device
        self.shape, self.cell_N, self.known_MIUK = (len(length_B), S), cell_N, torch.cat(known) if known else None
        first = torch.from_numpy(first_B).to(device)
        along = torch.arange(S, device=device)
        self.cell_M = torch.from_numpy(np.flatnonzero(np.arange(S) < first_B[:, None])).to(device)
        Q = self.n_queries = max(1, int((length_B - first_B).max()))
        row_N = cell_N // S
        self.query_N = row_N * Q + cell_N % S - first[row_N]
        self.sees = (along <= first[:, None, None] + along[:Q, None])[:, None] if known else None  # [B, 1, Q, S]

    def with_known(self, part_NUK: torch.Tensor, index: int) -> torch.Tensor:
        """[B, U, S, K] keys or values of the new tokens and of the known ones, zero at padding."""
        B, S = self.shape
        part = part_NUK.new_zeros(B * S, *part_NUK.shape[1:]).index_copy_(0, self.cell_N, part_NUK)
        if self.known_MIUK is not None:
            part.index_copy_(0, self.cell_M, self.known_MIUK[:, index])
        return part.view(B, S, *part.shape[1:]).transpose(1, 2)

    def mixed(self, query_NHK: torch.Tensor, key_BHSK: torch.Tensor, value_BHSK: torch.Tensor) -> torch.Tensor:
        """[N, H · K] what the new tokens find."""
        B, Q = self.shape[0], self.n_queries
        query = query_NHK.new_zeros(B * Q, *query_NHK.shape[1:]).index_copy_(0, self.query_N, query_NHK)
        query = query.view(B, Q, *query.shape[1:]).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(
            query, key_BHSK, value_BHSK, attn_mask=self.sees, is_causal=self.sees is None
        )
        return mixed.transpose(1, 2).flatten(0, 1)[self.query_N].flatten(1)
