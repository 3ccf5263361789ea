"""A split as cornac's next-item recommenders read it: rows of user, session, item and place (`USIT`), tab between.

A user's events are one session, named as the user; places count from 0 and stand for times. `train.usit` holds the
training sequences; `valid.usit` and `test.usit` hold each target as the last item of a session behind its history, as
cornac's evaluation in the mode `last` wants it. `items.tsv` holds the catalogue with its texts.

Checked with cornac 3.0.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from idgr.formats.exchange.keys import to_token
from idgr.formats.exchange.prepared import PreparedData
from idgr.formats.jsonl import replace_file


def write_cornac(folder: Path, data: PreparedData) -> None:
    """Write the files into a folder."""
    sets: dict[str, Iterable[tuple[str, list[str]]]] = {
        "train": ((sequence.user_id, sequence.items) for sequence in data.train),
        "valid": ((target.user_id, [*target.history, target.item_id]) for target in data.valid),
        "test": ((target.user_id, [*target.history, target.item_id]) for target in data.test),
    }
    for part, sessions in sets.items():
        with replace_file(folder / f"{part}.usit") as stream:
            for user_id, items in sessions:
                user = to_token(user_id)
                for place, item in enumerate(items):
                    stream.write(f"{user}\t{user}\t{to_token(item)}\t{place}\n".encode())
    with replace_file(folder / "items.tsv") as stream:
        for record in data.items:
            stream.write(f"{to_token(record.item_id)}\t{' '.join(record.text.split())}\n".encode())
