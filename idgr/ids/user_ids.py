"""Textual IDs of users (IDGenRec, section 2.3): what the ID generator makes of the texts of a history.

A user's ID is made of exactly the items that are shown, at training as at test, so it cannot tell what comes after
them. Many users may have one ID, and it may be that of an item: it stands in prompts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from idgr.ids.generation import first_candidates
from idgr.ids.options import GenerationOptions
from idgr.models.tokenizer import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from idgr.models.backbone import Backbone


class UserIds:
    """Gives the tokens of the user's ID for each history, and remembers them.

    The ID is the plain beam of Algorithm 1's first attempt, that is, the first group's candidate: users need no
    unique IDs. Texts stand newest first, since a generator reads only the first so many tokens.

    Args:
        generator: in evaluation mode, on its device.
        texts: the plain text of each item, by item number.
        recommender: the tokenizer that is to read the IDs.
        options: as for the IDs of items.
    """

    def __init__(
        self,
        generator: Backbone,
        texts: Sequence[str],
        recommender: PreTrainedTokenizerBase,
        options: GenerationOptions,
    ) -> None:
        self.generator, self.texts, self.recommender, self.options = generator, texts, recommender, options
        self.known: dict[tuple[int, ...], list[int]] = {(): []}

    @property
    def room(self) -> int:
        """The most tokens that an ID has."""
        return self.options.limits(1).max_tokens

    def __call__(self, histories: Sequence[Sequence[int]]) -> list[list[int]]:
        """The tokens for each history of item numbers, oldest first; none for an empty one."""
        missing = list(dict.fromkeys(key for history in histories if (key := tuple(history)) not in self.known))
        if missing:
            texts = ["; ".join(self.texts[item] for item in reversed(key)) for key in missing]
            # Also in training, where all around is in mixed precision, a user's ID is that of serving.
            with torch.autocast(self.generator.model.device.type, enabled=False):
                found = first_candidates(texts, self.generator, self.options)
            rows = encode(self.recommender, [row[0] if row else "" for row in found], max_tokens=self.room)
            self.known.update(zip(missing, rows, strict=True))
        return [self.known[tuple(history)] for history in histories]
