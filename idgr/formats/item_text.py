"""The fields of an item's plain text, `key: value; key: value`, read back.

A value that itself holds a semicolon and a word with a colon after it, as some titles do, is cut there, and one with a
comma counts as two: the text alone does not tell. `items.jsonl` then has `fields` beside the text (`Item.values`).
"""

from __future__ import annotations

import re
from typing import Any

_NAME = r"[^\W\d][^:;,.]{0,39}"
FIELD_NAME = re.compile(rf"(?:^|;)\s*{_NAME}:(?=\s)")
_WHOLE_NAME = re.compile(_NAME)


def read_fields(text: str) -> dict[str, str]:
    """Values by lower-case name, in the order of the text; of a name that stands twice, the first value.

    Empty where the text has no fields.
    """
    found: dict[str, str] = {}
    names = list(FIELD_NAME.finditer(text))
    ends = [match.start() for match in names[1:]] + [len(text)]
    for match, end in zip(names, ends, strict=False):
        name = match.group().lstrip(";").strip()[:-1].strip().lower()
        found.setdefault(name, text[match.end() : end].strip())
    return found


def read_values(text: str) -> dict[str, list[str]]:
    """What each field of a text lists, commas parting its values."""
    return {name: split_list(value) for name, value in read_fields(text).items()}


def split_list(text: str) -> list[str]:
    """The values that commas part, without empty ones."""
    return [value for part in text.split(",") if (value := part.strip())]


def tells_fields(text: str, fields: dict[str, list[str]]) -> bool:
    """Whether the text that these fields make reads back as they are."""
    if not all(map(_WHOLE_NAME.fullmatch, fields)) or text.count(",") != sum(
        len(values) - 1 for values in fields.values()
    ):
        return False
    return text.count(";") == len(fields) - 1 or read_values(text) == fields


def parse_fields(value: Any) -> dict[str, list[str]] | None:
    """The `fields` of a line of `items.jsonl`; None where the line has none, or a key of its own by that name."""
    if not isinstance(value, dict):
        return None
    found: dict[str, list[str]] = {}
    for name, values in value.items():
        listed = [values] if isinstance(values, str) else values
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            return None
        found.setdefault(name.strip().lower(), []).extend(listed)
    return found
