"""What was trained, or chosen, on what of the split: by hashes and, of files that no record knows, by content.

A file that was filtered by hand has no known hash. Its contents then tell whether it is a part of what it should be, or
whether a held-out event stands in it at its place: behind what the user did before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import FAIL, PASS, SKIP
from idgr.evaluation.audit.data import DataSet, read_numbered
from idgr.evaluation.audit.provenance import RAW, Findings, Output
from idgr.formats.records import Query
from idgr.formats.records import Sequence as Record

_RUN = 4  # a held-out event is known by itself and the three before it, wherever a longer sequence was cut

Verdict = tuple[str, str]


def trained_on(output: Output, findings: Findings, role: str = "train") -> Verdict:
    """PASS if an input was train.jsonl of the data set or a part of it, FAIL if it was anything else of this split.

    Returns:
        The verdict and its evidence.
    """
    return _judged(output, role, "train", findings, _sequences_verdict)


def chosen_on(output: Output, findings: Findings, role: str = "valid") -> Verdict:
    """PASS if an input was valid.jsonl of the data set or a part of it or of training, FAIL if it was test.jsonl."""
    return _judged(output, role, "valid", findings, _queries_verdict)


def _judged(
    output: Output, role: str, wanted: str, findings: Findings, look: Callable[[Path, DataSet], Verdict]
) -> Verdict:
    data, digest, name = findings.data_set(), output.digest(role), output.named(role)
    if data is None:
        return SKIP, "the data set is not here; name it with --data"
    if digest is None:
        return SKIP, f"--{role} came through standard input, so what it held is not known"
    part = findings.data_part(digest)
    if part == wanted:
        return PASS, f"--{role} was {wanted}.jsonl of {data.folder}, by its hash"
    if part is not None:
        was = f"what {data.folder} was prepared from" if part == RAW else f"{part}.jsonl of {data.folder}"
        return FAIL, f"--{role} was {was} ({name}), which is not its {wanted}.jsonl"
    path = findings.find(output, role)
    if path is None:
        told = f"--{role} was {name}, which is not {wanted}.jsonl of {data.folder}, and is not here to be looked into"
        return (FAIL if findings.is_of_data(output, role) else SKIP), told
    try:
        verdict, told = look(path, data)
    except IdgrError as fault:
        return SKIP, f"--{role} cannot be read: {fault}"
    return verdict, f"--{role} was {path}, which is not {wanted}.jsonl of {data.folder}: {told}"


@dataclass(frozen=True)
class Held:
    """What training sequences hold of a split.

    Attributes:
        n_users: how many of them are of users of the split.
        parts: of how many the items are among the user's training items, in their order.
        in_place: how many hold an item that is held out for the user, where the user took it.
        more: how many hold such an item, anywhere, more often than training does.
        first: one of those, for a reader.
    """

    n_users: int
    parts: int
    in_place: int
    more: int
    first: str


def held(sequences: Iterable[Record], data: DataSet) -> Held:
    """Look for the held-out items of a split in training sequences."""
    trained = {row.user_id: row.items for _, row in data.train}
    queries: dict[str, list[tuple[str, Query]]] = {}
    for name, rows in (("valid", data.valid), ("test", data.test)):
        for _, query in rows:
            if query.target is not None:
                queries.setdefault(query.user_id, []).append((name, query))
    n_users = parts = in_place = more = 0
    first = ""
    for row in sequences:
        own, asked = trained.get(row.user_id, []), queries.get(row.user_id, [])
        if not own and not asked:
            continue
        n_users += 1
        if _is_part(row.items, own):
            parts += 1
            continue
        there = [(name, query) for name, query in asked if _is_in_place(row.items, own, query)]
        in_place += bool(there)
        more += any(row.items.count(str(query.target)) > own.count(str(query.target)) for _, query in asked)
        if there and not first:
            name, query = there[0]
            first = f"user {row.user_id!r}, {query.target!r} of {name}.jsonl"
    return Held(n_users, parts, in_place, more, first)


def _sequences_verdict(path: Path, data: DataSet) -> Verdict:
    rows = [row for _, row in read_numbered(path, Record.parse)]
    found = held(rows, data)
    if found.in_place or 2 * found.more > found.n_users:
        n_leaks, first = max(found.in_place, found.more), f", such as {found.first}" if found.first else ""
        return FAIL, f"it holds a held-out item of {n_leaks:,} of {found.n_users:,} users{first}"
    if rows and found.parts == len(rows):
        return PASS, f"a part of it, the {len(rows):,} sequences being of training items alone"
    if not found.n_users:
        return SKIP, "it holds none of its users"
    others = found.n_users - found.parts
    return SKIP, f"no held-out item stands in it at its place, but {others:,} sequences are not parts of training"


def _queries_verdict(path: Path, data: DataSet) -> Verdict:
    rows = [row for _, row in read_numbered(path, Query.parse)]
    valid = {_event(query) for _, query in data.valid}
    test = {_event(query) for _, query in data.test}
    target_of = {query.user_id: query.target for _, query in data.test}
    tested = sum(_event(row) in test for row in rows)
    same = sum(row.target is not None and target_of.get(row.user_id) == row.target for row in rows)
    if tested or 2 * same > len(rows):
        told = f"its targets are test.jsonl's for {max(tested, same):,} of {len(rows):,} users"
        return FAIL, told
    trained = {row.user_id: row.items for _, row in data.train}
    known = sum(
        _event(row) in valid or trained.get(row.user_id, [])[: len(row.history) + 1] == [*row.history, row.target]
        for row in rows
    )
    if rows and known == len(rows):
        return PASS, f"a part of it or of training, none of whose {known:,} targets is test.jsonl's"
    told = f"{len(rows) - known:,} of {len(rows):,} targets are neither validation's nor training's"
    return SKIP, f"{told}, and {same:,} are test.jsonl's"


def _event(query: Query) -> tuple[str, int, tuple[str, ...], str | None]:
    """What tells a held-out event from others: its user, place, target, and what came just before."""
    return query.user_id, len(query.history), tuple(query.history[1 - _RUN :]), query.target


def _is_part(items: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether items stand among others in the same order."""
    rest = iter(whole)
    return all(item in rest for item in items)


def _is_in_place(items: list[str], own: list[str], query: Query) -> bool:
    """Whether a held-out event stands in a sequence and not in the user's training items: as its beginning, or with the
    three events before it."""
    run = [*query.history, str(query.target)]
    if items[: len(run)] == run:
        return own[: len(run)] != run
    tail = run[-_RUN:]
    return len(tail) == _RUN and _count(items, tail) > _count(own, tail)


def _count(items: list[str], run: list[str]) -> int:
    return sum(items[start : start + len(run)] == run for start in range(len(items) - len(run) + 1))
