"""What became of the IDs between two rounds: which items have another ID now, and which came or went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idgr.formats.records import ItemId


@dataclass(frozen=True, slots=True)
class Change:
    """An item whose ID is not what it was; None stands for an item that the one or the other does not have."""

    item_id: str
    before: str | None
    after: str | None

    @property
    def of_both(self) -> bool:
        """Whether both have the item, so that its ID has changed."""
        return self.before is not None and self.after is not None


def id_changes(before: Sequence[ItemId], after: Sequence[ItemId]) -> list[Change]:
    """The items whose ID differs or that `after` alone has, in its order, then those that only `before` has."""
    old = {record.item_id: record.id for record in before}
    new = {record.item_id: record.id for record in after}
    changed = [Change(item, old.get(item), text) for item, text in new.items() if old.get(item) != text]
    return changed + [Change(item, text, None) for item, text in old.items() if item not in new]


def changed_share(before: Sequence[ItemId], after: Sequence[ItemId]) -> float:
    """The share of the items that both have whose ID differs; 0 where there are none."""
    old = {record.item_id: record.id for record in before}
    both = [record for record in after if record.item_id in old]
    return sum(old[record.item_id] != record.id for record in both) / max(len(both), 1)
