"""IDs of the item's title, cut to its first words, with a number where another item has the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from idgr.ids.assignment import assign
from idgr.ids.keyphrase import words_of
from idgr.ids.schemes.fields import read_fields
from idgr.ids.spelling import clean_id


def title_ids(texts: Sequence[str], field: str, n_words: int) -> list[str]:
    """The first `n_words` words of the title; those of the text's first field where there is no title.

    The first item of a title has its words alone, further ones the lowest free number after them, from 2; an item
    without any words is "item 1" and so on. Runs of scripts that write no spaces are cut into short words.

    Args:
        texts: the items' plain texts, `key: value; key: value`, or without field names.
        field: the name of the field with the title.
    """
    name = field.strip().lower()
    titles = [" ".join(islice(words_of(clean_id(_title(text, name))), n_words)) for text in texts]

    def propose(wanted: list[tuple[int, int]]) -> list[list[str]]:
        return [[titles[place]] if titles[place] else [] for place, _ in wanted]

    return [chosen.text for chosen in assign(range(len(titles)), propose, 1, lambda ids: [True] * len(ids))]


def _title(text: str, name: str) -> str:
    fields = read_fields(text)
    if not fields:
        return text
    return fields.get(name) or next((value for value in fields.values() if value), "")
