"""What `bench decode` is about: IDs and histories, given or made up."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from idgr.corpus.demo import DemoOptions, metadata
from idgr.corpus.text import plain_text
from idgr.formats.records import ItemId
from idgr.ids.keyphrase import keyphrase_ids
from idgr.models.tokenizer import encode, load_tokenizer


def readable_ids(
    ids: Sequence[ItemId], histories: Iterable[tuple[list[str], str | None]], tokenizer: str | None, model: str | None
) -> tuple[list[str], list[list[int]], list[int | None]]:
    """The IDs that differ under the tokenizer, and histories and targets as places among them.

    Published IDs can have the same tokens twice; what has no ID is left out of the histories.
    """
    rows: list[Hashable] = [record.id for record in ids]
    if tokenizer or model:
        rows = [tuple(row) for row in encode(load_tokenizer(str(model or tokenizer)), [record.id for record in ids])]
    place_of: dict[str, int] = {}
    kept: dict[Hashable, str] = {}
    for record, row in zip(ids, rows, strict=True):
        if row and row not in kept:
            place_of[record.item_id] = len(kept)
            kept[row] = record.id
    shown: list[list[int]] = []
    targets: list[int | None] = []
    for history, target in histories:
        shown.append([place_of[item] for item in history if item in place_of])
        targets.append(None if target is None else place_of.get(target, -1))
    return list(kept.values()), shown, targets


def demo_ids(seed: int) -> list[ItemId]:
    """Keyphrase IDs of the demo's items."""
    shop = metadata(DemoOptions(seed=seed))
    phrases = keyphrase_ids([plain_text(record) for record in shop])
    return [ItemId(str(record["item_id"]), text) for record, text in zip(shop, phrases, strict=True)]


def made_up_histories(item_keys: Sequence[str], users: int, seed: int) -> list[tuple[list[str], None]]:
    """Histories of random items, 1 to 20 of them, most of them short, as real ones are."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.13, size=users), 20)
    return [([item_keys[place] for place in rng.integers(len(item_keys), size=length)], None) for length in lengths]


def draw(
    histories: Sequence[tuple[list[str], str | None]], users: int, seed: int
) -> list[tuple[list[str], str | None]]:
    """So many of the histories at random, in their order; all where there are fewer."""
    if users >= len(histories):
        return list(histories)
    chosen = np.random.default_rng(seed).choice(len(histories), size=users, replace=False)
    return [histories[place] for place in sorted(chosen.tolist())]
