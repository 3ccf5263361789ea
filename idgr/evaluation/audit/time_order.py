"""Whether sequences are in order of time, and events of one time in no order of item key.

The evidence is what `idgr prep` recorded, or the times themselves where `train.jsonl` keeps them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from idgr.corpus.ordering import Histories
from idgr.corpus.sources.jsonl import read_events
from idgr.corpus.ties import CHANCE, tie_order
from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import FAIL, PASS, Check, skipped
from idgr.formats.jsonl import Lines, parse_object

IN_ORDER = "sequences are in order of time"


def order_recorded(folder: Path, ties: dict[str, Any]) -> Check:
    """What `stats.json` says of the order that `prep` gave; `ties` is its part on events of equal time."""
    share = ties.get("share")
    told = f"prep ordered the events by their times; {share if isinstance(share, float) else 0:.1%}"
    shuffled = ties.get("order") == "shuffle"
    rule = "put in seeded random order" if shuffled else "left as in the file"
    found = ties.get("key_order")
    p = found.get("p") if isinstance(found, dict) else None
    if not shuffled and isinstance(found, dict) and isinstance(p, (int, float)) and p < CHANCE:
        counts = f"{found.get('ascending')} ascend and {found.get('descending')} descend"
        why = (
            f"of {found.get('groups')} groups of equal time {counts} by item key, where chance gives "
            f"{found.get('by_chance')} each, and they are left so: prepare the data without --ties file"
        )
        return Check(IN_ORDER, str(folder), FAIL, why)
    return Check(IN_ORDER, str(folder), PASS, f"{told} have the time of the one before, {rule}")


def order_of_kept_times(folder: Path) -> Check:
    """The order in `train.jsonl` of any origin, if its records keep their `times`."""
    path = folder / "train.jsonl"
    if not _keeps_times(path):
        untold = "the times of the events are not kept, and no run.json and stats.json tell of them"
        return skipped(IN_ORDER, folder, untold)
    try:
        events = read_events(path)
    except IdgrError as fault:
        return Check(IN_ORDER, str(path), FAIL, f"the times cannot be read: {fault}")
    # Sequences are read user by user, so that the order of the file is that of the sequences.
    start = np.concatenate([[0], np.cumsum(np.bincount(events.user, minlength=len(events.users)))]).astype(np.int64)
    as_they_stand = Histories(events.users, events.items, start, events.item, events.time)
    back = (events.user[1:] == events.user[:-1]) & (events.time[1:] < events.time[:-1])
    if back.any():
        first = int(back.argmax()) + 1
        why = f"train.jsonl:{events.line[first]}: user {events.users[events.user[first]]!r} goes back in time"
        return Check(IN_ORDER, str(folder), FAIL, f"{why} (and {int(back.sum()) - 1:,} other places)")
    found = tie_order(as_they_stand)
    return Check(IN_ORDER, str(folder), FAIL if found.by_key else PASS, f"by the times in train.jsonl; {found.told()}")


def _keeps_times(path: Path) -> bool:
    for number, line in Lines(path, allow_empty=True):
        return "times" in parse_object(str(path), number, line)
    return False
