"""T5 as the decoder asks it: the encoder reads the prompt, answers attend to it across.

Legend: B users, Q query tokens of a user in one pass, R queries that are no padding, C slots, H heads, P positions,
D width of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from idgr.decoding.kv_cache import MASKED, KVCache, Pass, attend, attend_all
from idgr.models.t5 import T5, DecoderLayer, FeedForward, encode, feed_forward, norm, read_weights

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


class T5Network:
    """A T5 made ready for searches; see `idgr.decoding.kv_cache.Network`.

    Args:
        model: its weights are read as they are, in its own precision.
        max_positions: the longest decoder sequence that will be asked for.
    """

    def __init__(self, model: T5ForConditionalGeneration, max_positions: int) -> None:
        self.t5: T5 = read_weights(model, model.dtype)
        self.head_VD, self.start, self.n_heads = self.t5.head_VD, self.t5.start, self.t5.n_heads
        self.layers = [_Layer(layer) for layer in self.t5.decoder]
        # The bias of the last of max_positions queries, from the nearest key to the farthest: [H, distance]. Behind it
        # what a query that does not see a slot gets.
        bias_HP = self.t5.decoder_bias(max_positions, max_positions)[0, :, -1].flip(-1)
        self.bias_HP = F.pad(bias_HP, (0, 1), value=MASKED)

    @property
    def device(self) -> torch.device:
        return self.t5.device

    @property
    def dtype(self) -> torch.dtype:
        return self.t5.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.layers), self.n_heads, self.layers[0].out.shape[1] // self.n_heads

    def read(self, prompts: list[list[int]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        prompt_BSD, _ = encode(self.t5, prompts)
        parts = [F.linear(prompt_BSD, layer.cross_key_value).chunk(2, dim=-1) for layer in self.layers]
        return [(self._split(key), self._split(value)) for key, value in parts]

    def origin(self, prompt: list[int]) -> int:
        return 0  # answers are a sequence of their own

    def told(self, prompts: list[list[int]]) -> None:
        return None

    def extend(self, cache: KVCache, step: Pass) -> torch.Tensor:
        t5, H = self.t5, self.n_heads
        distance_BQC = (step.position_BQ[:, :, None] - cache.position[:, None, : step.last]).clamp_(min=0)
        distance_BQC.masked_fill_(~step.sees_BQC, self.bias_HP.shape[1] - 1)
        bias_BHQC = self.bias_HP[:, distance_BQC].transpose(0, 1)
        hidden = F.embedding(step.token_R, t5.embedding_VD)
        for index, layer in enumerate(self.layers):
            query_key_value = F.linear(norm(t5, hidden, layer.norm), layer.query_key_value)
            query, key, value = step.heads(query_key_value, 3 * H).chunk(3, dim=1)
            own = step.keep(cache, index, key, value)
            mixed = attend(query, *own[0], bias_BHQC) if len(own) == 1 else attend_all(query, own, bias_BHQC)
            hidden = hidden + F.linear(step.gather(mixed), layer.out)
            query = step.heads(F.linear(norm(t5, hidden, layer.cross_norm), layer.cross_query), H)
            mixed = attend(query, *cache.prompt[index], cache.prompt_bias)
            hidden = hidden + F.linear(step.gather(mixed), layer.cross_out)
            hidden = hidden + feed_forward(t5, layer.feed_forward, hidden)
        return norm(t5, hidden, t5.decoder_norm_D) * t5.head_scale

    def _split(self, hidden_BSI: torch.Tensor) -> torch.Tensor:
        return hidden_BSI.view(*hidden_BSI.shape[:2], self.n_heads, -1).transpose(1, 2)


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
