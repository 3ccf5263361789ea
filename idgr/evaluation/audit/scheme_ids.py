"""Checks of IDs that `gen-ids --scheme` made, and of any IDs that are numbers in an order.

Numbers given as items first occur over whole sequences, as P5's code gives them, tell the held-out items: such an item
then stands beside the user's others. That can be seen in the IDs alone, whoever made them.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import FAIL, PASS, SKIP, Check, skipped
from idgr.evaluation.audit.data import DataSet, read_data, whole_sequences
from idgr.evaluation.audit.held_out import chosen_on, trained_on
from idgr.evaluation.audit.id_texts import Numbered
from idgr.evaluation.audit.provenance import ITEM_MODELS, Findings, Output
from idgr.formats.records import read_items, read_sequences
from idgr.formats.run_info import read_run
from idgr.ids.kept import Kept
from idgr.ids.schemes.choice import scheme_ids
from idgr.ids.schemes.options import OF_SEQUENCES, OF_TEXT_VECTORS, OF_USE, SCHEMES, SchemeOptions

FROM_TRAINING = "IDs are made from items and training sequences alone"
ORDER = "the order of IDs does not follow held-out items"
_MADE_AGAIN = {"shared", "sequential", "category", "title", "random"}  # in a moment, and without further packages
_DEVIATIONS = 3.3  # so many standard deviations from the half that chance gives; 11 pairs can reach it
_NUMBER = re.compile(r"([^\W\d]*[ _-]?)(\d[\d ]{0,40})")


def scheme_of(maker: Output) -> str | None:
    """The scheme on record; None for Algorithm 1 and the keyphrase rule."""
    scheme = maker.option("scheme")
    return scheme if isinstance(scheme, str) and scheme in SCHEMES else None


def kept_told(ids: Numbered, maker: Output, kept: Kept) -> str:
    """How many IDs are those of the file that was kept; nothing where none was."""
    if not kept.ids:
        return ""
    n = sum(one.item_id in kept.ids for _, one in ids)
    return f"; the IDs of {n:,} items are those of {maker.named('keep')}"


def scheme_check(name: str, ids: Numbered, path: Path, maker: Output, findings: Findings, kept: Kept) -> Check:
    """Whether IDs of a scheme were made from what it may read, and come out the same again where that is quick.

    Args:
        name: of the check, for schemes that no sequences have a part in.
        maker: whose scheme is one of `SCHEMES`, and whose record has the hash of the file.
        kept: the IDs that were kept, which the others are made beside; empty where none were.
    """
    scheme = str(scheme_of(maker))
    of_sequences = scheme in OF_SEQUENCES
    name = FROM_TRAINING if of_sequences or scheme in OF_USE else name
    roles = {"items", "rec-tokenizer", "keep", *(["train"] if of_sequences else []), *_models(scheme)}
    strange = [role for role in maker.roles if role not in roles]
    if strange:
        return Check(name, str(path), FAIL, f"{', '.join(strange)} went into them too")
    if of_sequences:
        verdict, told = trained_on(maker, findings)
        if verdict != PASS:
            return Check(name, str(path), verdict, told)
    vectors = _vectors_model(name, path, maker, findings) if scheme in OF_USE else ""
    if isinstance(vectors, Check):
        return vectors
    items_file = findings.find(maker, "items")
    if items_file is None:
        return skipped(name, path, "the items that they were made from are not here")
    train_file = findings.find(maker, "train") if of_sequences else None
    read = f"{items_file}" if train_file is None else f"{items_file} and {train_file.name}"
    if vectors:
        read += f" and a {vectors} of train.jsonl"
    told = f"by the scheme {scheme}, on record from {read} alone" + kept_told(ids, maker, kept)
    if scheme not in _MADE_AGAIN:
        return Check(name, str(path), PASS, f"{told}; not made again")
    sequences = [] if train_file is None else [row.items for row in read_sequences(train_file)]
    items = read_items(items_file)
    try:
        again = scheme_ids(items, sequences, _options(scheme, maker), kept if kept.ids else None)
    except IdgrError as fault:
        return Check(name, str(path), FAIL, f"they cannot be made again from their record: {fault}")
    given = {one.item_id: one.id for _, one in ids}
    new = [items[place] for place in kept.new(items)]
    wrong = sum(given.get(item.item_id) != text for item, text in zip(new, again, strict=True))
    count = f"{len(again):,} new ones" if kept.ids else f"{len(again):,}"
    if wrong:
        return Check(name, str(path), FAIL, f"of {count}, made again from {read}, {wrong:,} differ")
    return Check(name, str(path), PASS, f"{told}; all {count}, made again from those, are equal")


def _models(scheme: str) -> list[str]:
    """What gives vectors, by its role. No model that is read for texts has a role in schemes of words."""
    texts = ["text-vectors"] if scheme in OF_TEXT_VECTORS else []
    return [*texts, *(["item-vectors"] if scheme in OF_USE else [])]


def _vectors_model(name: str, path: Path, maker: Output, findings: Findings) -> Check | str:
    """What the model is called whose item vectors went into the IDs; what is wrong, or not known, with it, if any."""
    if findings.data is None:
        return skipped(name, path, "the data set is not here; name it with --data")
    place = findings.find(maker, "item-vectors")
    if place is None:
        return skipped(name, path, "the model whose item vectors they were made from is not here")
    model = Output(place, read_run(place))
    if model.command not in ITEM_MODELS:
        return skipped(name, path, f"no run.json tells how {place} was made")
    verdicts = [trained_on(model, findings)]
    if model.named("valid") is not None:
        verdicts.append(chosen_on(model, findings))
    for wrong in (FAIL, SKIP):
        for verdict, told in verdicts:
            if verdict == wrong:
                return Check(name, str(path), verdict, f"of {place}, {told}")
    return ITEM_MODELS[model.command]


def _options(scheme: str, maker: Output) -> SchemeOptions:
    """The options on record; for what is not, or is of another type, the defaults."""
    found: dict[str, Any] = {"scheme": scheme}
    usual = SchemeOptions(**found)
    for field in fields(SchemeOptions):
        value = maker.record.get("seed") if field.name == "seed" else maker.option(field.name)
        if type(value) is type(getattr(usual, field.name)):
            found[field.name] = value
    return replace(usual, **found | {"scheme": scheme})


def order_check(ids: Numbered, path: Path, findings: Findings) -> Check | None:
    """Whether IDs that are numbers are in the order in which items occur in whole sequences; None for other IDs."""
    numbers = _numbers(ids)
    if numbers is None:
        return None
    if findings.data is None:
        return skipped(ORDER, path, "the data set is not here; name it with --data")
    pairs = [pair for pair in telling_pairs(read_data(findings.data)) if pair[0] in numbers and pair[1] in numbers]
    if math.sqrt(len(pairs)) <= _DEVIATIONS:
        return skipped(ORDER, path, f"there are {len(pairs)} pairs of items to see it by, too few")
    following = sum(numbers[held_out] < numbers[trained] for held_out, trained in pairs)
    told = (
        f"of {len(pairs):,} items that are first held out, {following:,} have a lower number than the next item of "
        "training; order over whole sequences gives it to all, chance to half"
    )
    bound = len(pairs) / 2 + _DEVIATIONS * math.sqrt(len(pairs)) / 2
    return Check(ORDER, str(path), FAIL if following > bound else PASS, told)


def _numbers(ids: Numbered) -> dict[str, int] | None:
    """The number of each item where all IDs are numbers, with one and the same word before them or none."""
    matches = {one.item_id: _NUMBER.fullmatch(one.id) for _, one in ids}
    found = {item: match for item, match in matches.items() if match is not None}
    if not found or len(found) < len(matches) or len({match[1] for match in found.values()}) > 1:
        return None
    return {item: int(match[2].replace(" ", "")) for item, match in found.items()}


def telling_pairs(data: DataSet) -> list[tuple[str, str]]:
    """Items whose order tells whether whole sequences were numbered, or training sequences.

    Returns:
        Pairs of an item whose first occurrence, over whole sequences, is a held-out one, and the next item whose
        first occurrence is in training, where training alone has them the other way round.
    """
    trained = {sequence.user_id: len(sequence.items) for _, sequence in data.train}
    training = dict.fromkeys(item for _, sequence in data.train for item in sequence.items)
    place = {item: number for number, item in enumerate(training)}
    seen: set[str] = set()
    pairs: list[tuple[str, str]] = []
    waiting: str | None = None
    for user, items in whole_sequences(data).items():
        for position, item in enumerate(items):
            if item in seen:
                continue
            seen.add(item)
            if position >= trained.get(user, 0):
                waiting = item
            elif waiting is not None:
                if place.get(waiting, len(place)) > place[item]:
                    pairs.append((waiting, item))
                waiting = None
    return pairs
