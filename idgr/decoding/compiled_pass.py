"""A pass of the decoder through `torch.compile`, in few sizes.

Legend: B users, X rows of the cache (B, filled up), Q query tokens of a user in one pass, Y of them with filling, C
slots that there are, U heads of keys and values, K width of a head, S prompt tokens, D width of the model.

What a search asks differs from pass to pass in five sizes: users, tokens of a user, slots, prompt tokens, and tokens
that are no padding. Users and tokens are filled up to powers of two, slots are made in powers of two, prompts are
filled up to `width_bucket`, and all X times Y tokens are computed. Nothing that is filling is attended to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from idgr.decoding.kv_cache import KVCache, Network, Pass
from idgr.models.compiling import CompiledFunction, mark_sizes, mark_weights, power_bucket

if TYPE_CHECKING:
    from collections.abc import Sequence

# So many sizes of a pass are compiled for, which bounds the time and the memory that CUDA graphs take.
MOST_SIZES = 64
FEWEST_SLOTS = 64
# A size of 1 would be compiled for by itself.
FEWEST_ROWS = 2
_FEWEST_TOKENS = 8


@dataclass(frozen=True)
class FullPass(Pass):
    """A pass without padding, as far as it is told, which leaves the cache as it is.

    Attributes:
        kept: what has been computed of each layer: the keys and values [X, U, Y, K].
    """

    kept: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def spread(self, hidden_RI: torch.Tensor) -> torch.Tensor:
        return hidden_RI.view(*self.position_BQ.shape, -1)

    def gather(self, mixed_BHQK: torch.Tensor) -> torch.Tensor:
        return mixed_BHQK.transpose(1, 2).flatten(2).flatten(0, 1)

    def keep(
        self, cache: KVCache, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        self.kept.append((key, value))
        return [(cache.keys[layer], cache.values[layer]), (key, value)]


class CompiledPass:
    """Passes of an architecture, compiled."""

    def __init__(self, network: Network) -> None:
        self.network = network
        mark_weights(network)
        self.run = CompiledFunction(self._run, network.device, MOST_SIZES)

    def extend(self, cache: KVCache, token_BQ: torch.Tensor, sees_BQC: torch.Tensor, first: int) -> torch.Tensor:
        """Evaluate the tokens of [B, Q] cells, padding too, and put their keys and values into the slots from `first`.

        Args:
            cache: its positions are those of this pass already; keys, values, prompts and what belongs to them have X
                rows.

        Returns:
            [B, Q, D] hidden states.
        """
        B, Q = token_BQ.shape
        (X, _, S, _), C = cache.prompt[0][0].shape, cache.keys[0].shape[2]
        Y = power_bucket(Q, _FEWEST_TOKENS)
        position_BQ = cache.position[:, first : first + Q]
        sees_XYC = sees_BQC.new_zeros(X, Y, C + Y)
        sees_XYC[:B, :Q, :first] = sees_BQC[..., :first]
        sees_XYC[:B, :Q, C : C + Q] = sees_BQC[..., first:]
        own = (0, Y - Q, 0, X - B)
        inputs = (
            mark_sizes(F.pad(token_BQ, own), 0, 1),
            mark_sizes(F.pad(position_BQ, own), 0, 1),
            mark_sizes(F.pad(cache.position, (0, 0, 0, X - B)), 0, 1),
            mark_sizes(sees_XYC, 0, 1, 2),
            mark_sizes(cache.prompt_bias, 0, 3),
            mark_sizes(cache.origin, 0),
            None if cache.told is None else mark_sizes(cache.told, 0),
            [mark_sizes(one, 0, 2) for pair in cache.prompt for one in pair],
            [mark_sizes(one, 0, 2) for one in (*cache.keys, *cache.values)],
        )
        hidden_XYD, kept = self.run((X, Y, C, S), *inputs)
        for index, (key, value) in enumerate(kept):
            cache.keys[index][:, :, first : first + Q] = key[:, :, :Q]
            cache.values[index][:, :, first : first + Q] = value[:, :, :Q]
        hidden_BQD: torch.Tensor = hidden_XYD[:B, :Q]
        return hidden_BQD

    def _run(
        self,
        token_XY: torch.Tensor,
        position_XY: torch.Tensor,
        position_XC: torch.Tensor,
        sees_XYC: torch.Tensor,
        prompt_bias: torch.Tensor,
        origin: torch.Tensor,
        told: torch.Tensor | None,
        prompt: Sequence[torch.Tensor],
        slots: Sequence[torch.Tensor],
    ) -> tuple[torch.Tensor, Any]:
        (X, Y), C, n = token_XY.shape, position_XC.shape[1], len(slots) // 2
        cache = KVCache(
            prompt=[(prompt[2 * layer], prompt[2 * layer + 1]) for layer in range(n)],
            prompt_bias=prompt_bias,
            origin=origin,
            keys=list(slots[:n]),
            values=list(slots[n:]),
            position=torch.cat([position_XC, position_XY], dim=1),
            hidden=slots[0],  # not read
            told=told,
        )
        cells = torch.arange(X * Y, device=token_XY.device)
        step = FullPass(token_XY.flatten(), cells, position_XY, sees_XYC, C, C + Y, [])
        return self.network.extend(cache, step).view(X, Y, -1), step.kept
