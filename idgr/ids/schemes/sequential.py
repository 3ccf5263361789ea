"""Sequential IDs (P5-SID; Hua et al. 2023, "How to Index Item IDs for Recommendation Foundation Models", section 3).

Items are numbered as they first occur, user after user, so that items of one sequence have numbers near each other,
and share the words that such numbers begin with. The published code numbers whole sequences, held-out items among
them: an item that a user bought last then stands beside the user's others, and the ID tells the answer. Here the
numbers are given over the training sequences alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from idgr.ids.schemes.code_words import by_twos
from idgr.ids.schemes.order import training_order


def sequential_ids(items: Sequence[str], sequences: Iterable[Sequence[str]], seed: int) -> list[str]:
    """An ID of digits by twos, such as "00 07 77", for each item; all have equally many words.

    Args:
        items: the keys of all items.
        sequences: training sequences, oldest first, in file order.
        seed: of the order of the items that training never shows, which come last.
    """
    order, _ = training_order(items, sequences, seed)
    number = {item: place for place, item in enumerate(order)}
    return [by_twos(number[item], len(items)) for item in items]
