"""Checks of a prepared data set: order, the split, and whether the files are as `idgr prep` left them.

Reads leniently: what the other stages would refuse at the first line is counted here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from idgr.errors import faulty_line
from idgr.evaluation.audit.checks import FAIL, PASS, Check, judged, skipped
from idgr.evaluation.audit.item_popularity import popularity_check
from idgr.evaluation.audit.sequences import not_sorted_by_key
from idgr.evaluation.audit.time_order import IN_ORDER, order_of_kept_times, order_recorded
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import Lines, parse_object
from idgr.formats.records import Item, Query, Sequence
from idgr.formats.run_info import hash_folder, read_run

T = TypeVar("T")
Numbered = list[tuple[int, T]]

HELD_OUT = "held-out items are absent from training"
REPEATS = "held-out items are not in the user's own history"


@dataclass(frozen=True)
class DataSet:
    """The records of a prepared folder with the numbers of their lines; empty where a file is not there."""

    folder: Path
    items: Numbered[Item]
    train: Numbered[Sequence]
    valid: Numbered[Query]
    test: Numbered[Query]


def is_data(folder: Path) -> bool:
    return (folder / "train.jsonl").is_file() and (folder / "items.jsonl").is_file()


def read_data(folder: Path) -> DataSet:
    """Read a prepared folder. Raises `IdgrError` where a line is no record at all."""
    return DataSet(
        folder,
        read_numbered(folder / "items.jsonl", Item.parse),
        read_numbered(folder / "train.jsonl", Sequence.parse),
        read_numbered(folder / "valid.jsonl", Query.parse),
        read_numbered(folder / "test.jsonl", Query.parse),
    )


def read_numbered(path: Path, parse: Callable[[dict[str, Any]], T]) -> Numbered[T]:
    """The records of a file with the numbers of their lines; none where there is no file."""
    if not path.is_file():
        return []
    found = []
    for number, line in Lines(path, allow_empty=True):
        row = parse_object(str(path), number, line)
        try:
            found.append((number, parse(row)))
        except ValueError as fault:
            raise faulty_line(fault, path, number) from None
    return found


def data_checks(data: DataSet) -> list[Check]:
    """All checks of a data set."""
    whole = whole_sequences(data)
    return [
        _as_written(data.folder),
        _in_order_of_time(data.folder),
        not_sorted_by_key(list(whole.values()), data.folder),
        *(_users_once(rows, data.folder / f"{name}.jsonl") for name, rows in
          (("train", data.train), ("valid", data.valid), ("test", data.test)) if rows),
        _held_out(data),
        _targets_new(data),
        _described(data),
        popularity_check(data.items, data.folder / "items.jsonl"),
    ]  # fmt: skip


def whole_sequences(data: DataSet) -> dict[str, list[str]]:
    """Each user's items as far as the files tell them: the longest of what its lines hold."""
    whole: dict[str, list[str]] = {sequence.user_id: sequence.items for _, sequence in data.train}
    for _, query in (*data.valid, *data.test):
        items = [*query.history, *([query.target] if query.target is not None else [])]
        if len(items) > len(whole.get(query.user_id, ())):
            whole[query.user_id] = items
    return whole


def _as_written(folder: Path) -> Check:
    name = "files are as prep wrote them"
    record = read_run(folder)
    if not str(record.get("command", "")).startswith("prep "):
        return skipped(name, folder, "no run.json of `idgr prep` tells their hashes")
    now, then = hash_folder(folder), record.get("outputs")
    if not isinstance(then, dict):
        return skipped(name, folder, "its run.json tells no hashes of what was written")
    faults = [f"{file} was changed" for file, digest in then.items() if file in now and now[file] != digest]
    faults += [f"{file} is gone" for file in then if file not in now]
    return judged(name, folder, faults, f"the SHA-256 of {len(then)} files is that in run.json")


def _in_order_of_time(folder: Path) -> Check:
    """`prep` keeps no times, so what it did is the evidence for its folders."""
    record, stats = read_run(folder), read_stats(folder)
    command = str(record.get("command", ""))
    if command == "prep fuse":
        return skipped(IN_ORDER, folder, "a fusion; audit the folders that it was made of")
    ties = stats.get("ties")
    if not command.startswith("prep ") or not isinstance(ties, dict):
        return order_of_kept_times(folder)
    if not stats.get("timed"):
        return skipped(IN_ORDER, folder, "the sequences came without times; prep took them as oldest first")
    return order_recorded(folder, ties)


def _users_once(rows: Numbered[Any], path: Path) -> Check:
    seen: set[str] = set()
    faults = []
    for number, row in rows:
        if row.user_id in seen:
            faults.append(f"line {number}: user {row.user_id!r} again")
        seen.add(row.user_id)
    return judged("users stand once", path, faults, f"{len(rows):,} lines, as many users")


def _held_out(data: DataSet) -> Check:
    """Each file must go on from the one before: training, then the validation target, then the test target."""
    if not data.valid and not data.test:
        return skipped(HELD_OUT, data.folder, "there are no held-out items: no valid.jsonl or test.jsonl")
    trained: dict[str, list[str]] = {}
    for _, sequence in data.train:
        if len(sequence.items) >= len(trained.get(sequence.user_id, ())):
            trained[sequence.user_id] = sequence.items
    faults, n_lines = [], 0
    known: dict[str, list[str]] = dict(trained)
    for name, rows in (("valid", data.valid), ("test", data.test)):
        for number, query in rows:
            if query.target is None:
                continue
            n_lines += 1
            items = trained.get(query.user_id, [])
            before = known.get(query.user_id, [])
            line = f"{name}.jsonl:{number}: user {query.user_id!r}"
            if items != query.history[: len(items)]:
                beyond = items[: len(query.history)] == query.history and items[len(query.history)] == query.target
                what = "is in the training sequence" if beyond else "follows another history than that of training"
                faults.append(f"{line}: the target {query.target!r} {what}")
            elif name == "test" and before != query.history[: len(before)]:
                faults.append(f"{line}: the history does not go on from valid.jsonl")
            if name == "valid":
                known[query.user_id] = [*query.history, query.target]
    told = f"for {n_lines:,} targets, the user's training sequence is the beginning of the history before the target"
    return judged(HELD_OUT, data.folder, faults, told)


def _targets_new(data: DataSet) -> Check:
    rows = [(f"{name}.jsonl:{number}", query) for name, rows in (("valid", data.valid), ("test", data.test))
            for number, query in rows if query.target is not None]  # fmt: skip
    if not rows:
        return skipped(REPEATS, data.folder, "there are no held-out items")
    again = [f"{place}: user {query.user_id!r}, {query.target!r}" for place, query in rows
             if query.target in query.history]  # fmt: skip
    options = read_run(data.folder).get("options")
    kept = isinstance(options, dict) and (options.get("repeats") == "keep" or "repeats" not in options)
    if again and kept and str(read_run(data.folder).get("command", "")).startswith("prep "):
        told = (
            f"{len(again):,} of {len(rows):,} are repeats of real events, which prep kept (--repeats keep); a ranking "
            "that leaves the history out counts them as misses"
        )
        return Check(REPEATS, str(data.folder), PASS, told)
    return judged(REPEATS, data.folder, again, f"none of {len(rows):,}")


def _described(data: DataSet) -> Check:
    texts = {item.item_id: item.text for _, item in data.items}
    used = dict.fromkeys(item for row in whole_sequences(data).values() for item in row)
    faults = [f"item {item!r} has none" for item in used if not texts.get(item)]
    repeated = len(data.items) - len(texts)
    if repeated:
        return Check("every item has a text", str(data.folder), FAIL, f"{repeated} items stand twice in items.jsonl")
    return judged("every item has a text", data.folder, faults, f"{len(used):,} items in use")


def read_stats(folder: Path) -> dict[str, Any]:
    """`stats.json`; empty where there is none. Raises `IdgrError` where it is not a JSON object."""
    path = folder / "stats.json"
    if not path.is_file():
        return {}
    return read_object(path, "prepare the data set again")
