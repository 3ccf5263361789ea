"""How much of the IDs of a distracting demo tells items apart: the share of words that are no boilerplate.

A word counts only once an ID, and only if it stands in the item's own text. Also, how many words stand before the
first that tells; all of them in an ID without one.
Usage: python recipes/ablation/telling.py items.jsonl ids.jsonl [ids.jsonl …]
"""

from __future__ import annotations

import sys

from idgr.corpus.demo_words import BOILERPLATE
from idgr.formats.records import read_ids, read_items
from idgr.ids.spelling import clean_id

EMPTY_WORDS = {word for phrase in BOILERPLATE for word in clean_id(phrase.lower()).split()}


def main(items: str, *files: str) -> None:
    words_of = {item.item_id: set(clean_id(item.text).split()) for item in read_items(items)}
    for file in files:
        telling = total = before = 0
        records = read_ids(file)
        for record in records:
            words = record.id.split()
            tells = (set(words) & words_of[record.item_id]) - EMPTY_WORDS
            total += len(words)
            telling += len(tells)
            before += next((place for place, word in enumerate(words) if word in tells), len(words))
        print(f"{file}: {telling / total:.3f} of the words tell, {before / len(records):.1f} stand before the first")


if __name__ == "__main__":
    main(*sys.argv[1:])
