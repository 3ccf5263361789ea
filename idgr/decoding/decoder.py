"""T5's decoder for searches that follow many prefixes of one user's answer.

Legend: B users, Q query tokens of a user in one pass, R queries that are no padding, C slots (tokens of a user that
have been evaluated), S prompt tokens, H heads, K width of a head, I all heads together, D width of the model,
V vocabulary.

The encoder's output and the cross-attention's keys and values are held once a user, never once a prefix. Every token
that a search evaluates takes a slot of its user's self-attention cache, and a search says for each query which slots
are its ancestors, so that beams can be reordered without moving keys or values. Knows nothing of trees or scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from idgr.models.t5 import T5, DecoderLayer, FeedForward, encode, feed_forward, norm, read_weights

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

# So many vocabulary rows are multiplied and summed at a time, while they are in the processor's cache.
VOCABULARY_CHUNK = 2048
# So many hidden states at a time are multiplied with them, which also bounds the memory for logits.
ROWS_AT_ONCE = 512
# Below this a sum of exponentials may have lost terms to underflow.
SMALLEST_SUM = 1e-25
_MASKED = -1e9
# Users are computed together if the shortest has this share of the longest's tokens. A processor is the slower the
# more padding it multiplies; a GPU is the slower the more often it is asked.
_PADDING = 0.75


@dataclass
class Memory:
    """What the decoder keeps of a batch of users.

    Attributes:
        cross: for each layer the keys and values of the prompt, [B, H, S, K] each.
        prompt_bias: [B, 1, 1, S], 0 at tokens and a large negative number at padding.
        keys, values: for each layer [B, H, capacity, K]; the first `used` slots are filled.
        position: [B, capacity] the place of each slot's token in the decoder's sequence.
        hidden: [B, capacity, D] the last hidden state of each slot, whose product with the head is the logits.
        used: the number of slots filled.
    """

    cross: list[tuple[torch.Tensor, torch.Tensor]]
    prompt_bias: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    position: torch.Tensor
    hidden: torch.Tensor
    used: int = 0


class Decoder:
    """A T5 made ready for searches.

    Args:
        model: its weights are read as they are, in its own precision.
        max_positions: the longest decoder sequence that will be asked for.
    """

    def __init__(self, model: T5ForConditionalGeneration, max_positions: int) -> None:
        self.t5: T5 = read_weights(model, model.dtype)
        self.head_VD, self.start = self.t5.head_VD, self.t5.start
        self.layers = [_Layer(layer) for layer in self.t5.decoder]
        # The bias of the last of max_positions queries, from the nearest key to the farthest: [H, distance]. Behind it
        # what a query that does not see a slot gets.
        bias_HP = self.t5.decoder_bias(max_positions, max_positions)[0, :, -1].flip(-1)
        self.bias_HP = F.pad(bias_HP, (0, 1), value=_MASKED)

    @property
    def device(self) -> torch.device:
        return self.t5.device

    def alike(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """The places of the lengths in groups that it is best to compute together."""
        share = _PADDING if self.device.type == "cpu" else 0.0
        group: list[int] = []
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            if group and lengths[place] < share * lengths[group[0]]:
                yield group
                group = []
            group.append(place)
        yield group

    def encode(self, prompts: Sequence[Sequence[int]]) -> Memory:
        """Run the encoder and compute the cross-attention's keys and values, once a user."""
        lengths = [len(prompt) for prompt in prompts]
        B, S, H = len(prompts), max(lengths), self.t5.n_heads
        K = self.layers[0].out.shape[1] // H
        cross = [(self._empty(B, H, S, K), self._empty(B, H, S, K)) for _ in self.layers]
        for rows in self.alike(lengths):
            prompt_RSD, _ = encode(self.t5, [prompts[row] for row in rows])
            for layer, (keys, values) in zip(self.layers, cross, strict=True):
                key, value = F.linear(prompt_RSD, layer.cross_key_value).chunk(2, dim=-1)
                keys[rows, :, : key.shape[1]], values[rows, :, : key.shape[1]] = self._split(key), self._split(value)
        padding_BS = torch.arange(S) >= torch.tensor(lengths)[:, None]
        return Memory(
            cross=cross,
            prompt_bias=(padding_BS[:, None, None] * _MASKED).to(cross[0][0]),
            keys=[self._empty(B, H, 0, K) for _ in self.layers],
            values=[self._empty(B, H, 0, K) for _ in self.layers],
            position=torch.zeros(B, 0, dtype=torch.long, device=self.device),
            hidden=self._empty(B, 0, self.head_VD.shape[1]),
        )

    def only(self, memory: Memory, rows: list[int]) -> Memory:
        """A copy of some users' memory, without free slots and without prompt padding that all of them have."""
        bias = memory.prompt_bias[rows]
        S = int((bias >= 0).sum(-1).max())
        return Memory(
            cross=[(keys[rows, :, :S], values[rows, :, :S]) for keys, values in memory.cross],
            prompt_bias=bias[..., :S],
            keys=[keys[rows, :, : memory.used] for keys in memory.keys],
            values=[values[rows, :, : memory.used] for values in memory.values],
            position=memory.position[rows, : memory.used],
            hidden=memory.hidden[rows, : memory.used],
            used=memory.used,
        )

    def with_slots(self, memory: Memory, slots: torch.Tensor) -> Memory:
        """The memory with copies of some of its slots alone, in the order given."""
        return Memory(
            cross=memory.cross,
            prompt_bias=memory.prompt_bias,
            keys=[keys[:, :, slots] for keys in memory.keys],
            values=[values[:, :, slots] for values in memory.values],
            position=memory.position[:, slots],
            hidden=memory.hidden[:, slots],
            used=len(slots),
        )

    def append(self, memory: Memory, other: Memory, first: int) -> None:
        """Add to a memory the slots of another one of the same users, from `first` on."""
        n = other.used - first
        self._reserve(memory, memory.used + n)
        to, of = slice(memory.used, memory.used + n), slice(first, other.used)
        for mine, theirs in ((memory.keys, other.keys), (memory.values, other.values)):
            for tensor, added in zip(mine, theirs, strict=True):
                tensor[:, :, to] = added[:, :, of]
        memory.position[:, to] = other.position[:, of]
        memory.hidden[:, to] = other.hidden[:, of]
        memory.used += n

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.t5.dtype, device=self.device)

    def extend(
        self,
        memory: Memory,
        token_BQ: torch.Tensor,
        position_BQ: torch.Tensor,
        sees_BQC: torch.Tensor,
        cell_R: torch.Tensor,
    ) -> torch.Tensor:
        """Evaluate Q more tokens of every user and keep what follows from them in the next Q slots.

        Args:
            memory: changed in place.
            token_BQ: the tokens; padding where a user has fewer.
            position_BQ: their places in the decoder's sequence, from 0.
            sees_BQC: [B, Q, used + Q] which slots each token attends to: its ancestors and itself.
            cell_R: the places of [B, Q], flattened, that are no padding, ascending.

        Returns:
            [R, D] hidden states, scaled so that their product with `head_VD` is the logits.
        """
        (B, Q), first, last = token_BQ.shape, memory.used, memory.used + token_BQ.shape[1]
        self._reserve(memory, last)
        memory.position[:, first:last] = position_BQ
        memory.used = last
        distance_BQC = (position_BQ[:, :, None] - memory.position[:, None, :last]).clamp_(min=0)
        distance_BQC.masked_fill_(~sees_BQC, self.bias_HP.shape[1] - 1)
        bias_BHQC = self.bias_HP[:, distance_BQC].transpose(0, 1)
        full = len(cell_R) == B * Q

        def spread(hidden_RI: torch.Tensor) -> torch.Tensor:
            if not full:
                hidden_RI = hidden_RI.new_zeros(B * Q, hidden_RI.shape[1]).index_copy_(0, cell_R, hidden_RI)
            return hidden_RI.view(B, Q, -1)

        def gather(mixed_BHQK: torch.Tensor) -> torch.Tensor:
            mixed = mixed_BHQK.transpose(1, 2).reshape(B * Q, -1)
            return mixed if full else mixed[cell_R]

        t5 = self.t5
        hidden = F.embedding(token_BQ.view(-1) if full else token_BQ.view(-1)[cell_R], t5.embedding_VD)
        for index, layer in enumerate(self.layers):
            query, key, value = spread(F.linear(norm(t5, hidden, layer.norm), layer.query_key_value)).chunk(3, dim=-1)
            memory.keys[index][:, :, first:last] = self._split(key)
            memory.values[index][:, :, first:last] = self._split(value)
            keys, values = memory.keys[index][:, :, :last], memory.values[index][:, :, :last]
            hidden = hidden + F.linear(gather(_attend(self._split(query), keys, values, bias_BHQC)), layer.out)
            query = self._split(spread(F.linear(norm(t5, hidden, layer.cross_norm), layer.cross_query)))
            hidden = hidden + F.linear(
                gather(_attend(query, *memory.cross[index], memory.prompt_bias)), layer.cross_out
            )
            hidden = hidden + feed_forward(t5, layer.feed_forward, hidden)
        scaled_RD = norm(t5, hidden, t5.decoder_norm_D) * t5.head_scale
        memory.hidden[:, first:last] = spread(scaled_RD)
        return scaled_RD

    def log_normaliser(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """The logarithm of the sum of exponentials over the whole vocabulary, [R] in float32 (Eq. 2)."""
        return torch.cat([self._log_normaliser(some_RD) for some_RD in torch.split(hidden_RD, ROWS_AT_ONCE)])

    def _log_normaliser(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cpu":
            # Logits beyond ±80 are rare, so the sums are taken as they are, which saves two passes over the logits;
            # powers of two are three times as fast as those of e.
            total_R = hidden_RD.new_zeros(len(hidden_RD), dtype=torch.float32)
            binary_RD = hidden_RD * math.log2(math.e)
            for chunk_VD in torch.split(self.head_VD, VOCABULARY_CHUNK):
                total_R += torch.mm(binary_RD, chunk_VD.T).float().exp2_().sum(-1)
            if bool((total_R.isfinite() & (total_R > SMALLEST_SUM)).all()):
                return total_R.log_()
        return torch.mm(hidden_RD, self.head_VD.T).float().logsumexp(-1)

    def _split(self, hidden_BQI: torch.Tensor) -> torch.Tensor:
        B, Q, _ = hidden_BQI.shape
        return hidden_BQI.view(B, Q, self.t5.n_heads, -1).transpose(1, 2)

    def _reserve(self, memory: Memory, slots: int) -> None:
        capacity = memory.position.shape[1]
        if slots <= capacity:
            return
        more = max(slots, 2 * capacity) - capacity
        for tensors in (memory.keys, memory.values):
            for index, tensor in enumerate(tensors):
                tensors[index] = F.pad(tensor, (0, 0, 0, more))
        memory.position = F.pad(memory.position, (0, more))
        memory.hidden = F.pad(memory.hidden, (0, 0, 0, more))


class _Layer:
    """The weights of one decoder layer, with those that read the same input joined."""

    def __init__(self, layer: DecoderLayer) -> None:
        own, cross = layer.self_attention, layer.cross_attention
        self.norm, self.cross_norm = own.norm_D, cross.norm_D
        self.query_key_value = torch.cat([own.q, own.k, own.v])
        self.out = own.o
        self.cross_query = cross.q
        self.cross_key_value = torch.cat([cross.k, cross.v])
        self.cross_out = cross.o
        self.feed_forward: FeedForward = layer.feed_forward


def _attend(
    query_BHQK: torch.Tensor, key_BHCK: torch.Tensor, value_BHCK: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    weight_BHQC = query_BHQK @ key_BHCK.transpose(-1, -2)  # T5 does not divide by the root of the width
    weight_BHQC += bias
    return weight_BHQC.softmax(-1) @ value_BHCK
