"""IDs of the item's categories (P5-SemID; Hua et al. 2023, section 3): the path of categories, then a number.

The paper makes a new token of each category; here a category is its own words.
"""

from __future__ import annotations

from collections.abc import Sequence

from idgr.errors import IdgrError
from idgr.ids.keyphrase import words_of
from idgr.ids.schemes.code_words import among_equals
from idgr.ids.schemes.fields import read_fields
from idgr.ids.spelling import clean_id, fold

WITHOUT = "other"


def category_ids(texts: Sequence[str], field: str, depth: int) -> list[str]:
    """The words of the first `depth` categories and a number from 1 among items of equal words, in file order.

    The number always stands, also where an item is alone. An item without the field, or with nothing in it that is a
    letter or digit, is of the category "other". Categories are told apart by commas, so a name that holds one counts
    as two.

    Args:
        texts: the items' plain texts, `key: value; key: value`.
        field: the name of the field that lists categories, the widest first.
        depth: so many categories of the list; the number tells apart what the others would have.

    Raises:
        IdgrError: no item has such a field.
    """
    paths = category_paths(texts, field, depth)
    numbers = among_equals(fold(path) for path in paths)
    return [f"{path} {number + 1}" for path, number in zip(paths, numbers, strict=True)]


def category_paths(texts: Sequence[str], field: str, depth: int) -> list[str]:
    """The words of the first `depth` categories of each item; arguments and errors are those of `category_ids`."""
    name = field.strip().lower()
    values = [read_fields(text).get(name) for text in texts]
    if all(value is None for value in values):
        raise IdgrError(f"no item has a field {field!r}", "name the field of the categories with --category-field")
    return [_path(value or "", depth) for value in values]


def _path(value: str, depth: int) -> str:
    names = [name for part in value.split(",") if (name := " ".join(words_of(clean_id(part))))]
    return " ".join(names[:depth]) or WITHOUT
