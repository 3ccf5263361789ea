"""Random IDs: codes of a fixed length that tell nothing. What an ID of meaning is worth is seen beside them."""

from __future__ import annotations

import random
from collections.abc import Iterable

from idgr.errors import UsageError
from idgr.ids.schemes.code_words import code_word, width_of


def random_ids(n_items: int, levels: int, codebook: int, seed: int, *, taken: Iterable[str] = ()) -> list[str]:
    """`levels` code words for each item, such as "aej bgf cbz", each drawn evenly from `codebook` codes.

    Args:
        taken: IDs that other items have already.

    Raises:
        UsageError: there are not that many different codes.
    """
    width = width_of(codebook)
    used = _codes_of(taken, levels, codebook)
    if codebook**levels - len(used) < n_items:
        free = f"{codebook**levels - len(used):,} free IDs" if used else f"{codebook**levels:,} IDs"
        raise UsageError(
            f"--levels {levels} of --codebook {codebook} give {free} for {n_items:,} items", "raise one of them"
        )
    drawn = random.Random(seed)
    made: dict[tuple[int, ...], None] = {}
    while len(made) < n_items:
        codes = tuple(drawn.randrange(codebook) for _ in range(levels))
        if codes not in used:
            made[codes] = None
    return [" ".join(code_word(level, code, width) for level, code in enumerate(codes)) for codes in made]


def _codes_of(ids: Iterable[str], levels: int, codebook: int) -> set[tuple[int, ...]]:
    """The codes of those IDs that could be drawn."""
    width = width_of(codebook)
    rows = [words for text in ids if len(words := text.casefold().split()) == levels]
    if not rows:
        return set()
    code_of = [{code_word(level, code, width): code for code in range(codebook)} for level in range(levels)]
    known = (tuple(code_of[level].get(word, -1) for level, word in enumerate(words)) for words in rows)
    return {codes for codes in known if -1 not in codes}
