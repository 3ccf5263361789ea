"""Python literals as data: Amazon's metadata of 2014, Steam's dumps, and values that a table has as Python shows them.

They are parsed, never run.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

import orjson

from idgr.errors import IdgrError
from idgr.formats.jsonl import parse_object

MAX_LITERAL_BYTES = 2_000_000  # far above the lines of real dumps; bounds what parsing one line can cost

# What may be a whole number of more digits than Python writes out.
_LONG_NUMBER = re.compile(r"0[xXoObB][\da-fA-F_]{3000}")


def parse_literal(line: bytes) -> Any:
    """The value of a Python literal in UTF-8: strings, numbers, lists, dictionaries, None and the like.

    Raises:
        ValueError: it is something else, longer than any honest record, nested too deep for Python, or holds a number
            that Python does not write out.
    """
    if len(line) > MAX_LITERAL_BYTES:
        raise ValueError(f"a line of {len(line):,} bytes, more than {MAX_LITERAL_BYTES:,}")
    try:
        text = line.decode()
    except UnicodeDecodeError as fault:
        raise ValueError(f"not valid UTF-8 ({fault.reason})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\d", which Python warns of
            value = ast.literal_eval(text)
    except SyntaxError as fault:
        raise ValueError(f"not a Python literal ({fault.msg})") from None
    except (ValueError, TypeError):
        raise ValueError("not a Python literal (it holds more than values)") from None
    except (RecursionError, MemoryError):  # how Python's parser gives up on nesting
        raise ValueError("not a Python literal of an item (nested too deep)") from None
    if _LONG_NUMBER.search(text):
        try:
            repr(value)
        except ValueError:
            raise ValueError("not a Python literal of an item (it holds a number of thousands of digits)") from None
    return value


def parse_record(path: str, number: int, line: bytes) -> dict[str, Any]:
    """The record that a line holds as JSON or as a Python literal. Raises `IdgrError` with file and line."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        if not line.lstrip(b"{ \t").startswith((b"'", b'u"', b"u'")):
            return parse_object(path, number, line)  # tells what is wrong with it as JSON
        try:
            record = parse_literal(line)
        except ValueError as fault:
            raise IdgrError(str(fault), "mend the line or leave it out", where=path, line=number) from None
    if not isinstance(record, dict):
        raise IdgrError("not a record", "give one item a line", where=path, line=number)
    return record
