"""IDs of the item's categories (P5-SemID; Hua et al. 2023, section 3): the path of categories, then a number.

The paper makes a new token of each category; here a category is its own words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from idgr.errors import IdgrError
from idgr.formats.records import Item
from idgr.ids.kept import Kept
from idgr.ids.keyphrase import words_of
from idgr.ids.schemes.code_words import among_equals
from idgr.ids.spelling import clean_id, fold

WITHOUT = "other"


def category_ids(items: Sequence[Item], field: str, depth: int, *, kept: Kept | None = None) -> list[str]:
    """The words of the first `depth` categories and a number from 1 among items of equal words, in file order.

    The number always stands, also where an item is alone. An item without the field, or with nothing in it that is a
    letter or digit, is of the category "other". A name that holds a comma counts as two where an item has no `fields`.

    Args:
        items: with texts such as `title: …; categories: a, b`, or with fields.
        field: the name of the field that lists categories, the widest first.
        depth: so many categories of the list; the number tells apart what the others would have.
        kept: IDs that are there already: only the other items get one, with the lowest number that is free.

    Raises:
        IdgrError: no item has such a field.
    """
    paths = category_paths(items, field, depth)
    if kept is not None:
        return list(_numbered([paths[place] for place in kept.new(items)], kept.taken))
    numbers = among_equals(fold(path) for path in paths)
    return [f"{path} {number + 1}" for path, number in zip(paths, numbers, strict=True)]


def _numbered(paths: Iterable[str], taken: Iterable[str]) -> Iterator[str]:
    used, last = set(map(fold, taken)), Counter[str]()
    for path in paths:
        folded = fold(path)
        last[folded] += 1
        while f"{folded} {last[folded]}" in used:
            last[folded] += 1
        yield f"{path} {last[folded]}"


def category_paths(items: Sequence[Item], field: str, depth: int) -> list[str]:
    """The words of the first `depth` categories of each item; arguments and errors are those of `category_ids`."""
    name = field.strip().lower()
    values = [item.values().get(name) for item in items]
    if all(value is None for value in values):
        raise IdgrError(f"no item has a field {field!r}", "name the field of the categories with --category-field")
    return [_path(value or [], depth) for value in values]


def _path(value: Sequence[str], depth: int) -> str:
    names = [name for part in value if (name := " ".join(words_of(clean_id(part))))]
    return " ".join(names[:depth]) or WITHOUT
