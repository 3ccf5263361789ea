"""Items told to a causal model beside their IDs: a vector of the item just read is added where the next ID begins.

The words of an ID say what an item is, the vector says which one, as in LLaRA and CoLLM, whose prompts hold both (Liao
et al. 2024; Zhang et al. 2023). It stands at the separator behind the ID, and not at the ID's last token, where it
would tell whether the ID ends.

Legend: P prompts, N items of all prompts that a separator follows, I items, D width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    def __call__(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What belongs to the separators of some prompts.

        Returns:
            The prompt [N] and the place in it [N] of each separator behind an item, and what is added there [N, D]; and
            what is added to the separator behind the prompt itself, [P, D].
        """
        rows, places, items, last = [], [], [], []
        none = len(self.vector_ID) - 1
        for row, prompt in enumerate(prompts):
            item, begin = none, 0
            for place, token in enumerate([*prompt, self.separator]):
                if token != self.separator:
                    continue
                item = self.number.get(tuple(prompt[begin:place]), none)
                begin = place + 1
                if place < len(prompt):
                    rows.append(row)
                    places.append(place)
                    items.append(item)
            last.append(item)
        device = self.vector_ID.device
        row_N, place_N, item_N, last_P = (torch.tensor(part, device=device) for part in (rows, places, items, last))
        return row_N.long(), place_N.long(), self.vector_ID[item_N.long()], self.vector_ID[last_P]
