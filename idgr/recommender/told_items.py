"""Items told to a causal model beside their IDs: a vector of the item just read is added where the next ID begins.

The words of an ID say what an item is, the vector says which one, as in LLaRA and CoLLM, whose prompts hold both (Liao
et al. 2024; Zhang et al. 2023). It stands at the separator behind the ID, and not at the ID's last token, where it
would tell whether the ID ends.

Legend: P prompts, N items of all prompts that a separator follows, I items, D width of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class ToldItems:
    """What a search adds to the embeddings of the prompts that it reads.

    Attributes:
        vector_ID: the items' vectors, and zeros in the last row, for what is no item.
        number: the item of each ID, by its tokens.
        separator: the token that stands between items.
    """

    vector_ID: Tensor
    number: dict[tuple[int, ...], int]
    separator: int

    @classmethod
    def of(cls, vector_ID: Tensor, ids: Sequence[Sequence[int]], separator: int) -> ToldItems:
        """The vectors of items whose IDs have these tokens."""
        number = {tuple(row): item for item, row in enumerate(ids)}
        return cls(torch.cat([vector_ID, torch.zeros_like(vector_ID[:1])]), number, separator)

    def within(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """The prompt [N] and the place in it [N] of each separator, and what is added there [N, D]."""
        rows, places, items = [], [], []
        for row, prompt in enumerate(prompts):
            begin = 0
            for place, token in enumerate(prompt):
                if token == self.separator:
                    rows.append(row)
                    places.append(place)
                    items.append(self._item(prompt[begin:place]))
                    begin = place + 1
        row_N, place_N, item_N = (self._numbers(part) for part in (rows, places, items))
        return row_N, place_N, self.vector_ID[item_N]

    def behind(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """[P, D] what is added to the separator behind each prompt."""
        newest_P = newest_items(prompts, self.number, self.separator, 1)[:, 0]  # -1 is the last row, that of no item
        return self.vector_ID[torch.from_numpy(newest_P).to(self.vector_ID.device)]

    def _item(self, tokens: Sequence[int]) -> int:
        return self.number.get(tuple(tokens), len(self.vector_ID) - 1)

    def _numbers(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.vector_ID.device)


def newest_items(
    prompts: Sequence[Sequence[int]], number: Mapping[tuple[int, ...], int], separator: int, n: int
) -> npt.NDArray[np.int64]:
    """[P, n] the items at the ends of prompts, the newest first; -1 for what is no item, or where there are no more.

    Args:
        number: the item of each ID, by its tokens.
        separator: the token that stands between items.
    """
    found = np.full((len(prompts), n), -1, dtype=np.int64)
    for row, prompt in enumerate(prompts):
        end = len(prompt)
        for age in range(n):
            begin = end
            while begin and prompt[begin - 1] != separator:
                begin -= 1
            found[row, age] = number.get(tuple(prompt[begin:end]), -1)
            if not begin:
                break
            end = begin - 1
    return found
