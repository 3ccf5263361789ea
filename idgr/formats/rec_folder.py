"""What a recommender's folder tells of its training: how it was asked, and which tokens it has seen in IDs."""

from __future__ import annotations

import os
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from idgr.errors import IdgrError
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import dump_line, replace_file, write_jsonl
from idgr.formats.records import ItemId, ids_fingerprint, read_ids
from idgr.formats.run_info import RUN_FILE, read_run, sha256_file
from idgr.options import MOST_INT

SEEN_TOKENS = "seen_tokens.json"
ITEM_HEAD = "item_head.safetensors"
CONFIG, ITEMS, IDS = "config.json", "items.json", "ids.jsonl"
TOKENIZER = "tokenizer.json"
# The model_type of a folder of `idgr train-sasrec`, of one with --text-vectors, and of those of `idgr train-two-tower`
# and `train-text-ranker`.
SASREC, TEXT_SASREC, TWO_TOWER, TEXT_RANKER = "sasrec", "text-sasrec", "two-tower", "text-ranker"


@dataclass(frozen=True)
class RecommenderFacts:
    """How a recommender was trained.

    Attributes:
        objective: "full" or "trie".
        templates, max_history, max_prompt_tokens: its prompts.
        ids_fingerprint: a hash of the IDs it knows; empty where it knows none.
        user_ids: "history" where prompts begin with the user's ID, made of the history; else "none".
        user_gen: a hash of the ID generator that made them.
        history: "shown", or "none" where the user's ID stands for it.
        arch: "t5", or "causal" where history and answer are one sequence, without templates.
        separator: what stands between the items of that sequence: "eos", before the first one too, or "newline".
        causal_encoder: of a T5: whether its encoder is causal by item, whose IDs end with EOS in the prompt.
    """

    objective: Literal["full", "trie"]
    templates: list[str]
    max_history: int
    max_prompt_tokens: int
    ids_fingerprint: str
    user_ids: str = "none"
    user_gen: str | None = None
    history: str = "shown"
    arch: str = "t5"
    separator: str = "eos"
    causal_encoder: bool = False


def item_model_type(folder: str | os.PathLike[str]) -> str | None:
    """Which model that knows items and no IDs a folder holds, such as `SASREC`, by its `config.json`.

    A folder whose `config.json` is missing or broken holds none; whoever loads the model tells what is wrong.
    """
    path = Path(folder) / CONFIG
    try:
        config = orjson.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, orjson.JSONDecodeError):
        return None
    found = config.get("model_type") if isinstance(config, dict) else None
    return found if found in (SASREC, TEXT_SASREC, TWO_TOWER, TEXT_RANKER) else None


def read_recommender_facts(
    folder: str | os.PathLike[str], untrained: RecommenderFacts | None = None
) -> RecommenderFacts:
    """The facts that `idgr train-rec` left in `folder`.

    Args:
        untrained: what to take for a model that `idgr train-rec` has not made, if that is accepted.

    Raises:
        IdgrError: the folder is not a recommender's.
    """
    record = read_run(folder)
    if untrained is not None and record.get("command") != "train-rec":
        return untrained
    if not Path(folder).is_dir():
        raise IdgrError("there is no such folder", "give one that `idgr train-rec` wrote", where=folder)
    kinds = {"objective": str, "templates": list, "max_history": int, "max_prompt_tokens": int, "ids_fingerprint": str}
    facts: dict[str, Any] = {}
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise IdgrError(f"its {RUN_FILE} does not tell {name}", _OURS, where=folder)
        facts[name] = record[name]
    facts |= {name: record[name] for name in _LATER if name in record}
    _check_facts(folder, facts)
    return RecommenderFacts(**facts)


_LATER = ("user_ids", "user_gen", "history", "arch", "separator", "causal_encoder")  # facts that older records lack
_OURS = "give a folder that `idgr train-rec` wrote"
_CHOICES = {
    "objective": ("full", "trie"),
    "user_ids": ("none", "history"),
    "history": ("shown", "none"),
    "arch": ("t5", "causal"),
    "separator": ("eos", "newline"),
}


def _check_facts(folder: str | os.PathLike[str], facts: dict[str, Any]) -> None:
    """Raise `IdgrError` where a fact in a record is none that `idgr train-rec` writes."""
    good = {name: facts[name] in known for name, known in _CHOICES.items() if name in facts}
    good |= {
        name: not isinstance(facts[name], bool) and 1 <= facts[name] <= MOST_INT
        for name in ("max_history", "max_prompt_tokens")
    }
    templates = facts["templates"]
    good["templates"] = all(isinstance(template, str) and _is_template(template) for template in templates)
    good["templates"] &= bool(templates) or facts.get("arch") == "causal"
    good["causal_encoder"] = isinstance(facts.get("causal_encoder", False), bool)
    good["user_gen"] = isinstance(facts.get("user_gen"), (str, type(None)))
    for name, is_good in good.items():
        if not is_good:
            raise IdgrError(f"its {RUN_FILE} tells {name} {facts[name]!r}", _OURS, where=folder)


def read_item_head_weight(folder: str | os.PathLike[str]) -> float | None:
    """The weight of the item head in a recommender's ranking, as its record tells; None where it has no head.

    Raises:
        IdgrError: the record tells something else than a weight.
    """
    told = read_run(folder).get("item_head")
    if told is None:
        return None
    weight = told.get("lambda") if isinstance(told, dict) else None
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
        raise IdgrError(f"its {RUN_FILE} tells item_head {told!r}", _OURS, where=folder)
    return float(weight)


def _is_template(text: str) -> bool:
    """Whether a text has the slot of the history, once, and no other (`idgr.prompts.templates.split_template`)."""
    try:
        slots = [(slot, *how) for _, slot, *how in string.Formatter().parse(text) if slot is not None]
    except ValueError:
        return False
    return slots == [("history", "", None)]


@dataclass(frozen=True)
class IdChanges:
    """What some IDs are beside those that a recommender was trained on.

    Attributes:
        same: how many items have their ID of the training.
        changed: item, ID in training and ID now of those that have another.
        new: how many items training did not have.
        gone: how many items of the training there are no more.
    """

    same: int
    changed: list[tuple[str, str, str]]
    new: int
    gone: int

    @property
    def counts(self) -> dict[str, int]:
        return {"same": self.same, "changed": len(self.changed), "new": self.new, "gone": self.gone}


def compare_ids(trained: Iterable[ItemId], now: Iterable[ItemId]) -> IdChanges:
    """How the IDs of a catalogue differ from those that a recommender was trained on."""
    before = {record.item_id: record.id for record in trained}
    after = {record.item_id: record.id for record in now}
    both = [item for item in after if item in before]
    changed = [(item, before[item], after[item]) for item in both if before[item] != after[item]]
    return IdChanges(len(both) - len(changed), changed, len(after) - len(both), len(before) - len(both))


def read_trained_ids(rec: str | os.PathLike[str], fingerprint: str) -> list[ItemId] | None:
    """The IDs that a recommender was trained on, from its folder; None where they are not there.

    Args:
        fingerprint: theirs; a file of others is not the one that training left.
    """
    path = Path(rec) / IDS
    ids = read_ids(path) if path.is_file() else None
    return ids if ids is not None and ids_fingerprint(ids) == fingerprint else None


def check_ids_grown(
    facts: RecommenderFacts,
    ids: Sequence[ItemId],
    rec: str | os.PathLike[str],
    ids_file: str | os.PathLike[str],
    *,
    or_force: bool = True,
) -> IdChanges | None:
    """See that every item that a recommender was trained on, and that is still there, has its ID of the training.

    Args:
        or_force: whether the command has a --force to insist with.

    Returns:
        How the catalogue has changed; None where it has not.

    Raises:
        IdgrError: an item has another ID, no item is one of the training, or the folder does not tell the IDs of the
            training, and these are others; or the recommender reads them by another tokenizer.
    """
    trained, insist = None, ", or insist with --force" if or_force else ""
    if ids_fingerprint(ids) != facts.ids_fingerprint:
        trained = read_trained_ids(rec, facts.ids_fingerprint)
    changes = None if trained is None else compare_ids(trained, ids)
    if changes is not None and changes.changed:
        item, then, now = changes.changed[0]
        more = f", and {len(changes.changed) - 1} more have others" if len(changes.changed) > 1 else ""
        raise IdgrError(
            f"item {item!r} has the ID {now!r}, but had {then!r} when {os.fspath(rec)} was trained{more}",
            "keep old IDs with `gen-ids --keep`, or train it on these with `train-rec --model`" + insist,
            where=ids_file,
        )
    if changes is None or not changes.same:
        check_ids_known(facts, ids, rec, ids_file, or_force=or_force)
        return None
    _check_tokenizer(rec, "put that back" + insist)
    return changes


def check_ids_known(
    facts: RecommenderFacts,
    ids: Iterable[ItemId],
    rec: str | os.PathLike[str],
    ids_file: str | os.PathLike[str],
    *,
    or_force: bool = True,
) -> None:
    """Raise `IdgrError` where a recommender was trained on other IDs than these, or reads them by another tokenizer.

    Args:
        or_force: whether the command has a --force to insist with.
    """
    if ids_fingerprint(ids) != facts.ids_fingerprint:
        raise IdgrError(
            f"was trained on other IDs than those of {os.fspath(ids_file)}",
            "give the IDs it was trained on, or train it on these with `idgr train-rec --model`"
            + (", or insist with --force" if or_force else ""),
            where=rec,
        )
    _check_tokenizer(rec, "put that back" + (", or insist with --force" if or_force else ""))


def _check_tokenizer(rec: str | os.PathLike[str], todo: str) -> None:
    # Other tokens would spell the same IDs, and mean nothing to the model.
    outputs = read_run(rec).get("outputs")
    then = outputs.get(TOKENIZER) if isinstance(outputs, dict) else None
    path = Path(rec) / TOKENIZER
    if then is not None and path.is_file() and sha256_file(path) != then:
        raise IdgrError(f"its {TOKENIZER} is not the one that it was trained with", todo, where=rec)


def write_seen_tokens(folder: str | os.PathLike[str], tokens: Iterable[int]) -> None:
    """Leave in a recommender's folder which tokens the IDs that it was trained on are made of."""
    with replace_file(Path(folder) / SEEN_TOKENS) as stream:
        stream.write(dump_line({"tokens": sorted(set(tokens))}))


def write_rec_ids(folder: str | os.PathLike[str], ids: Iterable[ItemId]) -> None:
    """Leave in a recommender's folder the IDs that it was trained on."""
    write_jsonl(Path(folder) / IDS, (record.row() for record in ids))


def read_seen_tokens(folder: str | os.PathLike[str]) -> set[int] | None:
    """What `write_seen_tokens` left in `folder`; None where it has not.

    Raises:
        IdgrError: the file holds something else.
    """
    path = Path(folder) / SEEN_TOKENS
    if not path.is_file():
        return None
    todo = "take the recommender as `idgr train-rec` wrote it, or train it again"
    tokens = read_object(path, todo).get("tokens")
    if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
        raise IdgrError('its "tokens" is not a list of token numbers', todo, where=path)
    return set(tokens)
