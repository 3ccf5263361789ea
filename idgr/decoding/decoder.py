"""A decoder for searches that follow many prefixes of one user's answer.

Legend: B users, Q query tokens of a user in one pass, R queries that are no padding, C slots (tokens of a user that
have been evaluated), S prompt tokens, U heads of keys and values, L layers, K width of a head, D width of the model,
V vocabulary.

What a prompt gives, its keys and values, is held once a user, never once a prefix. Every token that a search evaluates
takes a slot of its user's cache, and a search says for each query which slots are its ancestors, so that beams can be
reordered without moving keys or values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from idgr.decoding.causal_network import CausalNetwork
from idgr.decoding.compiled_pass import FEWEST_ROWS, FEWEST_SLOTS, CompiledPass
from idgr.decoding.kv_cache import MASKED, KVCache, Network, Pass, Told
from idgr.decoding.prompt_memory import PromptMemory
from idgr.decoding.t5_network import T5Network
from idgr.models.compiling import power_bucket, width_bucket

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

# So many vocabulary rows are multiplied and summed at a time, while they are in the processor's cache.
VOCABULARY_CHUNK = 2048
# So many hidden states at a time are multiplied with them, which also bounds the memory for logits.
ROWS_AT_ONCE = 512
# Below this a sum of exponentials may have lost terms to underflow.
SMALLEST_SUM = 1e-25
# Users are computed together if the shortest has this share of the longest's tokens. A processor is the slower the
# more padding it multiplies; a GPU is the slower the more often it is asked.
_PADDING = 0.75


class Decoder:
    """A recommender made ready for searches.

    Args:
        model: its weights are read as they are, in its own precision.
        max_positions: the longest answer that will be asked for.
        separator: of a causal model: the token that ends an ID and stands before the next one; None for EOS.
        told: of a causal model: what is added to the embeddings of prompts; None for nothing.
        compile: whether passes over answers go through `torch.compile`. Then a memory has more rows than users and more
            slots than are used, `idgr.decoding.compiled_pass` tells how many.
    """

    def __init__(
        self,
        model: T5ForConditionalGeneration | LlamaForCausalLM,
        max_positions: int,
        separator: int | None = None,
        told: Told | None = None,
        *,
        compile: bool = False,
    ) -> None:
        self.network: Network = (
            T5Network(model, max_positions)
            if model.config.is_encoder_decoder
            else CausalNetwork(model, separator, told)
        )
        self.head_VD, self.start, self.n_heads = self.network.head_VD, self.network.start, self.network.n_heads
        self.compiled = CompiledPass(self.network) if compile else None

    @property
    def device(self) -> torch.device:
        return self.network.device

    def remember(self, memory: PromptMemory) -> None:
        """Of a causal model: read of prompts only what a memory does not know, and keep it there."""
        assert isinstance(self.network, CausalNetwork)
        self.network.memory = memory

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

    def read(self, prompts: Sequence[Sequence[int]]) -> KVCache:
        """Read the prompts: the keys and values that answers attend to, once a user."""
        lengths = [len(prompt) for prompt in prompts]
        B, X, S = len(prompts), self._rows(len(prompts)), max(lengths)
        S = width_bucket(S) if self.compiled else S
        L, U, K = self.network.shape
        kept = [(self._empty(X, U, S, K), self._empty(X, U, S, K)) for _ in range(L)]
        told, origin = self.network.told([list(prompt) for prompt in prompts]), [0] * X
        origin[:B] = [self.network.origin(list(prompt)) for prompt in prompts]
        for rows in self.alike(lengths):
            if not (rows := [row for row in rows if lengths[row]]):
                continue
            found = self.network.read([list(prompts[row]) for row in rows])
            for (keys, values), (key, value) in zip(kept, found, strict=True):
                keys[rows, :, : key.shape[2]], values[rows, :, : key.shape[2]] = key, value
        padding_XS = torch.arange(S) >= torch.tensor(lengths + [0] * (X - B))[:, None]
        return KVCache(
            prompt=kept,
            prompt_bias=(padding_XS[:, None, None] * MASKED).to(kept[0][0]),
            origin=torch.tensor(origin, device=self.device),
            keys=[self._empty(X, U, 0, K) for _ in range(L)],
            values=[self._empty(X, U, 0, K) for _ in range(L)],
            position=torch.zeros(B, 0, dtype=torch.long, device=self.device),
            hidden=self._empty(B, 0, self.head_VD.shape[1]),
            told=None if told is None else F.pad(told, (0, 0, 0, X - B)),
        )

    def _rows(self, users: int) -> int:
        """How many rows a memory of so many users has."""
        return power_bucket(users, FEWEST_ROWS) if self.compiled else users

    def only(self, cache: KVCache, rows: list[int]) -> KVCache:
        """A copy of some users' memory, without free slots and without prompt padding that all of them have."""
        several = rows + rows[:1] * (self._rows(len(rows)) - len(rows))
        bias = cache.prompt_bias[several]
        S = int((bias >= 0).sum(-1).max())
        S = width_bucket(S) if self.compiled else S
        return KVCache(
            prompt=[(keys[several, :, :S], values[several, :, :S]) for keys, values in cache.prompt],
            prompt_bias=bias[..., :S].contiguous(),
            origin=cache.origin[several],
            keys=[keys[several, :, : cache.used] for keys in cache.keys],
            values=[values[several, :, : cache.used] for values in cache.values],
            position=cache.position[rows, : cache.used],
            hidden=cache.hidden[rows, : cache.used],
            told=None if cache.told is None else cache.told[several],
            used=cache.used,
        )

    def with_slots(self, cache: KVCache, slots: torch.Tensor) -> KVCache:
        """The memory with copies of some of its slots alone, in the order given."""
        return KVCache(
            prompt=cache.prompt,
            prompt_bias=cache.prompt_bias,
            origin=cache.origin,
            keys=[keys[:, :, slots] for keys in cache.keys],
            values=[values[:, :, slots] for values in cache.values],
            position=cache.position[:, slots],
            hidden=cache.hidden[:, slots],
            told=cache.told,
            used=len(slots),
        )

    def append(self, cache: KVCache, other: KVCache, first: int) -> None:
        """Add to a memory the slots of another one of the same users, from `first` on."""
        n = other.used - first
        self._reserve(cache, cache.used + n)
        to, of = slice(cache.used, cache.used + n), slice(first, other.used)
        for mine, theirs in ((cache.keys, other.keys), (cache.values, other.values)):
            for tensor, added in zip(mine, theirs, strict=True):
                tensor[:, :, to] = added[:, :, of]
        cache.position[:, to] = other.position[:, of]
        cache.hidden[:, to] = other.hidden[:, of]
        cache.used += n

    def _empty(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.network.dtype, device=self.device)

    def extend(
        self,
        cache: KVCache,
        token_BQ: torch.Tensor,
        position_BQ: torch.Tensor,
        sees_BQC: torch.Tensor,
        cell_R: torch.Tensor,
    ) -> torch.Tensor:
        """Evaluate Q more tokens of every user and keep what follows from them in the next Q slots.

        Args:
            cache: changed in place.
            token_BQ: the tokens; padding where a user has fewer.
            position_BQ: their places in the answer, from 0.
            sees_BQC: [B, Q, used + Q] which slots each token attends to: its ancestors and itself.
            cell_R: the places of [B, Q], flattened, that are no padding, ascending.

        Returns:
            [R, D] hidden states, scaled so that their product with `head_VD` is the logits.
        """
        first, last = cache.used, cache.used + token_BQ.shape[1]
        self._reserve(cache, last)
        cache.position[:, first:last] = position_BQ
        cache.used = last
        if self.compiled is not None:
            hidden_BQD = self.compiled.extend(cache, token_BQ, sees_BQC, first)
            cache.hidden[:, first:last] = hidden_BQD
            return hidden_BQD.flatten(0, 1)[cell_R]
        step = Pass(token_BQ.flatten()[cell_R], cell_R, position_BQ, sees_BQC, first, last)
        hidden_RD = self.network.extend(cache, step)
        cache.hidden[:, first:last] = step.spread(hidden_RD)
        return hidden_RD

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

    def _reserve(self, cache: KVCache, slots: int) -> None:
        capacity = cache.position.shape[1]
        if slots <= capacity:
            return
        more = (power_bucket(slots, FEWEST_SLOTS) if self.compiled else max(slots, 2 * capacity)) - capacity
        for tensors in (cache.keys, cache.values):
            for index, tensor in enumerate(tensors):
                tensors[index] = F.pad(tensor, (0, 0, 0, more))
        cache.position = F.pad(cache.position, (0, more))
        cache.hidden = F.pad(cache.hidden, (0, 0, 0, more))
