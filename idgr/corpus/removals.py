"""What `prep` leaves out of the events, step by step and why: events, and users and items that have none left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from idgr.corpus.events import Events
from idgr.corpus.times import Int32s

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Removal:
    """A step that left something out: why, and how much."""

    why: str
    events: int
    users: int
    items: int

    def row(self) -> dict[str, Any]:
        return {"why": self.why, "events": self.events, "users": self.users, "items": self.items}

    def told(self) -> str:
        return (
            f"left out {self.events:,} events ({self.why}), and with them all of {self.users:,} users and "
            f"{self.items:,} items"
        )


class Removals:
    """Takes down the steps, and tells each that left something out."""

    def __init__(self, events: Events, tell: Tell) -> None:
        self._tell, self.steps = tell, list[Removal]()
        self._left = _count(len(events), events.user, events.item)
        if events.without_key:
            self._add(Removal("rows without a user or an item", events.without_key, 0, 0))
        if events.below_rating[0]:
            self._add(Removal("rated below --min-rating", *events.below_rating))

    def note(self, why: str, events: Events) -> None:
        """What is left after a step is `events`."""
        self.note_left(why, _count(len(events), events.user, events.item))

    def note_left(self, why: str, left: tuple[int, int, int]) -> None:
        """What is left after a step are so many events, users and items."""
        gone = [before - after for before, after in zip(self._left, left, strict=True)]
        self._left = left
        if gone[0]:
            self._add(Removal(why, *gone))

    def _add(self, step: Removal) -> None:
        self.steps.append(step)
        self._tell(step.told())

    def rows(self) -> list[dict[str, Any]]:
        return [step.row() for step in self.steps]


def _count(n_events: int, user: Int32s, item: Int32s) -> tuple[int, int, int]:
    return n_events, int(np.count_nonzero(np.bincount(user))), int(np.count_nonzero(np.bincount(item)))
