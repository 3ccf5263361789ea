"""Several prepared data sets as one, for training on all of them: keys are prefixed by their set's name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from idgr.corpus.ordering import Histories
from idgr.corpus.preparation import Prepared
from idgr.corpus.splitting import NONE, Split
from idgr.corpus.statistics import describe
from idgr.errors import IdgrError
from idgr.formats.records import Item, Query, read_items, read_queries, read_sequences


@dataclass
class _Cut:
    """A user's whole history and where it is split."""

    items: list[str]
    train_end: int = 0
    valid_at: int = NONE
    test_at: int = NONE


def fuse(folders: Sequence[Path], *, max_users: int | None = None, seed: int = 0) -> Prepared:
    """Join prepared data sets. A user or item `x` of the folder `beauty` becomes `beauty/x`; splits stay as they are.

    Args:
        max_users: of a folder with more users, a random choice of so many, in their order, and the items that they
            have; None: all users, and the whole catalogue.
        seed: of that choice, which depends on nothing else but the folder's users.

    Raises:
        IdgrError: a folder lacks a file, its files disagree, or two folders have the same name.
    """
    items: list[Item] = []
    cuts: dict[str, _Cut] = {}
    names: set[str] = set()
    for folder in folders:
        name = folder.resolve().name
        if name in names:
            raise IdgrError(f"another data set is called {name!r} too", "rename one of the folders", where=folder)
        names.add(name)
        catalogue = read_items(folder / "items.jsonl")
        own = _read_cuts(folder, {item.item_id for item in catalogue})
        if max_users is not None and max_users < len(own):
            own = _draw(own, max_users, seed)
            had = {key for cut in own.values() for key in cut.items}
            catalogue = [item for item in catalogue if item.item_id in had]
        items += [replace(item, item_id=f"{name}/{item.item_id}") for item in catalogue]
        for user, cut in own.items():
            cut.items = [f"{name}/{item}" for item in cut.items]
            cuts[f"{name}/{user}"] = cut
    split = _split(cuts)
    stats = describe(split) | {"catalogue": len(items), "fused": sorted(names)}
    return Prepared(items, split, stats)


def _draw(cuts: dict[str, _Cut], n_users: int, seed: int) -> dict[str, _Cut]:
    users = list(cuts)
    chosen = np.sort(np.random.default_rng([seed, 1]).choice(len(users), n_users, replace=False))
    return {users[place]: cuts[users[place]] for place in chosen}


def _read_cuts(folder: Path, known: set[str]) -> dict[str, _Cut]:
    cuts = {
        sequence.user_id: _Cut(sequence.items, train_end=len(sequence.items))
        for sequence in read_sequences(folder / "train.jsonl", known)
    }
    for name in ("valid", "test"):
        path = folder / f"{name}.jsonl"
        # A split by date may leave no validation targets.
        for query in read_queries(path, known, need_target=True, allow_empty=name == "valid"):
            cut = cuts.setdefault(query.user_id, _Cut([]))
            _extend(cut, query, path)
            if name == "valid":
                cut.valid_at = len(query.history)
            else:
                cut.test_at = len(query.history)
    return cuts


def _extend(cut: _Cut, query: Query, path: Path) -> None:
    """Make the user's history reach to the query's target, which must go on from what is known of it."""
    whole = [*query.history, query.target or ""]
    if whole[: len(cut.items)] != cut.items:
        raise IdgrError(
            f"the history of user {query.user_id!r} does not go on from the files before it",
            "prepare the data set again",
            where=path,
        )
    cut.items = whole


def _split(cuts: dict[str, _Cut]) -> Split:
    codes: dict[str, int] = {}
    item = [codes.setdefault(key, len(codes)) for cut in cuts.values() for key in cut.items]
    start = np.concatenate([[0], np.cumsum([len(cut.items) for cut in cuts.values()])]).astype(np.int64)
    places = np.arange(len(item), dtype=np.int64)
    return Split(
        Histories(list(cuts), list(codes), start, np.array(item, dtype=np.int32), places),
        train_end=np.array([cut.train_end for cut in cuts.values()]),
        valid_at=np.array([cut.valid_at for cut in cuts.values()]),
        test_at=np.array([cut.test_at for cut in cuts.values()]),
    )
