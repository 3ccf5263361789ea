"""Pairs of text and ID from which a generator learns to copy a text's first words: for `idgr init-gen --pairs`.

Usage: python recipes/ablation/first_words.py items.jsonl SEED > pairs.jsonl
"""

from __future__ import annotations

import random
import sys

from idgr.formats.jsonl import dump_line
from idgr.formats.records import read_items
from idgr.ids.spelling import clean_id

FEWEST, MOST = 3, 13  # words; of either length twice an item, so that the generator learns no length by heart


def main(path: str, seed: str) -> None:
    random_numbers = random.Random(int(seed))
    for item in read_items(path):
        words = clean_id(item.text.removeprefix("title: ")).split()
        for _ in range(2):
            line = {"item_id": item.item_id, "id": " ".join(words[: random_numbers.randint(FEWEST, MOST)])}
            sys.stdout.buffer.write(dump_line(line))


if __name__ == "__main__":
    main(*sys.argv[1:])
