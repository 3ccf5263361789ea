"""IDs of the item's title, cut to its first words, with a number where another item has the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from idgr.formats.records import Item
from idgr.ids.assignment import assign
from idgr.ids.keyphrase import words_of
from idgr.ids.spelling import clean_id


def title_ids(items: Sequence[Item], field: str, n_words: int, *, taken: Iterable[str] = ()) -> list[str]:
    """The first `n_words` words of the title; those of the text's first field where there is no title.

    The first item of a title has its words alone, further ones the lowest free number after them, from 2; an item
    without any words is "item 1" and so on. Runs of scripts that write no spaces are cut into short words.

    Args:
        items: with plain texts, `key: value; key: value`, or without field names.
        field: the name of the field with the title.
        taken: IDs that other items have already.
    """
    name = field.strip().lower()
    titles = [" ".join(islice(words_of(clean_id(_title(item, name))), n_words)) for item in items]

    def propose(wanted: list[tuple[int, int]]) -> list[list[str]]:
        return [[titles[place]] if titles[place] else [] for place, _ in wanted]

    everything = range(len(titles))
    return [chosen.text for chosen in assign(everything, propose, 1, lambda ids: [True] * len(ids), taken=taken)]


def _title(item: Item, name: str) -> str:
    fields = item.values()
    if not fields:
        return item.text
    return ", ".join(fields.get(name) or next((values for values in fields.values() if values), []))
