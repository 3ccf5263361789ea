"""IDs in run folders: how long they are, and what training made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idgr.evaluation.audit.data import read_numbered
from idgr.evaluation.audit.id_texts import any_id
from idgr.evaluation.audit.made_ids import tokenizer_of
from idgr.evaluation.audit.provenance import Output
from idgr.evaluation.report.folders import RunFolder
from idgr.formats.records import read_ids, read_items
from idgr.ids.diff import id_changes
from idgr.models.tokenizer import encode

SHOWN_CHANGES = 10


@dataclass(frozen=True)
class IdsFile:
    """IDs and their lengths.

    Attributes:
        words: of each ID.
        tokens: of each ID, without end-of-sequence; None where the recommender's tokenizer is not at hand.
    """

    name: str
    words: list[int]
    tokens: list[int] | None


@dataclass(frozen=True)
class LearnedIds:
    """The IDs before and after the rounds of a run of `alternate`.

    Attributes:
        last: the name of the last round.
        shown: text of the item, ID before, ID after: the first changed items in the order of the catalogue.
    """

    name: str
    last: str
    n_items: int
    n_changed: int
    shown: list[tuple[str, str, str]]


def ids_files(folder: RunFolder) -> list[IdsFile]:
    """Every different file of IDs, by the time at which it was made."""
    made = [(output, output.path) for output in folder.outputs if output.command == "gen-ids"]
    made = [(output, path) for output, path in made if output.option("shard") is None]
    made += [(output, output.path / "ids.jsonl") for output in folder.outputs if output.command == "zeroshot"]
    found, seen = [], set()
    for output, path in made:
        digest = folder.findings.digest(path)
        if digest is not None and digest not in seen:
            seen.add(digest)
            found.append(_lengths(folder, output, path))
    return found


def _lengths(folder: RunFolder, output: Output, path: Path) -> IdsFile:
    rows = read_numbered(path, any_id)
    texts = [row.id for _, row in rows]
    tokenizer = tokenizer_of(rows, output, folder.findings)
    tokens = None if tokenizer is None else [len(row) for row in encode(tokenizer, texts)]
    return IdsFile(folder.name(path), [len(text.split()) for text in texts], tokens)


def learned_ids(folder: RunFolder) -> list[LearnedIds]:
    """For every run of `alternate`, what its first and its last IDs are."""
    found = []
    for run in folder.findings.of("alternate"):
        rounds = [path for path in run.path.glob("round-*/ids.jsonl") if path.parent.name[6:].isdecimal()]
        rounds.sort(key=lambda path: int(path.parent.name[6:]))
        if len(rounds) < 2:
            continue
        before, after = read_ids(rounds[0]), read_ids(rounds[-1])
        items = folder.findings.find(run, "items")
        texts = {} if items is None else {item.item_id: item.text for item in read_items(items)}
        changes = id_changes(before, after)
        shown = [
            (texts.get(change.item_id, ""), change.before or "", change.after or "")
            for change in changes[:SHOWN_CHANGES]
        ]
        last = rounds[-1].parent.name
        found.append(LearnedIds(folder.name(run.path), last, len(after), len(changes), shown))
    return found
