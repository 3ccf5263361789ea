"""What a decoder keeps of a batch of users, and one pass of more tokens through it.

Legend: B users, Q query tokens of a user in one pass, R queries that are no padding, C slots (tokens of a user that
have been evaluated), S prompt tokens, H heads of queries, U heads of keys and values, K width of a head, I all heads
together, G queries of a user that share keys: Q for each of the H / U heads that do, D width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

MASKED = -1e9


class Told(Protocol):
    """What is added to the embeddings of prompts; see `idgr.recommender.told_items.ToldItems`."""

    def within(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def behind(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor: ...


@dataclass
class KVCache:
    """What the decoder keeps of a batch of users.

    Attributes:
        prompt: for each layer the keys and values of the prompt, [B, U, S, K] each.
        prompt_bias: [B, 1, 1, S], 0 at tokens and a large negative number at padding.
        origin: [B] the place, in a sequence that goes on from the prompt, of the answer's start token.
        keys, values: for each layer [B, U, capacity, K]; the first `used` slots are filled.
        position: [B, capacity] the place of each slot's token in the answer.
        hidden: [B, capacity, D] the last hidden state of each slot, whose product with the head is the logits.
        told: [B, D] what is added to the embedding of each answer's start token; None for nothing.
        used: the number of slots filled.
    """

    prompt: list[tuple[torch.Tensor, torch.Tensor]]
    prompt_bias: torch.Tensor
    origin: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    position: torch.Tensor
    hidden: torch.Tensor
    told: torch.Tensor | None = None
    used: int = 0


@dataclass(frozen=True)
class Pass:
    """Q more tokens of every user, whose slots in the memory are reserved.

    Attributes:
        token_R: the tokens that are no padding.
        cell_R: their places of [B, Q], flattened, ascending.
        position_BQ: the places of all in the answer, from 0.
        sees_BQC: which slots each attends to, up to the last of this pass: its ancestors and itself.
        first, last: the slots of the pass.
    """

    token_R: torch.Tensor
    cell_R: torch.Tensor
    position_BQ: torch.Tensor
    sees_BQC: torch.Tensor
    first: int
    last: int

    def spread(self, hidden_RI: torch.Tensor) -> torch.Tensor:
        """[B, Q, I] with zeros at padding."""
        B, Q = self.position_BQ.shape
        if len(self.cell_R) < B * Q:
            hidden_RI = hidden_RI.new_zeros(B * Q, hidden_RI.shape[1]).index_copy_(0, self.cell_R, hidden_RI)
        return hidden_RI.view(B, Q, -1)

    def gather(self, mixed_BHQK: torch.Tensor) -> torch.Tensor:
        """[R, I] of what is no padding, the heads side by side."""
        B, Q = self.position_BQ.shape
        mixed = mixed_BHQK.transpose(1, 2).reshape(B * Q, -1)
        return mixed if len(self.cell_R) == B * Q else mixed[self.cell_R]

    def heads(self, hidden_RI: torch.Tensor, n_heads: int) -> torch.Tensor:
        """[B, H, Q, K] with zeros at padding."""
        hidden_BQI = self.spread(hidden_RI)
        return hidden_BQI.view(*hidden_BQI.shape[:2], n_heads, -1).transpose(1, 2)

    def keep(
        self, cache: KVCache, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Put the keys and values [B, U, Q, K] of a layer into the pass's slots.

        Returns:
            The keys and values of all slots up to those, in one block or several side by side.
        """
        cache.keys[layer][:, :, self.first : self.last] = key
        cache.values[layer][:, :, self.first : self.last] = value
        return [(cache.keys[layer][:, :, : self.last], cache.values[layer][:, :, : self.last])]


class Network(Protocol):
    """An architecture as the decoder asks it: over prompts, once a user, and over the tokens of answers."""

    head_VD: torch.Tensor
    start: int
    n_heads: int

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of layers, the heads of keys and values of each, U, and the width of a head, K."""
        ...

    def read(self, prompts: list[list[int]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each layer the keys and values that answers attend to, [B, U, S, K] each, of prompts that are not empty.

        What stands at the padding of shorter prompts is of no consequence.
        """
        ...

    def origin(self, prompt: list[int]) -> int:
        """See `KVCache.origin`."""
        ...

    def told(self, prompts: list[list[int]]) -> torch.Tensor | None:
        """See `KVCache.told`."""
        ...

    def extend(self, cache: KVCache, step: Pass) -> torch.Tensor:
        """Evaluate a pass and keep its keys and values.

        Returns:
            [R, D] hidden states, scaled so that their product with `head_VD` is the logits.
        """
        ...


def attend(
    query_BHQK: torch.Tensor, key_BHCK: torch.Tensor, value_BHCK: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Attention without a division by the root of the width, which T5 does without."""
    weight_BHQC = query_BHQK @ key_BHCK.transpose(-1, -2)
    weight_BHQC += bias
    return weight_BHQC.softmax(-1) @ value_BHCK


def attend_all(
    query_BHQK: torch.Tensor, parts: list[tuple[torch.Tensor, torch.Tensor]], bias: torch.Tensor
) -> torch.Tensor:
    """As `attend`, to several blocks of keys and values, [B, U, C, K] each, as if they were one.

    Neither are the blocks copied together nor the keys that several heads of queries share copied for each.

    Args:
        bias: [B, H or 1, Q, C] over the keys of all blocks in turn.
    """
    B, H, Q, K = query_BHQK.shape
    U = parts[0][0].shape[1]
    query_BUGK = query_BHQK.reshape(B, U, H // U * Q, K)
    weight_BUGC = torch.cat([query_BUGK @ keys.transpose(-1, -2) for keys, _ in parts], dim=-1)
    weight_BUGC.view(B, H, Q, -1).add_(bias)
    weights = weight_BUGC.softmax(-1).split([keys.shape[2] for keys, _ in parts], dim=-1)  # type: ignore[no-untyped-call]
    mixed_BUGK = sum(weight @ values for weight, (_, values) in zip(weights, parts, strict=True))
    assert isinstance(mixed_BUGK, torch.Tensor)
    return mixed_BUGK.view(B, H, Q, K)
