"""A file that holds one JSON object: read whole, or told in one line what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

from idgr.errors import IdgrError


def read_object(path: str | os.PathLike[str], todo: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        todo: what the user can do about a file that holds none.

    Raises:
        IdgrError: the file cannot be read, or holds no JSON object in UTF-8.
    """
    if Path(path).exists() and not Path(path).is_file():  # a pipe would wait for somebody to write
        raise IdgrError("is no regular file", todo, where=path)
    try:
        found = orjson.loads(Path(path).read_bytes())
    except OSError as fault:
        raise IdgrError(f"cannot be read ({fault.strerror or fault})", todo, where=path) from None
    except orjson.JSONDecodeError as fault:
        raise IdgrError(f"is not a JSON object ({fault.msg})", todo, where=path) from None
    if not isinstance(found, dict):
        raise IdgrError("is not a JSON object", todo, where=path)
    return found
