"""Yelp's open dataset: `yelp_academic_dataset_review.json` and `…_business.json`, one JSON object a line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from idgr.corpus.events import Events, Layout
from idgr.corpus.events import read_events as read_layout
from idgr.corpus.metadata import Entry
from idgr.corpus.metadata import read_entries as read_records

LAYOUTS = (Layout(user="user_id", item="business_id", time="date", rating="stars"),)
# What a business is; addresses, opening hours and attributes are left out.
FIELDS = ("name", "categories")
DUPLICATE_ENTRIES = False
_WITH_COMMAS = (
    "Beer, Wine & Spirits",
    "Books, Mags, Music & Video",
    "Used, Vintage & Consignment",
    "Wills, Trusts, & Probates",
)
_CATEGORY = re.compile(rf"\s*({'|'.join(map(re.escape, _WITH_COMMAS))}|[^,]+)\s*(?:,|$)")


def read_events(path: str | os.PathLike[str], *, min_rating: float | None = None) -> Events:
    """The reviews. Raises `IdgrError` with file and line."""
    return read_layout(path, LAYOUTS, min_rating=min_rating)


def read_entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The businesses, their categories as a list. Raises `IdgrError` with file and line."""
    for one in read_records(path, "business_id"):
        categories = one.record.get("categories")
        if isinstance(categories, str) and not categories.startswith("["):
            record = one.record | {"categories": split_categories(categories)}
            yield Entry(one.path, one.line, one.item_id, record)
        else:
            yield one


def split_categories(text: str) -> list[str]:
    """The names that Yelp joined by commas, a few of which hold commas themselves."""
    return [found[1].strip() for found in _CATEGORY.finditer(text)]
