"""IDs that items have already and keep, for a catalogue that grows: new items get names that fit around them.

What a name must fit around is every line of the file, those of items that are gone too: a recommender that was trained
on it has learnt what such a name stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from idgr.errors import IdgrError, faulty_line
from idgr.formats.jsonl import Lines, parse_object
from idgr.formats.records import Item, ItemId
from idgr.ids.spelling import can_spell, fold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Kept:
    """The lines of a file of IDs, by item; none where all items get new IDs."""

    ids: dict[str, ItemId] = field(default_factory=dict)

    @property
    def taken(self) -> list[str]:
        """The names that no new item may have."""
        return [record.id for record in self.ids.values()]

    def new(self, items: Sequence[Item]) -> list[int]:
        """The places of the items that have no ID yet."""
        return [place for place, item in enumerate(items) if item.item_id not in self.ids]

    def gone(self, items: Iterable[Item]) -> int:
        """How many lines are of items that are not among these."""
        return len(self.ids.keys() - {item.item_id for item in items})

    def with_new(self, items: Iterable[Item], made: Iterable[ItemId]) -> list[ItemId]:
        """The IDs of all items, in their order; `made` are those of the new ones."""
        rest = iter(made)
        return [self.ids[item.item_id] if item.item_id in self.ids else next(rest) for item in items]


def read_kept(path: str, tokenizer: PreTrainedTokenizerBase | None = None) -> Kept:
    """Read IDs that are to stay as they are.

    Args:
        tokenizer: the one that is to read all IDs, if it is known.

    Raises:
        IdgrError: naming the line that is malformed, repeats an item, has an ID that differs from another one by case
            or white space only, or one that the tokenizer does not read back.
    """
    lines = Lines(path)
    found: dict[str, ItemId] = {}
    line_of: dict[str, int] = {}  # by ID, folded
    for number, line in lines:
        row = parse_object(lines.path, number, line)
        try:
            record = ItemId.parse(row)
            if record.item_id in found:
                raise ValueError(f"duplicate item_id {record.item_id!r}; keep one record of each")
            before = line_of.setdefault(_folded(record), number)
            if before != number:
                raise ValueError(f"the ID {record.id!r} is also that of line {before}; give one of the two another")
        except ValueError as fault:
            raise faulty_line(fault, lines.path, number) from None
        found[record.item_id] = record
    if tokenizer is not None:
        records = list(found.values())
        for record, right in zip(records, can_spell(tokenizer, [record.id for record in records]), strict=True):
            if not right:
                raise IdgrError(
                    f"the recommender's tokenizer does not read back the ID {record.id!r}",
                    "give --rec-tokenizer the folder of the recommender that was trained on these IDs",
                    where=path,
                    line=line_of[_folded(record)],
                )
    return Kept(found)


def _folded(record: ItemId) -> str:
    return fold(" ".join(record.id.split()))
