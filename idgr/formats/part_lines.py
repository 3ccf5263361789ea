"""Records of a file that may be Parquet, as the JSON lines that `read_jsonl` takes."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from idgr.formats.jsonl import Lines
from idgr.formats.part_files import is_folder, is_parquet, part_files


class ParquetLines(Lines):
    """The rows of a Parquet file as lines of JSON, numbered from 1; a part without rows has none.

    Raises:
        IdgrError: the file cannot be read as Parquet.
    """

    def blocks(self, size: int) -> Iterator[tuple[int, list[bytes]]]:
        from idgr.formats.tables import open_tables  # with polars, which JSON Lines do not need

        for table in open_tables([self.path]):
            for frame, numbers in table.batches(table.names):
                for begin in range(0, frame.height, size):
                    rows = frame.slice(begin, size).to_dicts()
                    yield numbers[begin], [orjson.dumps(row, default=str) for row in rows]


def open_lines(path: str) -> list[Lines]:
    """What holds the records at a path: a file, or the parts of a folder, which may be Parquet and may be empty.

    Raises:
        IdgrError: a folder holds no parts.
    """
    if not is_folder(path):
        return [Lines(path)]
    return [open_part(part) for part in part_files(path)]


def open_part(path: str) -> Lines:
    """The records of a part, Parquet or JSON Lines."""
    return (ParquetLines if is_parquet(path) else Lines)(path, allow_empty=True)
