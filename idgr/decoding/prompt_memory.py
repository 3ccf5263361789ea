"""Keys and values of prompts that a causal model has read, so that a history that grew costs only what is new.

Legend: S prompt tokens, P of them that are known, I index of a layer's keys (2·layer) or of its values (2·layer + 1),
U heads of keys and values, K width of a head.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence

import torch

from idgr.decoding.trie import common_length

Tokens = tuple[int, ...]


class PromptMemory:
    """What was read of the prompts used last, as far as it fits into `most_bytes`; the others are read again.

    What a causal model keeps of a token depends on the tokens up to it alone. So any common beginning is known, that of
    another user's history too, and tokens themselves are compared. Of prompts in lexicographic order, the one that has
    most of a prompt's beginning stands beside the prompt's place. None is kept that another one begins with.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.n_bytes = most_bytes, 0
        self._states: OrderedDict[Tokens, torch.Tensor] = OrderedDict()
        self._ordered: list[Tokens] = []

    def __len__(self) -> int:
        return len(self._states)

    def beginning(self, prompt: Sequence[int]) -> torch.Tensor | None:
        """[P, I, U, K] of the longest known beginning of a prompt; None if not even its first token is known."""
        tokens = tuple(prompt)
        place = bisect_left(self._ordered, tokens)
        beside = self._ordered[max(0, place - 1) : place + 1]
        n, best = max(((common_length(tokens, other), other) for other in beside), default=(0, ()))
        if not n:
            return None
        self._states.move_to_end(best)
        return self._states[best][:n]

    def keep(self, prompt: Sequence[int], states_SIUK: torch.Tensor) -> None:
        """Keep what was read of a prompt, and drop the prompts used longest ago that there is no more room for."""
        tokens = tuple(prompt)
        place = bisect_left(self._ordered, tokens)
        if place < len(self._ordered) and common_length(tokens, self._ordered[place]) == len(tokens):
            return
        if place and common_length(tokens, self._ordered[place - 1]) == len(self._ordered[place - 1]):
            place -= 1
            self._drop(self._ordered[place])
        self._ordered.insert(place, tokens)
        self._states[tokens] = states_SIUK
        self.n_bytes += states_SIUK.nbytes
        while self.n_bytes > self.most_bytes:
            self._drop(next(iter(self._states)))

    def _drop(self, tokens: Tokens) -> None:
        self.n_bytes -= self._states.pop(tokens).nbytes
        del self._ordered[bisect_left(self._ordered, tokens)]
