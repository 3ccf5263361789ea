"""What a record tells of what others did with an item: ratings, reviews, ranks of sales, counts.

Some of it happened after the split, so it must not reach an item's text. Names are compared whatever their case and
punctuation: `Best Sellers Rank`, `best_sellers_rank` and `salesRank:` are of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

_OF_WHAT = (
    r"(?:rating|review|vote|star|purchase|sale|buyer|download|checkin|view|like|interaction|favou?rite|wishlist"
    r"|follower|listener|play)s?"
)
# Whatever the value, as the whole of a name, or anywhere in it.
_WHOLE = re.compile(
    r"(?:tipcount|reviews?|userreviews?|reviewtexts?|topreviews?|ranks?|salesranks?|salesranking|bsr|checkins?|starratings?"
    r"|(?:amazon|product|overall|total|global|user|critic)?(?:review|vote)(?:s|score|average|avg|mean)"
    rf"|(?:num|n|no|count|total|numberof|numof|noof|countof)(?:customer|user|text|global|star)?{_OF_WHAT}"
    rf"|(?:customer|user|text|global|star)?{_OF_WHAT}(?:count|number|num|total|histogram|distribution|breakdown)s?"
    r"|(?:average|avg|mean|overall|weighted|bayesian|user|amazon)(?:star)?(?:ratings?|stars|score)"
    r"|(?:ratings?|stars)(?:average|avg|mean|value)|scoredby|popularshelves|helpfulvotes|(?:num|units|times|total)sold|soldcount"
    r"|(?:daily|weekly|monthly|yearly|annual|total)sales|bought(?:in)?(?:the)?(?:last|past)(?:day|week|month|year))"
)
_ANYWHERE = re.compile(r"bestseller|sellersrank|salesrank|customerreview|customerrating|averagerating|popularity")
# Only where the value is of numbers: a film's rating may be PG-13, its stars people.
_IF_COUNTS = re.compile(
    r"(?:ratings?|overall|stars?|ranking|votes?|sold|likes|views|sales|downloads|scores?|popular|favou?rites)"
)

_COUNT = re.compile(
    r"[>#(]*\s*[\d.,]+\s*[%km+)]*(?:\s*(?:/|out of|of)\s*[\d.]+)?(?:\s*(?:stars?|ratings?|reviews?|votes?))?",
    re.IGNORECASE,
)
_SAID = (
    r"(?:amazon\s+)?(?:best[\s_-]*sellers?'?s?[\s_-]*rank|sales[\s_-]*rank|customer[\s_-]*reviews?"
    r"|(?:average|avg\.?)[\s_-]*(?:customer[\s_-]*)?(?:rating|review)s?|(?:rating|review)s?[\s_-]*(?:number|count)"
    r"|number[\s_-]*of[\s_-]*(?:rating|review)s)"
)
_VALUE = re.compile(
    r"(?:(?:\d[\s-]*stars?\s*)+\(\s*\d+\s*%\s*\)\s*)+"  # the bars of a page: `5 star5 star (0%)`
    r"|\d(?:\.\d+)?\s+out\s+of\s+\d\s+stars?\b.{0,60}"
    r"|[\d.,]+\s*[km]?\+?\s+(?:(?:customer|global|amazon|verified|user)\s+)*(?:ratings?|reviews?)"
    r"|.{0,200}\bsee\s+top\s+\d+\b.{0,200}"
    rf"|[\s>{{\[\"']*{_SAID}[\s\"']*(?:$|[:=#\d\[({{].{{0,400}})",
    re.DOTALL,
)
_ALONE = re.compile(rf"[\s{{\[\"']*{_SAID}[\s\"']*")
_RANKED = re.compile(r"#?\s*\d.*|.{1,80}\s#?\d[\d,.]*[\s\]}\"']*")


@lru_cache(maxsize=1 << 14)
def plain_name(name: str) -> str:
    """A name's letters and digits in lower case."""
    return "".join(filter(str.isalnum, name.lower()))


def is_popularity(name: str, value: Any) -> bool:
    """Whether the value under a name tells what others did with the item."""
    told = _kind(name)
    return told is True or (told is None and _is_counts(value))


@lru_cache(maxsize=1 << 14)
def _kind(name: str) -> bool | None:
    """True and False whatever the value; None where it decides."""
    plain = plain_name(name)
    if _WHOLE.fullmatch(plain) or _ANYWHERE.search(plain):
        return True
    return None if _IF_COUNTS.fullmatch(plain) else False


def tells_popularity(value: str) -> bool:
    """Whether a cleaned value, as a whole, tells what others did: `4.5 out of 5 stars`, `best sellers rank: #3`."""
    # Looking for a few words first is many times as fast as the expression.
    hinted = "review" in value or "rating" in value or "rank" in value or "star" in value or "see top" in value
    return hinted and _VALUE.fullmatch(value) is not None


def popularity_in(fields: Mapping[str, Sequence[str]]) -> str | None:
    """The first sign of popularity among the fields of an item's text, or None."""
    for name, values in fields.items():
        if is_popularity(name, values):
            return f"{name}: {', '.join(values)}"
        for place, value in enumerate(values):
            if not tells_popularity(value):
                continue
            # `customer reviews` alone, as prose parted at its commas may have it, is the name of what follows.
            after = values[place + 1] if place + 1 < len(values) else ""
            if not _ALONE.fullmatch(value) or _RANKED.fullmatch(after):
                return value
    return None


def _is_counts(value: Any) -> bool:
    """Whether all that a value holds is numbers, or numbers written out: `4.5 out of 5`."""
    leaves = list(_leaves(value))
    return bool(leaves) and all(not isinstance(leaf, str) or _COUNT.fullmatch(leaf.strip()) for leaf in leaves)


def _leaves(value: Any) -> Iterable[Any]:
    stack = [value]
    while stack:
        top = stack.pop()
        if isinstance(top, Mapping):
            stack.extend(top.values())
        elif isinstance(top, (list, tuple)):
            stack.extend(top)
        elif top is not None and not isinstance(top, bool):
            yield top
