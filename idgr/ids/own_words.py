"""IDs of the words of an item's own text: which tokens may follow, so that no other word is written.

The generator is free in which of the words it takes, in what order and how often; in the pieces of a word it is not.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from idgr.errors import UsageError
from idgr.ids.keyphrase import words_of
from idgr.models.tokenizer import encode

if TYPE_CHECKING:
    from idgr.models.backbone import Backbone

# Added to the logits of all other tokens. Where an ID must have more words than there are, one of these is taken.
_OUTSIDE = -1e4
_WORD_START = "▁"

Piece = tuple[int, ...]


@dataclass(frozen=True)
class OwnWords:
    """The words of one text, in tokens.

    Attributes:
        after: for each beginning of a word, the empty one among them, the tokens that go on with it.
        whole: the words.
        starts: of all tokens, those that begin a word.
        eos: what ends an ID.
    """

    after: dict[Piece, list[int]]
    whole: frozenset[Piece]
    starts: frozenset[int]
    eos: int

    def following(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that may follow those of an ID; behind what begins no word of the text, a new one begins."""
        if not tokens:
            return self.after[()]
        begun = self._last(tokens)
        goes_on = self.after.get(begun, [])
        return goes_on if goes_on and begun not in self.whole else [*goes_on, *self.after[()], self.eos]

    def whole_words(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of an ID that was cut off, without a last word that was only begun."""
        last = self._last(tokens)
        begun = last in self.after and last not in self.whole
        return list(tokens[: len(tokens) - len(last)] if begun else tokens)

    def _last(self, tokens: Sequence[int]) -> Piece:
        """The last word, whole or not."""
        first = max((place for place, token in enumerate(tokens) if token in self.starts), default=0)
        return tuple(tokens[first:])


def own_words(backbone: Backbone, texts: Sequence[str]) -> list[OwnWords]:
    """The words of each text as a T5 generator writes them; those of a text without words are all that begin one.

    Raises:
        UsageError: the generator is a Llama.
    """
    if backbone.arch == "causal":
        raise UsageError("--own-words with a Llama, which begins a word in several ways", "give a T5, or leave it out")
    tokenizer = backbone.tokenizer
    of_texts = [list(dict.fromkeys(words_of(text))) for text in texts]
    different = list(dict.fromkeys(word for words in of_texts for word in words))
    pieces = dict(zip(different, map(tuple, encode(tokenizer, different) if different else []), strict=True))
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    starts = frozenset(token for token, name in enumerate(names) if name.startswith(_WORD_START))
    eos: int = tokenizer.eos_token_id
    return [_of_words([pieces[word] for word in words], starts, eos) for words in of_texts]


def _of_words(words: Sequence[Piece], starts: frozenset[int], eos: int) -> OwnWords:
    after: dict[Piece, dict[int, None]] = defaultdict(dict)
    for word in words:
        for length, token in enumerate(word):
            after[word[:length]][token] = None
    if not words:
        after[()] = dict.fromkeys(sorted(starts))
    return OwnWords({begun: list(tokens) for begun, tokens in after.items()}, frozenset(words), starts, eos)


def outside(allowed: Sequence[Sequence[int]], n_tokens: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """[R, V] what is added to logits so that of each row's tokens some are left.

    Args:
        allowed: those tokens.
        n_tokens: V.
    """
    rows = [row for row, tokens in enumerate(allowed) for _ in tokens]
    columns = [token for tokens in allowed for token in tokens]
    added_RV = torch.full((len(allowed), n_tokens), _OUTSIDE, dtype=dtype, device=device)
    added_RV[torch.tensor(rows, device=device), torch.tensor(columns, device=device)] = 0.0
    return added_RV
