"""Random IDs: codes of a fixed length that tell nothing. What an ID of meaning is worth is seen beside them."""

from __future__ import annotations

import random

from idgr.errors import UsageError
from idgr.ids.schemes.code_words import code_word, width_of


def random_ids(n_items: int, levels: int, codebook: int, seed: int) -> list[str]:
    """`levels` code words for each item, such as "aej bgf cbz", each drawn evenly from `codebook` codes.

    Raises:
        UsageError: there are not that many different codes.
    """
    if codebook**levels < n_items:
        raise UsageError(
            f"--levels {levels} of --codebook {codebook} give {codebook**levels:,} IDs for {n_items:,} items",
            "raise one of them",
        )
    drawn = random.Random(seed)
    width = width_of(codebook)
    taken: dict[tuple[int, ...], None] = {}
    while len(taken) < n_items:
        taken[tuple(drawn.randrange(codebook) for _ in range(levels))] = None
    return [" ".join(code_word(level, code, width) for level, code in enumerate(codes)) for codes in taken]
