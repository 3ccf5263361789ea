"""T5's decoder for searches that extend many beams of one user: user-level memory, shared key and value slots.

Legend: B users, Q query tokens of a user in one pass, C slots (tokens evaluated so far), S prompt tokens, R rows that
are no padding, H heads, K width of a head, D width of the model, V vocabulary.

The encoder's output and the cross-attention keys and values are held once a user, never once a beam. Every token that
a search evaluates gets a slot of its user's self-attention cache; a search tells for each query which slots are its
ancestors, so that reordering beams moves no keys or values. Knows nothing of trees, scores or beams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

# Logits of so many vocabulary rows at a time, so that they are summed while they are still in the processor's cache.
VOCABULARY_CHUNK = 2048
_MASKED = -1e9


@dataclass
class Memory:
    """What the decoder keeps of a batch of users.

    Attributes:
        cross: for each layer the keys and values of the prompt, [B, H, S, K] each.
        prompt_bias: [B, 1, 1, S], 0 at tokens and a large negative number at padding; None without padding.
        keys, values: for each layer [B, H, capacity, K]; the first `used` slots are filled.
        position: [B, capacity] the place of each slot's token in the decoder's sequence.
        used: the number of slots filled.
    """

    cross: list[tuple[torch.Tensor, torch.Tensor]]
    prompt_bias: torch.Tensor | None
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    position: torch.Tensor
    used: int = 0


class Decoder:
    """The decoder of a T5, reading the weights of the Hugging Face module.

    Args:
        model: in evaluation mode; it runs the encoder.
        max_positions: the longest decoder sequence that will be asked for.
    """

    def __init__(self, model: T5ForConditionalGeneration, max_positions: int) -> None:
        config: Any = model.config
        stack: Any = model.decoder
        self.model = model
        self.heads, self.head_width = config.num_heads, config.d_kv
        self.head_VD: torch.Tensor = model.lm_head.weight
        self.scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self.start: int = config.pad_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
        self.layers = [_Layer(block) for block in stack.block]
        self.embedding_VD: torch.Tensor = stack.embed_tokens.weight
        self.final_norm = stack.final_layer_norm
        attention = stack.block[0].layer[0].SelfAttention
        # The bias of the last of max_positions queries, from the farthest key to the nearest: [H, distance].
        self.bias_HP = attention.compute_bias(1, max_positions, past_seen_tokens=max_positions - 1)[0, :, 0].flip(-1)

    @property
    def device(self) -> torch.device:
        return self.head_VD.device

    def encode(self, prompts: Sequence[Sequence[int]]) -> Memory:
        """Run the encoder and compute the cross-attention's keys and values, once a user."""
        longest = max(len(prompt) for prompt in prompts)
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt, dtype=torch.long)
            mask[row, : len(prompt)] = 1
        padded = bool((mask == 0).any())
        tokens, mask = tokens.to(self.device), mask.to(self.device)
        encoder: Any = self.model.encoder
        prompt_BSD = encoder(input_ids=tokens, attention_mask=mask if padded else None).last_hidden_state
        cross = []
        for layer in self.layers:
            key, value = F.linear(prompt_BSD, layer.cross_key_value).chunk(2, dim=-1)
            cross.append((self._split(key), self._split(value)))
        bias = ((1 - mask) * _MASKED).to(prompt_BSD.dtype)[:, None, None, :] if padded else None
        empty = prompt_BSD.new_empty(len(prompts), self.heads, 0, self.head_width)
        return Memory(
            cross=cross,
            prompt_bias=bias,
            keys=[empty for _ in self.layers],
            values=[empty for _ in self.layers],
            position=torch.zeros(len(prompts), 0, dtype=torch.long, device=self.device),
        )

    def extend(
        self, memory: Memory, token_BQ: torch.Tensor, position_BQ: torch.Tensor, sees_BQC: torch.Tensor
    ) -> torch.Tensor:
        """Evaluate Q more tokens of every user and keep their keys and values in the next Q slots.

        Args:
            memory: changed in place.
            token_BQ: the tokens.
            position_BQ: their places in the decoder's sequence, from 0.
            sees_BQC: [B, Q, used + Q] which slots each token attends to, its own among them.

        Returns:
            [B, Q, D] hidden states, scaled so that their product with `head_VD` is the logits.
        """
        first, last = memory.used, memory.used + token_BQ.shape[1]
        self._reserve(memory, last)
        memory.position[:, first:last] = position_BQ
        memory.used = last
        distance_BQC = (position_BQ[:, :, None] - memory.position[:, None, :last]).clamp_(min=0)
        bias = self.bias_HP[:, distance_BQC].transpose(0, 1).masked_fill(~sees_BQC[:, None], _MASKED)

        hidden = F.embedding(token_BQ, self.embedding_VD)
        for index, layer in enumerate(self.layers):
            query, key, value = F.linear(layer.norms[0](hidden), layer.query_key_value).chunk(3, dim=-1)
            memory.keys[index][:, :, first:last] = self._split(key)
            memory.values[index][:, :, first:last] = self._split(value)
            mixed = _attend(
                self._split(query), memory.keys[index][:, :, :last], memory.values[index][:, :, :last], bias
            )
            hidden = hidden + F.linear(self._join(mixed), layer.out)
            query = F.linear(layer.norms[1](hidden), layer.cross_query)
            mixed = _attend(self._split(query), *memory.cross[index], memory.prompt_bias)
            hidden = hidden + F.linear(self._join(mixed), layer.cross_out)
            hidden = hidden + layer.feed_forward(layer.norms[2](hidden))
        return self.final_norm(hidden) * self.scale

    def log_normaliser(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """The logarithm of the sum of exponentials over the whole vocabulary, [R] in float32 (Eq. 2)."""
        sums = [
            torch.mm(hidden_RD, chunk_VD.T).float().logsumexp(-1) for chunk_VD in self.head_VD.split(VOCABULARY_CHUNK)
        ]
        return torch.stack(sums).logsumexp(0)

    def _split(self, hidden_BQI: torch.Tensor) -> torch.Tensor:
        return hidden_BQI.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)

    @staticmethod
    def _join(mixed_BHQK: torch.Tensor) -> torch.Tensor:
        return mixed_BHQK.transpose(1, 2).flatten(2)

    def _reserve(self, memory: Memory, slots: int) -> None:
        capacity = memory.position.shape[1]
        if slots <= capacity:
            return
        more = max(slots, 2 * capacity) - capacity
        for tensors in (memory.keys, memory.values):
            for index, tensor in enumerate(tensors):
                tensors[index] = F.pad(tensor, (0, 0, 0, more))
        memory.position = F.pad(memory.position, (0, more))


class _Layer:
    """The weights of one decoder block, with those that read the same input joined."""

    def __init__(self, block: Any) -> None:
        own, cross, forward = block.layer
        self.norms = (own.layer_norm, cross.layer_norm, forward.layer_norm)
        attention = own.SelfAttention
        self.query_key_value = torch.cat([attention.q.weight, attention.k.weight, attention.v.weight])
        self.out = attention.o.weight
        attention = cross.EncDecAttention
        self.cross_query = attention.q.weight
        self.cross_key_value = torch.cat([attention.k.weight, attention.v.weight])
        self.cross_out = attention.o.weight
        self.feed_forward = forward.DenseReluDense


def _attend(
    query_BHQK: torch.Tensor, key_BHCK: torch.Tensor, value_BHCK: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    weight_BHQC = query_BHQK @ key_BHCK.transpose(-1, -2)  # T5 does not divide by the root of the width
    if bias is not None:
        weight_BHQC += bias
    return weight_BHQC.softmax(-1) @ value_BHCK
