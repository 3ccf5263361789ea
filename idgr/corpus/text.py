"""The plain text of an item: its metadata record in one line, `key: value; key: value`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from idgr.corpus.literals import parse_literal
from idgr.corpus.markup import clean, one_line
from idgr.corpus.popularity import is_popularity, plain_name, tells_popularity
from idgr.formats.item_text import split_list, tells_fields
from idgr.formats.records import Item

_KEYS = {"item_id", "asin", "parent_asin", "business_id", "id"}
_LINKS = {"url", "image", "images", "imUrl", "imageURL", "imageURLHighRes", "video", "videos"}
# What others did with the item, some of it later than the split: it would leak into the text.
_NEIGHBOURS = {"related", "also_buy", "also_bought", "also_view", "also_viewed"}
_SIMILAR = {"similar_item", "similar_items", "similar_books", "similar_products"}
_BASKETS = {"bought_together", "frequently_bought_together", "buy_after_viewing"}
_MARKUP = {"tech1", "tech2"}  # tables of the page in the Amazon 2018 dumps
# Keys whose values do not describe the item, whatever their case and punctuation, beside those of popularity.
LEFT_OUT = frozenset(_KEYS | _LINKS | _NEIGHBOURS | _SIMILAR | _BASKETS | _MARKUP)
_PLAIN_LEFT_OUT = frozenset(map(plain_name, LEFT_OUT))
# The same within other values, where `id` or `video` may be a property.
_PLAIN_LEFT_OUT_WITHIN = frozenset(map(plain_name, (_KEYS - {"id"}) | _NEIGHBOURS | _SIMILAR | _BASKETS))
_PAIR_NAMES = ("name", "key", "label")  # of tables such as [{"name": …, "value": …}]
_LISTS = frozenset({"categories", "genres", "tags"})  # a string under these is a list that commas part
_SHORT = 40
LONGEST_VALUE = 1_000  # characters of a value in an item's `fields`; a longer one is prose, and the text has it whole

_LINK = re.compile(r"https?://\S+", re.IGNORECASE)
_LITERAL = re.compile(r"[\[{(\s]*(?:u?['\"]|None\b|True\b|False\b)")  # what JSON does not write so

# The values of a field; a string is a list that was written out with commas.
Values = list[str] | str


class _Cleaned(str):
    """A text that needs no more cleaning."""


_END = object()  # of a nested value


class _Heading(str):
    """The name of a nested value, said only if the value says something."""


def plain_text(record: Mapping[str, Any], fields: Sequence[str] | None = None) -> str:
    """The text that stands for an item: `key: value; key: value`, lower case, in the record's own key order.

    Strings are cleaned (`idgr.corpus.markup`); lists are flattened and joined by commas, without what they repeat; of a
    mapping, keys and values stay; a string that is a JSON object or list is read as one. Left out are empty values and
    placeholders, values that are a link, the keys of `LEFT_OUT`, and what tells of the item's popularity
    (`idgr.corpus.popularity`), at any depth.

    Args:
        record: a line of raw metadata.
        fields: only these keys, in this order, whatever is left out otherwise.

    Returns:
        The text; empty where nothing in the record describes the item.
    """
    return _joined(item_fields(record, fields))


def item_fields(record: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Values]:
    """The cleaned values of a record by cleaned name, empty ones too; the arguments are those of `plain_text`."""
    found: dict[str, Values] = {}
    for name in record if names is None else names:
        value, label = record.get(name), str(name)  # a Python literal may have keys that are numbers
        if names is None and (plain_name(label) in _PLAIN_LEFT_OUT or is_popularity(label, value)):
            continue
        values: Values = list(dict.fromkeys(_flatten(value)))
        label = _label(label)
        if label in _LISTS and len(values) == 1 and isinstance(value, str) and _structure(value) is None:
            values = values[0]
        if not found.get(label):
            found[label] = values
        elif values:  # two keys that differ in what cleaning takes away
            found[label] = list(dict.fromkeys([*_listed(found[label]), *_listed(values)]))
    return found


@lru_cache(maxsize=1 << 12)
def _label(name: str) -> str:
    return one_line(name)


def described(item_id: str, fields: Mapping[str, Values]) -> Item:
    """An item with the text that its fields make, and with the fields themselves where the text does not tell them."""
    text = _joined(fields)
    listed = {name: _listed(values) for name, values in fields.items() if values}
    if tells_fields(text, listed):
        return Item(item_id, text)
    return Item(item_id, text, {name: [one[:LONGEST_VALUE] for one in values] for name, values in listed.items()})


def _joined(fields: Mapping[str, Values]) -> str:
    return "; ".join(
        f"{name}: {values if isinstance(values, str) else ', '.join(values)}"
        for name, values in fields.items()
        if values
    )


def _listed(values: Values) -> list[str]:
    return split_list(values) if isinstance(values, str) else values


def _flatten(value: Any) -> Iterator[str]:
    """The cleaned texts in a value, whose lists and mappings may be nested; none is empty."""
    # A stack of our own: nesting in hostile metadata must not exhaust Python's.
    stack = [value]
    headings: list[_Heading | None] = []  # names of the mappings around; None where it has been said
    while stack:
        top = stack.pop()
        text = ""
        if isinstance(top, str):
            if isinstance(top, _Heading):
                headings.append(top)
            elif isinstance(top, _Cleaned):
                text = top
            elif (inner := _structure(top)) is not None:
                stack.append(inner)
            else:
                text = _short_text(top) if len(top) <= _SHORT else _text_of(top)
        elif isinstance(top, Mapping):
            if not _is_popular_row(top):
                for name, inner in reversed(list(top.items())):
                    _push(stack, str(name), inner)
        elif isinstance(top, (list, tuple)):
            if not (len(top) == 2 and _is_popular_pair(*top)):
                stack.extend(reversed(top))
        elif isinstance(top, (int, float)):
            text = str(top).lower() if _is_finite(top) else ""
        elif top is _END:
            headings.pop()
        if text:
            for place, heading in enumerate(headings):
                if heading is not None:
                    headings[place] = None
                    if heading:
                        yield heading
            yield text


def _push(stack: list[Any], name: str, value: Any) -> None:
    """Put an entry of a mapping on the stack: `name value`, or the name and what is nested under it."""
    if plain_name(name) in _PLAIN_LEFT_OUT_WITHIN or is_popularity(name, value):
        return
    if isinstance(value, str):
        inner = _structure(value)
        if inner is None:
            text = _text_of(value)
            if text:
                stack.append(_Cleaned(" ".join(f"{_label(name)} {text}".split())))
            return
        value = inner
    if isinstance(value, (int, float)):
        if _is_finite(value):
            stack.append(_Cleaned(f"{_label(name)} {str(value).lower()}".strip()))
    elif value:
        stack += [_END, value, _Heading(_label(name))]


def _text_of(text: str) -> str:
    if "://" in text and _LINK.fullmatch(text.strip()):
        return ""
    text = clean(text)
    return "" if tells_popularity(text) else text


def _is_finite(value: float) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


_short_text = lru_cache(maxsize=1 << 16)(_text_of)  # categories and brands come again and again


def _is_popular_pair(name: Any, value: Any) -> bool:
    """Whether a row of a table is one of popularity: `["Best Sellers Rank", "#3"]`."""
    return isinstance(name, str) and is_popularity(name, value)


def _is_popular_row(row: Mapping[Any, Any]) -> bool:
    """The same of a row such as `{"name": "Best Sellers Rank", "value": "#3"}`."""
    return "value" in row and any(_is_popular_pair(row.get(name), row["value"]) for name in _PAIR_NAMES)


def _structure(text: str) -> list[Any] | dict[Any, Any] | None:
    """The list or mapping that a string is, written in JSON or as a Python literal."""
    if "}" not in text and "]" not in text:
        return None
    whole = text.strip()
    if whole[:1] + whole[-1:] not in ("{}", "[]"):
        return None
    if "&quot;" in whole and '"' not in whole:
        whole = html.unescape(whole)
    try:
        value = orjson.loads(whole)
    except orjson.JSONDecodeError:
        if not _LITERAL.match(whole):
            return None
        try:
            value = parse_literal(whole.encode(errors="replace"))
        except ValueError:
            return None  # it is only text
    return value if isinstance(value, (list, dict)) else None
