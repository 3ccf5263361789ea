"""Reading the items of a command line: `items.jsonl` or raw metadata."""

from __future__ import annotations

from idgr.errors import IdgrError
from idgr.formats.part_lines import open_lines
from idgr.formats.records import Item


def read_catalogue(path: str, *, need_text: str | None = None) -> list[Item]:
    """Items with `text` (and `fields`) as it stands, or with the plain text of any other record; in file order.

    Args:
        path: a file, or a folder of its parts.
        need_text: what to do about an item without text, for the error; None where such items are accepted.

    Raises:
        IdgrError: naming the line that is malformed, repeats an item, or has no text where one is needed.
    """
    return [item for part in read_catalogue_parts(path, need_text=need_text) for item in part]


def read_catalogue_parts(path: str, *, need_text: str | None = None) -> list[list[Item]]:
    """The same by part, where `path` is a folder; a file is one part."""
    from idgr.corpus.metadata import read_entries
    from idgr.corpus.text import described, item_fields
    from idgr.formats.item_text import parse_fields

    seen: set[str] = set()
    parts = []
    for lines in open_lines(path):
        found = []
        for entry in read_entries(lines):
            if entry.item_id in seen:
                what = f"duplicate item_id {entry.item_id!r}"
                raise IdgrError(what, "keep one record of each", where=entry.path, line=entry.line)
            text = entry.record.get("text")
            if isinstance(text, str):
                item = Item(entry.item_id, text.strip(), parse_fields(entry.record.get("fields")))
            else:
                item = described(entry.item_id, item_fields(entry.record))
            if not item.text and need_text is not None:
                raise IdgrError(f"item {item.item_id!r} has no text", need_text, where=entry.path, line=entry.line)
            seen.add(entry.item_id)
            found.append(item)
        parts.append(found)
    return parts
