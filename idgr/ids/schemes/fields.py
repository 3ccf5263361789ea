"""The fields of an item's plain text, `key: value; key: value`, read back.

A value that itself holds a semicolon and a word with a colon after it, as some titles do, is cut there: the text alone
does not tell it from a field. Knows texts only.
"""

from __future__ import annotations

import re

FIELD_NAME = re.compile(r"(?:^|;)\s*[^\W\d][^:;,.]{0,39}:(?=\s)")


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
