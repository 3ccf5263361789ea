"""The plain text of an item: its metadata record in one line, `key: value; key: value`.

Knows records as mappings of any keys; not where they come from, nor how the text is cut (that is done in tokens).
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_KEYS = {"item_id", "asin", "parent_asin", "business_id", "id"}
_LINKS = {"url", "image", "images", "imUrl", "imageURL", "imageURLHighRes", "video", "videos"}
# What others did with the item, some of it later than the split: it would leak into the text.
_NEIGHBOURS = {"related", "also_buy", "also_bought", "also_view", "also_viewed", "similar_item"}
_BASKETS = {"bought_together", "buy_after_viewing"}
_COUNTS = {"salesRank", "sales_rank", "rank", "average_rating", "rating_number", "review_count"}
_MARKUP = {"tech1", "tech2"}  # tables of the page in the Amazon 2018 dumps
# Keys whose values do not describe the item.
LEFT_OUT = frozenset(_KEYS | _LINKS | _NEIGHBOURS | _BASKETS | _COUNTS | _MARKUP)

_TAG = re.compile(
    r"</?(?:a|b|br|center|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|small|span|strong|sub|sup|table|tbody|td|th|tr|u|ul)"
    r"""(?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+))*\s*/?>""",
    re.IGNORECASE,
)
# Control characters but white space, bidirectional marks, byte order marks, and halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_LINK = re.compile(r"https?://\S+", re.IGNORECASE)


def plain_text(record: Mapping[str, Any], fields: Sequence[str] | None = None) -> str:
    """The text that stands for an item: `key: value; key: value`, lower case, in the record's own key order.

    Entities are decoded (also when encoded twice), HTML tags and invisible control characters removed, white space
    collapsed. Lists are flattened and joined by commas, without what they repeat; of a mapping, keys and values stay.
    Left out are empty values, values that are a link, and the keys of `LEFT_OUT`.

    Args:
        record: a line of raw metadata.
        fields: only these keys, in this order, whatever `LEFT_OUT` says.

    Returns:
        The text; empty where nothing in the record describes the item.
    """
    names = [name for name in record if name not in LEFT_OUT] if fields is None else fields
    parts = []
    for name in names:
        values = list(dict.fromkeys(value for value in _flatten(record.get(name)) if value))
        if values:
            # A Python literal may have keys that are numbers.
            parts.append(f"{_clean(str(name))}: {', '.join(values)}")
    return "; ".join(parts)


def _flatten(value: Any) -> Iterator[str]:
    """The cleaned texts in a value, whose lists and mappings may be nested."""
    # A stack of our own: nesting in hostile metadata must not exhaust Python's.
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, str):
            yield "" if _LINK.fullmatch(top.strip()) else _clean(top)
        elif isinstance(top, Mapping):
            for name, inner in reversed(list(top.items())):
                if isinstance(inner, (str, int, float)):
                    stack.append(f"{name} {inner}" if inner != "" and _is_finite(inner) else None)
                else:
                    stack += [inner, str(name)] if inner else []
        elif isinstance(top, (list, tuple)):
            stack.extend(reversed(top))
        elif isinstance(top, (int, float)) and _is_finite(top):
            yield str(top).lower()


def _is_finite(value: str | float) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _clean(text: str) -> str:
    if "&" in text:
        for _ in range(3):  # `&amp;amp;` is two deep; deeper ones are not seen in real dumps
            text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    return " ".join(_UNSEEN.sub("", text).lower().split())
