"""The mutation test of `idgr audit --mutate`: had other items been held out, training would leave the same bytes.

Scratch copies of a part of a prepared folder get random items in place of the held-out ones; the training stages run on
the original and on the copies, with a tiny set-up, and every file is compared. What is claimed is exact:

- Without `--valid`, other held-out items (validation and test) change no byte of IDs, generators and recommender.
- With `--valid`, other test items change no byte either, the epoch that is kept included.
- With `--valid`, other validation items change no epoch's loss. They may change which epoch is kept: that is their use.
- A prompt does not change where only its target does, and a word that only a new test item's text has (the canary)
  changes nothing but that item's own ID.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from idgr.evaluation.audit.checks import FAIL, PASS, Check, judged, skipped
from idgr.evaluation.audit.data import DataSet, read_data, whole_sequences
from idgr.formats.jsonl import write_jsonl
from idgr.formats.rec_folder import IDS
from idgr.formats.records import Item, Query
from idgr.formats.run_info import hash_folder, sha256_file
from idgr.progress import log
from idgr.stages import gen_ids, init_gen, recommend, train_gen, train_rec

USERS, OTHER_ITEMS = 100, 50
CANARY = "zyxcanaryq"
_VALIDATED = ("rec-valid",)
# One attempt and then a number: a generator that has hardly learnt says the same of many items.
_ATTEMPTS: dict[str, Any] = {"penalty_step": 1.0, "max_length_rounds": 1, "max_text_tokens": 64}
_SIZE: dict[str, Any] = {"epochs": 2, "epoch_instances": 64, "batch_size": 32}


def mutation_checks(data: Path, seed: int) -> list[Check]:
    """Train on a part of a prepared folder and on mutated copies, and compare.

    Args:
        data: a folder of `idgr prep`.
        seed: of the users, of the items put in, and of the training.

    Raises:
        IdgrError: a training stage refuses the data.
    """
    whole = read_data(data)
    rng = np.random.default_rng(seed)
    part = _part(whole, rng)
    subject = f"{data} ({len({row.user_id for _, row in part.train}):,} users)"
    if not part.test or not part.valid or len(part.items) < 2:
        return [skipped("mutation test", subject, "there are no validation or test items, or no others to put in")]
    log(f"audit: mutation test on {subject}")
    with tempfile.TemporaryDirectory(prefix="idgr-audit-") as scratch:
        room = Path(scratch)
        cases = {
            "original": part,
            "test": replace(part, test=_mutated(part.test, part.items, rng)),
            "both": _both_mutated(part, rng),
            "canary": _with_canary(part),
        }
        for name, case in cases.items():
            _write(case, room / name)
        for name in ("original", "both"):
            _train(room / name, seed)
        for name in ("original", "test", "both"):
            _train_with_valid(room / name, room / name.replace("test", "original"), seed)
        original, stages = room / "original", ("gen", "ids.jsonl", "rec", "gen-2")
        return [
            _prep_check(part, cases["both"], room, subject),
            _same_check("training does not depend on held-out items", original, room / "both", stages, subject),
            _same_check("the epoch kept does not depend on test items", original, room / "test", _VALIDATED, subject),
            _choice_check(original, room / "both", subject),
            _prompt_check(room, subject),
            _canary_check(room, seed, subject),
        ]


def _part(data: DataSet, rng: np.random.Generator) -> DataSet:
    """Some users who have a test item, with their items and some others."""
    users = list(dict.fromkeys(query.user_id for _, query in data.test))
    chosen = {users[place] for place in sorted(rng.permutation(len(users))[:USERS])}
    part = DataSet(
        data.folder,
        data.items,
        [row for row in data.train if row[1].user_id in chosen],
        [row for row in data.valid if row[1].user_id in chosen],
        [row for row in data.test if row[1].user_id in chosen],
    )
    used = {item for row in whole_sequences(part).values() for item in row}
    others = [place for place, (_, item) in enumerate(data.items) if item.item_id not in used]
    extra = {others[place] for place in rng.permutation(len(others))[:OTHER_ITEMS]}
    items = [row for place, row in enumerate(data.items) if row[1].item_id in used or place in extra]
    return replace(part, items=items)


def _mutated(
    rows: list[tuple[int, Query]], items: list[tuple[int, Item]], rng: np.random.Generator
) -> list[tuple[int, Query]]:
    """The same queries with another target each."""
    keys = [item.item_id for _, item in items]
    changed = []
    for number, query in rows:
        target = query.target
        while target == query.target:
            target = keys[int(rng.integers(len(keys)))]
        changed.append((number, replace(query, target=target)))
    return changed


def _both_mutated(part: DataSet, rng: np.random.Generator) -> DataSet:
    """Other validation and test targets; the validation target is in the test's history too, and changes there."""
    valid = _mutated(part.valid, part.items, rng)
    place = {query.user_id: (len(query.history), query.target) for _, query in valid}
    test = []
    for number, query in _mutated(part.test, part.items, rng):
        at, item = place.get(query.user_id, (len(query.history), None))
        history = list(query.history)
        if item is not None and at < len(history):
            history[at] = item
        test.append((number, replace(query, history=history)))
    return replace(part, valid=valid, test=test)


def _with_canary(part: DataSet) -> DataSet:
    """A new item, at the end of the catalogue, that only one user's test target is."""
    items = [*part.items, (0, Item(CANARY, f"title: {CANARY}"))]
    (number, first), *rest = part.test
    return replace(part, items=items, test=[(number, replace(first, target=CANARY)), *rest])


def _write(data: DataSet, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("items", "train", "valid", "test"):
        write_jsonl(folder / f"{name}.jsonl", (row.row() for _, row in getattr(data, name)))


def _train(folder: Path, seed: int) -> None:
    """All training stages without `--valid`, prompts with user IDs: those are where the paper's code leaks."""
    items, train, ids, gen, rec = (
        str(folder / name) for name in ("items.jsonl", "train.jsonl", "ids.jsonl", "gen", "rec")
    )
    init_gen.run(init_gen.Options(items=items, output=gen, epochs=1, max_text_tokens=64, seed=seed, device="cpu"))
    gen_ids.run(gen_ids.Options(items=items, output=ids, model=gen, device="cpu", **_ATTEMPTS))
    _train_rec(train, ids, rec, gen, items, seed)
    train_gen.run(
        train_gen.Options(
            train=train, items=items, ids=ids, rec=rec, gen=gen, output=str(folder / "gen-2"),
            epochs=1, epoch_instances=32, seed=seed, device="cpu",
        )
    )  # fmt: skip


def _train_rec(train: str, ids: str, rec: str, gen: str, items: str, seed: int) -> None:
    """With the softmax over the vocabulary, since under that over the tree's children a new item is a rival of all."""
    train_rec.run(
        train_rec.Options(
            train=train, ids=ids, output=rec, tokenizer=gen, user_ids="history", gen=gen, items=items,
            objective="full", seed=seed, device="cpu", **_SIZE,
        )
    )  # fmt: skip


def _train_with_valid(folder: Path, made: Path, seed: int) -> None:
    """The recommender with `--valid`, on IDs that `made` holds."""
    train_rec.run(
        train_rec.Options(
            train=str(folder / "train.jsonl"), ids=str(made / "ids.jsonl"), output=str(folder / "rec-valid"),
            valid=str(folder / "valid.jsonl"), tokenizer=str(made / "gen"), objective="trie", seed=seed,
            device="cpu", **_SIZE,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class _Compared:
    n_files: int
    different: list[str]


def _compare(first: Path, second: Path, names: Iterable[str]) -> _Compared:
    """Every file but run.json and the log, which hold times of day."""
    different, n_files = [], 0
    for name in names:
        hashes = [
            hash_folder(place) if place.is_dir() else {"": sha256_file(place)}
            for place in (first / name, second / name)
        ]
        n_files += len(hashes[0])
        for file in sorted(hashes[0].keys() | hashes[1].keys()):
            if hashes[0].get(file) != hashes[1].get(file):
                different.append(f"{name}/{file} differs" if file else f"{name} differs")
    return _Compared(n_files, different)


def _same_check(name: str, first: Path, second: Path, names: Iterable[str], subject: str) -> Check:
    names = list(names)
    found = _compare(first, second, names)
    told = (
        f"{found.n_files} files of {', '.join(names)} are the same, byte for byte, after every such item was replaced"
    )
    return judged(name, subject, found.different, told)


def _prep_check(part: DataSet, mutated: DataSet, room: Path, subject: str) -> Check:
    """Prepare the users' whole sequences, as they are and with other held-out items."""
    from idgr.corpus.preparation import PrepOptions, prepare, write_prepared
    from idgr.corpus.sources.jsonl import read_events

    name = "prep gives the same training files"
    catalogue = {item.item_id: item for _, item in part.items}
    trained = {row.user_id: len(row.items) for _, row in part.train}
    for place, case in (("prep-1", part), ("prep-2", mutated)):
        sequences = whole_sequences(case)
        if any(len(items) != trained.get(user, 0) + 2 for user, items in sequences.items()):
            return skipped(name, subject, "the split is not leave-one-out, so sequences do not tell it")
        source = room / f"{place}.jsonl"
        write_jsonl(source, ({"user_id": user, "items": items} for user, items in sequences.items()))
        (room / place).mkdir()
        options = PrepOptions(allow_sorted=True, keep_all_items=True)
        write_prepared(room / place, prepare(read_events(source), lambda _: catalogue, options))
    return _same_check(name, room / "prep-1", room / "prep-2", ("items.jsonl", "train.jsonl"), subject)


def _choice_check(first: Path, second: Path, subject: str) -> Check:
    name = "validation items choose the epoch and nothing else"
    losses = [[row["loss"] for row in _lines(folder / "rec-valid" / "log.jsonl")] for folder in (first, second)]
    kept = [
        orjson.loads((folder / "rec-valid" / "run.json").read_bytes())["kept"]["epoch"] for folder in (first, second)
    ]
    told = f"the losses of {len(losses[0])} epochs are the same; kept were epochs {kept[0]} and {kept[1]}"
    if losses[0] != losses[1]:
        return Check(name, subject, FAIL, f"the losses of the epochs differ: {losses[0]} and {losses[1]}")
    return Check(name, subject, PASS, told)


def _prompt_check(room: Path, subject: str) -> Check:
    made = room / "original"
    for name in ("original", "test"):
        _ask(room / name, made, room / name)
    found = _compare(room / "original", room / "test", ("prompts.jsonl", "recs.jsonl"))
    users = len(_lines(room / "test" / "prompts.jsonl"))
    told = f"{users:,} prompts and lists are the same after only the targets were replaced"
    return judged("a prompt does not depend on its target", subject, found.different, told)


def _canary_check(room: Path, seed: int, subject: str) -> Check:
    """The canary's IDs come from the original's generator: its vocabulary is learnt from the whole catalogue's text."""
    folder, made = room / "canary", room / "original"
    items, ids, gen = str(folder / "items.jsonl"), str(folder / "ids.jsonl"), str(made / "gen")
    gen_ids.run(gen_ids.Options(items=items, output=ids, model=gen, device="cpu", **_ATTEMPTS))
    _train_rec(str(folder / "train.jsonl"), ids, str(folder / "rec"), gen, items, seed)
    _ask(folder, folder, folder, gen=gen)
    # The recommender's copy of the IDs is looked at below, as the IDs themselves.
    faults = [fault for fault in _compare(made, folder, ("rec",)).different if not fault.startswith(f"rec/{IDS} ")]
    # The same for everyone, and for the user whose target the canary is.
    faults += _compare(made, folder, ("prompts.jsonl",)).different
    before, after = _lines(made / "ids.jsonl"), _lines(folder / "ids.jsonl")
    faults += [
        f"the ID of {row['item_id']!r} differs" for row, other in zip(before, after, strict=False) if row != other
    ]
    faults += [f"the ID of {row['item_id']!r} holds it" for row in before if CANARY in row["id"]]
    told = (
        f"the word {CANARY!r} in the text of one user's test item left the recommender, all prompts and the IDs of "
        f"{len(before):,} other items as they were; its own ID is {after[-1]['id']!r}"
    )
    return judged("a canary word reaches its own ID only", subject, faults, told)


def _ask(folder: Path, made: Path, output: Path, gen: str | None = None) -> None:
    read = {"histories": folder / "test.jsonl", "items": folder / "items.jsonl", "gen": gen or made / "gen"}
    read |= {"rec": made / "rec", "ids": made / "ids.jsonl"}
    written = {"output": output / "recs.jsonl", "prompts": output / "prompts.jsonl"}
    paths: dict[str, Any] = {name: str(path) for name, path in (read | written).items()}
    recommend.run(recommend.Options(device="cpu", **paths))


def _lines(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
