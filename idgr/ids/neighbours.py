"""What is bought with an item, and how a generator is shown it: a few words of each of the most frequent ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idgr.ids.causal_prompts import one_line
from idgr.ids.schemes.collaborative import co_occurrences

_WORDS = 6  # of an item's title
_LETTERS = 24  # of a word


def short_texts(texts: Sequence[str], sequences: Sequence[Sequence[int]], n: int) -> list[tuple[str, ...]]:
    """For each item the shortened texts of those most often bought with it, the most frequent first.

    Two items are bought together as often as they stand near one another in a sequence
    (`idgr.ids.schemes.collaborative.co_occurrences`); of equal numbers the item that comes first goes first. Items
    without text are not shown, nor is an item whose short text was shown already.

    Args:
        texts: the items' plain texts, `key: value; key: value`.
        sequences: of places in `texts`, oldest first; of training alone.
        n: texts for each item at most.
    """
    short = [shortened(text) for text in texts]
    graph = co_occurrences(sequences, len(texts))
    found = []
    for item in range(len(texts)):
        row = slice(graph.indptr[item], graph.indptr[item + 1])
        others, counts = graph.indices[row], graph.data[row]
        ranked = others[np.lexsort([others, -counts])].tolist()
        found.append(tuple(dict.fromkeys(short[other] for other in ranked if short[other]))[:n])
    return found


def shortened(text: str) -> str:
    """The first words of a text, as far as its first field goes."""
    first = one_line(text).split("; ", 1)[0]
    return " ".join(word[:_LETTERS] for word in first.split()[:_WORDS])
