"""IDs whose first words an item shares with what is bought with it, and whose further words tell it apart.

So a prefix tree's first levels are collaborative, though every word is one of the item's own text: what a history asks
for is decided first, and which of the items it is last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from idgr.ids.assignment import assign
from idgr.ids.keyphrase import most_telling, words_of
from idgr.ids.schemes.bought_together import near_pairs
from idgr.ids.spelling import fold

_COMMON = 5  # texts that a word must be part of to be shared
_PRIOR = 4.0  # of the total, that the word's own frequency counts as
_SWAPS = 8  # further words that may take the place of the last one

Word = TypeVar("Word")


def shared_word_ids(
    texts: Sequence[str],
    sequences: Sequence[Sequence[int]],
    n_words: int,
    n_shared: int,
    *,
    places: Sequence[int] | None = None,
    taken: Iterable[str] = (),
) -> list[str]:
    """An ID for each item of `n_words` words: up to `n_shared` shared ones, best first, then the most telling ones.

    A word is shared as far as the items that are bought with an item have it too, more than items on the whole do:
    p log(p / q), of its share p among them, each counted by how near it was bought, and its share q among all texts.
    An item whose words none of them has begins with its telling words (`idgr.ids.keyphrase`).

    Args:
        texts: the items' plain texts, `key: value; key: value`.
        sequences: of places in `texts`, oldest first.
        places: of which texts IDs are wanted, in this order; None for all.
        taken: IDs that other items have already.
    """
    _, frequency, telling = told_words(texts)
    common = {word: column for column, word in enumerate(word for word, n in frequency.items() if n >= _COMMON)}
    shared = _shared(telling, common, frequency, sequences, n_shared)

    def propose(wanted: list[tuple[int, int]]) -> list[list[str]]:
        return [_phrases(shared[place], [word for _, word in telling[place]], n_words) for place, _ in wanted]

    asked = range(len(texts)) if places is None else places
    return [chosen.text for chosen in assign(asked, propose, 1, lambda ids: [True] * len(ids), taken=taken)]


def told_words(texts: Sequence[str]) -> tuple[list[list[str]], Counter[str], list[list[tuple[int, str]]]]:
    """The words of each text, the number of texts that each is a part of, and each text's words by `most_telling`."""
    words = [list(words_of(text)) for text in texts]
    frequency = Counter(word for row in words for word in set(row))
    return words, frequency, [most_telling(row, frequency, len(texts), len(row)) for row in words]


def _phrases(shared: list[str], telling: list[str], n_words: int) -> list[str]:
    """Phrases in the order of preference."""
    taken = set(map(fold, shared))
    rest = [word for word in telling if fold(word) not in taken]
    phrases = [[*shared, *tail] for tail in tails(rest, n_words - len(shared))]
    return list(dict.fromkeys(" ".join(phrase) for phrase in phrases if phrase))


def tails(rest: list[Word], n: int) -> list[list[Word]]:
    """The first `n` of an item's further words, then others in the last one's place, then more words."""
    found = [rest[:n]]
    if n:
        found += [[*rest[: n - 1], other] for other in rest[n : n + _SWAPS]]
    return found + [rest[:count] for count in range(n + 1, min(len(rest), n + _SWAPS) + 1)]


def _shared(
    telling: list[list[tuple[int, str]]],
    common: dict[str, int],
    frequency: Counter[str],
    sequences: Sequence[Sequence[int]],
    n_shared: int,
) -> list[list[str]]:
    """The shared words of each item, best first."""
    from scipy.sparse import csr_array

    n_items = len(telling)
    columns = [[common[word] for _, word in row if word in common] for row in telling]
    starts = np.cumsum([0, *map(len, columns)])
    flat = np.fromiter((column for row in columns for column in row), dtype=np.int64, count=int(starts[-1]))
    has: Any = csr_array((np.ones(len(flat)), flat, starts), shape=(n_items, len(common)))
    near = near_pairs(sequences, n_items)
    total = near.sum(axis=1)
    found: Any = (near @ has).multiply(has).tocsr()
    names = list(common)
    rows = []
    for item, row in enumerate(telling):
        part = slice(found.indptr[item], found.indptr[item + 1])
        weight = dict(
            zip((names[column] for column in found.indices[part].tolist()), found.data[part].tolist(), strict=True)
        )
        ranked = sorted(
            (-_surprise(word, weight[word], total[item], frequency[word] / n_items), place, word)
            for place, word in row
            if word in weight
        )
        rows.append([word for score, _, word in ranked[:n_shared] if score < 0])
    return rows


def _surprise(word: str, weight: float, total: float, usual: float) -> float:
    found = surprise(weight, total, usual)
    return found * 0.3 if len(word) == 1 or any(character.isdigit() for character in word) else found


def surprise(weight: float, total: float, usual: float) -> float:
    """p log(p / q), of a word's share p, `weight` of `total` and a little of what is usual, and its usual share q."""
    share = (weight + _PRIOR * usual) / (total + _PRIOR)
    return share * math.log(share / usual)
