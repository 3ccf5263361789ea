"""A Llama that continues prompts step by step, for a search of many beams a prompt.

A prompt's keys and values are computed once, whatever the number of beams that attend to them; what all prompts begin
with, such as an instruction, is computed once for all. Keys and values are held once for the queries that share them.

Legend: B prompts, S tokens of a prompt, P tokens that all begin with, N tokens of all prompts together, K beams of a
prompt, C = P + S, X = B·K, R different rows among them, T steps kept, D width, H heads, U heads of keys and values,
Q = H / U heads of queries that share one, E width of a head, I index of a layer's keys (2·layer) or of its values
(2·layer + 1), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.models.llama import Llama, apply_rotary, feed_forward, grouped_heads, norm, rotary_embedding

Tokens = Sequence[int] | npt.NDArray[np.int32]
NO_TOKEN = -1


class LlamaReader:
    """Reads prompts for the search of `idgr.ids.diverse_beam`.

    A prompt's last token is not read with the others: it is what a continuation starts from. Places are counted
    through.

    Args:
        shared: the tokens that all prompts begin with; at least the last token of a prompt stands behind them.
        ends: the tokens that end a continuation, the first of which stands for all.
    """

    def __init__(self, llama: Llama, shared: Tokens, ends: Sequence[int]) -> None:
        self.llama, self.ends, self.n_shared = llama, list(ends), len(shared)
        U, E = _key_shape(llama)
        nothing_PIUE = torch.zeros((0, 2 * len(llama.layers), U, E), dtype=llama.dtype, device=llama.device)
        with torch.inference_mode():
            self.shared_PIUE = _read(llama, [shared], nothing_PIUE)[0][0] if len(shared) else nothing_PIUE

    @property
    def device(self) -> torch.device:
        return self.llama.device

    def read(self, prompts: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """Keys and values [B, S, I, U, E] of the tokens between the shared ones and the last; their number [B]."""
        return _read(self.llama, [prompt[self.n_shared : -1] for prompt in prompts], self.shared_PIUE)

    def batch(self, states_BSIUE: Tensor, lengths_B: Tensor, prompts: Sequence[Tokens]) -> LlamaBatch:
        last_B = torch.tensor([int(prompt[-1]) for prompt in prompts], device=self.device)
        return LlamaBatch(self.llama, self.shared_PIUE, states_BSIUE, lengths_B, last_B, self.ends)


def _key_shape(llama: Llama) -> tuple[int, int]:
    return llama.n_heads // llama.n_shared, llama.layers[0].out.weight.shape[1] // llama.n_heads


def _read(llama: Llama, rows: Sequence[Tokens], before_PIUE: Tensor) -> tuple[Tensor, Tensor]:
    """Keys, turned to their places, and values [B, S, I, U, E] of rows behind what was read before; lengths [B]."""
    lengths_B = torch.tensor([len(row) for row in rows])
    B, S, P = len(rows), int(lengths_B.max()), len(before_PIUE)
    along_S = torch.arange(S)
    places_N = (along_S < lengths_B[:, None]).flatten().nonzero().squeeze(1)
    rotary_N = rotary_embedding(llama, (P + places_N % max(S, 1)).to(llama.device))
    rotary = rotary_N[0][:, None], rotary_N[1][:, None]
    places_N, lengths_B = places_N.to(llama.device), lengths_B.to(llama.device)
    tokens_N = torch.from_numpy(np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])).to(llama.device)
    sees_SC = torch.ones((S, P + S), dtype=torch.bool, device=llama.device).tril(P)

    def padded(heads: Tensor) -> Tensor:
        """[N, H, E] to [B, H, S, E]; what stands on padding is seen by nothing that is kept."""
        return _placed(heads, places_N, B, S).transpose(1, 2)

    def behind(index: int, heads: Tensor) -> Tensor:
        """[B, H, P + S, E] with what was read before, once for each head of queries."""
        before = before_PIUE[:, index].transpose(0, 1).expand(B, -1, -1, -1)
        return torch.cat([before, padded(heads)], dim=2).repeat_interleave(llama.n_shared, dim=1)

    kept: list[Tensor] = []
    x_ND = F.embedding(tokens_N, llama.embedding_VD)
    for index, layer in enumerate(llama.layers):
        query, key, value = grouped_heads(llama, layer, x_ND)
        query, key = apply_rotary(query, rotary), apply_rotary(key, rotary)
        kept += [key, value]
        if layer is llama.layers[-1]:
            break  # the outputs at the prompt's own tokens are not needed
        mixed = F.scaled_dot_product_attention(
            padded(query), behind(2 * index, key), behind(2 * index + 1, value), attn_mask=sees_SC
        )
        x_ND = x_ND + F.linear(mixed.transpose(1, 2).flatten(0, 1)[places_N].flatten(1), *layer.out)
        x_ND = x_ND + feed_forward(llama, layer, x_ND)
    return _placed(torch.stack(kept, dim=1), places_N, B, S), lengths_B


def _placed(x: Tensor, places_N: Tensor, B: int, S: int) -> Tensor:
    """[N, …] to [B, S, …], zero on padding."""
    return x.new_zeros((B * S, *x.shape[1:])).index_copy_(0, places_N, x).view(B, S, *x.shape[1:])


class LlamaBatch:
    """Prompts that are continued step by step; see `idgr.ids.diverse_beam.Batch`.

    No token stands before a continuation's own, so a rule against repetition does not look at the prompt, which IDs
    repeat words of. A continuation's probability of ending is that of all tokens that end it together.

    Args:
        shared_PIUE: keys and values of what all prompts begin with.
        states_BSIUE: those of what follows, zero beyond the lengths.
        lengths_B: how many tokens follow, without the last.
        last_B: the last token of each prompt.
        ends: the tokens that end a continuation, the first of which stands for all.
    """

    start, pad = NO_TOKEN, NO_TOKEN

    def __init__(
        self,
        llama: Llama,
        shared_PIUE: Tensor,
        states_BSIUE: Tensor,
        lengths_B: Tensor,
        last_B: Tensor,
        ends: Sequence[int],
    ) -> None:
        self.llama, self.device, self.dtype = llama, llama.device, llama.dtype
        self.eos, self._ends = ends[0], torch.tensor(ends, device=llama.device)
        (self.size, S), P = states_BSIUE.shape[:2], len(shared_PIUE)
        self._last_B, self._place_B = last_B, P + lengths_B
        beyond_BC = torch.arange(P + S, device=llama.device) >= self._place_B[:, None]
        self._mask_B11C = torch.zeros(beyond_BC.shape, dtype=llama.dtype, device=llama.device)
        self._mask_B11C = self._mask_B11C.masked_fill(beyond_BC, -torch.inf)[:, None, None]
        self._prompt = [
            torch.cat([shared_PIUE[:, index].expand(self.size, -1, -1, -1), states_BSIUE[:, :, index]], dim=1)
            .transpose(1, 2)
            .contiguous()  # [B, U, P + S, E]
            for index in range(2 * len(llama.layers))
        ]

    def begin(self, n_beams: int, n_steps: int) -> None:
        U, E = _key_shape(self.llama)
        shape = (self.size, n_beams, U, n_steps, E)
        self._own = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in self._prompt]

    def step(self, tokens_R: Tensor, rows_BK: Tensor, first_R: Tensor, step: int) -> Tensor:
        llama, source_R = self.llama, first_R // rows_BK.shape[1]
        # Continuations that are done hold no token; whatever they are continued with is not looked at.
        tokens_R = tokens_R.clamp(min=0) if step else self._last_B[source_R]
        rotary_R = rotary_embedding(llama, (self._place_B + step)[source_R])
        rotary = rotary_R[0][:, None], rotary_R[1][:, None]
        x_RD = F.embedding(tokens_R, llama.embedding_VD)
        for index, layer in enumerate(llama.layers):
            query, key, value = grouped_heads(llama, layer, x_RD)
            keys, values = self._own[2 * index], self._own[2 * index + 1]
            keys[:, :, :, step], values[:, :, :, step] = apply_rotary(key, rotary)[rows_BK], value[rows_BK]
            mixed_XD = self._attend(index, apply_rotary(query, rotary)[rows_BK], step + 1)
            x_RD = x_RD + F.linear(mixed_XD[first_R], *layer.out)
            x_RD = x_RD + feed_forward(llama, layer, x_RD)
        logits_RV = F.linear(norm(llama, x_RD, llama.norm_D), llama.head_VD)
        ending_R = logits_RV[:, self._ends].logsumexp(-1)
        logits_RV[:, self._ends] = -torch.inf
        logits_RV[:, self.eos] = ending_R
        return logits_RV

    def _attend(self, index: int, query_BKHE: Tensor, n_own: int) -> Tensor:
        """[X, D] what the queries of each beam find in its prompt, held once for all beams, and in its own tokens."""
        B, K, _, E = query_BKHE.shape
        keys_BUCE, values_BUCE = self._prompt[2 * index], self._prompt[2 * index + 1]
        U, C = keys_BUCE.shape[1:3]
        query_BKUQE = query_BKHE.view(B, K, U, -1, E) * E**-0.5
        own_BKUQT = query_BKUQE @ self._own[2 * index][:, :, :, :n_own].transpose(3, 4)
        query_BUYE = query_BKUQE.transpose(1, 2).reshape(B, U, -1, E)  # Y = K·Q
        prompt_BUYC = query_BUYE @ keys_BUCE.transpose(2, 3) + self._mask_B11C
        own_BUYT = own_BKUQT.transpose(1, 2).reshape(B, U, -1, n_own)
        weight = torch.cat([prompt_BUYC, own_BUYT], dim=-1).softmax(-1)
        from_prompt = (weight[..., :C] @ values_BUCE).view(B, U, K, -1, E).transpose(1, 2)
        weight_BKUQT = weight[..., C:].reshape(B, U, K, -1, n_own).transpose(1, 2)
        from_own = weight_BKUQT @ self._own[2 * index + 1][:, :, :, :n_own]
        return (from_prompt + from_own).reshape(B * K, -1)

    def keep(self, rows: Tensor) -> None:
        self._last_B, self._place_B = self._last_B[rows], self._place_B[rows]
        self._mask_B11C = self._mask_B11C[rows]
        self._prompt = [part[rows] for part in self._prompt]
        self._own = [part[rows] for part in self._own]

    def reorder(self, parent_BK: Tensor) -> None:
        rows_B1 = torch.arange(len(parent_BK), device=self.device)[:, None]
        self._own = [part[rows_B1, parent_BK] for part in self._own]
