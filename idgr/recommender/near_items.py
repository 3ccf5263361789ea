"""What an item head knows of pairs of items without learning it: whose texts are alike, and what the same users bought.

To the score of an item, those of the pairs that it makes with the newest items of the history are added:

    score(item) += sum over ages a < AGES of w(text, a) · text(newest(a), item) + w(use, a) · use(newest(a), item)

where text is the cosine of the texts' word vectors (`idgr.evaluation.shared_words`), and use the number of training
sequences that hold both items by the root of the product of the numbers that hold each. Both are those of STAR's
retrieval (Lee et al. 2024, arXiv 2410.16458), whose weights are fixed; here the weights are learnt with the model,
which learns what they leave open. Of an item the pairs with its nearest others are kept: with those whose texts are
most alike, and with those that most training sequences hold beside it.

A training sequence is left out of its own counts: the item that is asked for always stands in it beside the newest.

Legend: I items, P pairs, M targets or histories, A ages, E pairs of all histories' newest items, U sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from idgr.evaluation.shared_words import fit_shared_words
from idgr.evaluation.star import item_users
from idgr.recommender.objectives import ranges

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# So many newest items of a history are heeded; KINDS of pairs, texts and use, have a weight for each age.
AGES = 3
KINDS = 2
# What is compared at a time, as items by items.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Pairs:
    """Items that are near to each item.

    Attributes:
        begin: [I + 1] where an item's pairs begin; the last one is where all end.
        other: [P] the other item.
        value: [P] how near it is.
    """

    begin: Ints
    other: Ints
    value: Floats

    def of(self, item_M: Ints) -> tuple[Ints, Ints]:
        """[E] the places of some items' pairs, and which of the items each is of."""
        return ranges(self.begin[item_M], self.begin[item_M + 1] - self.begin[item_M])

    def renumbered(self, known_I: Ints, n_known: int) -> Pairs:
        """The same for a catalogue whose items have these numbers here, -1 for those that have none."""
        new = np.full(n_known, -1, dtype=np.int64)
        new[known_I[known_I >= 0]] = np.flatnonzero(known_I >= 0)
        place, owner = self.of(known_I[known_I >= 0])
        other, owner = new[self.other[place]], np.flatnonzero(known_I >= 0)[owner]
        kept = other >= 0
        counts = np.bincount(owner[kept], minlength=len(known_I))
        return Pairs(np.append(0, np.cumsum(counts)), other[kept], self.value[place[kept]])


@dataclass(frozen=True)
class NearScores:
    """What is added to scores: to that of `item` of row `row`, `value` times the weight of the number `feature`.

    Attributes:
        row: [E], ascending.
        item, feature: [E]
        value: [E]
    """

    row: Ints
    item: Ints
    feature: Ints
    value: Floats


@dataclass(frozen=True)
class OwnItems:
    """Which items stand in which training sequences, as ascending keys sequence · I + item."""

    keys: Ints
    n_items: int

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], n_items: int) -> OwnItems:
        holds = item_users(sequences, n_items).tocoo()
        return cls(np.sort(holds.col.astype(np.int64) * n_items + holds.row), n_items)

    def hold(self, sequence_E: Ints, item_E: Ints) -> npt.NDArray[np.bool_]:
        """[E] whether a sequence holds an item."""
        key_E = sequence_E * self.n_items + item_E
        place_E = np.searchsorted(self.keys, key_E).clip(max=len(self.keys) - 1)
        found: npt.NDArray[np.bool_] = self.keys[place_E] == key_E
        return found


@dataclass(frozen=True)
class NearItems:
    """The pairs of a catalogue.

    Attributes:
        text: their values are cosines.
        use: their values are numbers of training sequences.
        count: [I] how many training sequences hold each item.
        n: how many pairs of each kind an item has at most.
    """

    text: Pairs
    use: Pairs
    count: Ints
    n: int

    def scores(self, newest_MA: Ints, own: tuple[OwnItems, Ints] | None = None) -> NearScores:
        """What is added to the scores of all items after histories.

        Args:
            newest_MA: their newest items, the newest first; -1 where there is none.
            own: in training the items of the sequences, and [M] the sequence that each history is of.
        """
        rows, items, features, values = [], [], [], []
        for age in range(newest_MA.shape[1]):
            row_M = np.flatnonzero(newest_MA[:, age] >= 0)
            item_M = newest_MA[row_M, age]
            place, owner = self.text.of(item_M)
            use_place, use_owner = self.use.of(item_M)
            other = self.use.other[use_place]
            mine = own[0].hold(own[1][row_M[use_owner]], other) if own is not None else np.zeros(len(other), dtype=bool)
            both = self.use.value[use_place] - mine
            counts = (self.count[item_M[use_owner]] - (own is not None)) * (self.count[other] - mine)
            rows += [row_M[owner], row_M[use_owner]]
            items += [self.text.other[place], other]
            features += [np.full(len(place), age), np.full(len(other), newest_MA.shape[1] + age)]
            values += [self.text.value[place], both / np.sqrt(np.maximum(counts, 1))]
        value = np.concatenate(values).astype(np.float32)
        row = np.concatenate(rows)
        order = np.flatnonzero(value)
        order = order[np.argsort(row[order], kind="stable")]
        return NearScores(row[order], np.concatenate(items)[order], np.concatenate(features)[order], value[order])

    def arrays(self) -> dict[str, Any]:
        """What is saved."""
        kinds = {"text": self.text, "use": self.use}
        found = {f"{kind}_{name}": array for kind, pairs in kinds.items() for name, array in vars(pairs).items()}
        return found | {"count": self.count, "n": np.array(self.n)}

    def with_texts(self, texts: Sequence[str]) -> NearItems:
        """The same with the pairs that texts of the catalogue make, as `near_items` finds them."""
        return replace(self, text=_text_pairs(texts, self.n))

    @classmethod
    def of(cls, arrays: Mapping[str, Any], known_I: Ints) -> NearItems:
        """Those saved, for a catalogue whose items had these numbers; -1 for those that were not there."""
        n_known = len(arrays["count"])
        text, use = (
            Pairs(*(arrays[f"{kind}_{name}"] for name in ("begin", "other", "value"))).renumbered(known_I, n_known)
            for kind in ("text", "use")
        )
        return cls(text, use, np.append(arrays["count"], 0)[known_I], int(arrays["n"]))


def near_items(texts: Sequence[str], sequences: Sequence[Sequence[int]], n: int) -> NearItems:
    """Find the pairs of a catalogue.

    Args:
        texts: of the items, in the order of their numbers.
        sequences: the item numbers of each training sequence; an item that a sequence holds twice counts once.
        n: how many pairs of each kind an item has at most.
    """
    users_IU = item_users(sequences, len(texts))
    count_I = np.diff(users_IU.indptr).astype(np.int64)
    return NearItems(_text_pairs(texts, n), _nearest(users_IU, n), count_I, n)


def _text_pairs(texts: Sequence[str], n: int) -> Pairs:
    return _nearest(fit_shared_words(texts).items_IW, n)


def _nearest(vectors_IX: Any, n: int) -> Pairs:
    """The n highest products of each row with others, equal ones by number, in the order of the numbers."""
    vectors_XI = vectors_IX.T.tocsr()
    n_items = vectors_IX.shape[0]
    others, values = [], []
    size = max(1, _BLOCK // max(1, n_items))
    for begin in range(0, n_items, size):
        block = (vectors_IX[begin : begin + size] @ vectors_XI).tocsr()
        for row in range(block.shape[0]):
            found = slice(block.indptr[row], block.indptr[row + 1])
            other, value = block.indices[found].astype(np.int64), block.data[found]
            other, value = other[other != begin + row], value[other != begin + row]
            if len(value) > n:  # sorting those above the n-th alone is quicker than sorting all
                high = value >= np.partition(value, -n)[-n]
                other, value = other[high], value[high]
            best = np.lexsort([other, -value])[:n]
            best = best[np.argsort(other[best])]
            others.append(other[best])
            values.append(value[best].astype(np.float32))
    counts = np.fromiter(map(len, others), dtype=np.int64, count=n_items)
    return Pairs(np.append(0, np.cumsum(counts)), np.concatenate(others), np.concatenate(values))
