"""Algorithm 1: every item gets the first of its candidates that no item before it has taken.

The candidates of an attempt do not depend on the IDs taken, only the choice does. So candidates are asked for in bulk,
for all items that would need them as far as is known, until the choice is exactly that of going item by item.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from idgr.errors import IdgrError
from idgr.ids.spelling import fold

NAMELESS = "item"
_UNSPELLABLE_NUMBERS = 100


@dataclass(frozen=True, slots=True)
class Assigned:
    """An item's ID and the attempt, from 1, that gave it; None where all failed and a number made it unique."""

    text: str
    attempt: int | None


def assign(
    sources: Sequence[int],
    propose: Callable[[list[tuple[int, int]]], list[list[str]]],
    n_attempts: int,
    can_spell: Callable[[Sequence[str]], list[bool]],
    *,
    numbers: bool = True,
    taken: Iterable[str] = (),
) -> list[Assigned]:
    """Choose an ID for each item, in order, as if item by item.

    An item that finds no free candidate in `n_attempts` attempts gets its first candidate with the lowest free
    number after it, such as "coffee bakery 2", or "item 1" and so on where it has no candidate at all.

    Args:
        sources: what each item's candidates come from, as a number; items with equal sources share candidates.
        propose: for pairs (source, attempt from 1), the valid candidates of each in the order of preference.
        n_attempts: how many attempts a source has.
        can_spell: whether each text is a valid ID; asked for numbered IDs.
        numbers: whether to number; otherwise an item without a free candidate is an error.
        taken: IDs that are not free from the start.

    Raises:
        IdgrError: there is no free candidate for an item, and a number is not wanted or does not help.
    """
    known: dict[int, list[list[str]]] = {}
    used = set(map(fold, taken))
    last_number: dict[str, int] = {}
    assigned: list[Assigned] = []
    while len(assigned) < len(sources):
        missing: dict[tuple[int, int], None] = {}
        # What items behind the first undecided one will take, unless that one upsets it: a guess, for asking in bulk.
        expected: set[str] = set()
        for place in range(len(assigned), len(sources)):
            attempts = known.get(sources[place], [])
            choice = _first_free(attempts, used, expected)
            if choice is None and len(attempts) < n_attempts:
                missing[sources[place], len(attempts) + 1] = None
            if missing:
                if choice is not None:
                    expected.add(fold(choice.text))
                continue
            if choice is None:
                if not numbers:
                    raise IdgrError(
                        f"item {place + 1} has no free candidate in {n_attempts} attempts",
                        "raise --max-length-rounds, or let IDs be numbered with --exhausted number",
                    )
                choice = Assigned(_numbered(attempts, used, last_number, can_spell), None)
            used.add(fold(choice.text))
            assigned.append(choice)
        wanted = list(missing)
        for (source, _), texts in zip(wanted, propose(wanted) if wanted else [], strict=True):
            known.setdefault(source, []).append(texts)
    return assigned


def _first_free(attempts: list[list[str]], taken: Container[str], expected: Container[str]) -> Assigned | None:
    for attempt, texts in enumerate(attempts, start=1):
        for text in texts:
            folded = fold(text)
            if folded not in taken and folded not in expected:
                return Assigned(text, attempt)
    return None


def _numbered(
    attempts: list[list[str]],
    taken: Container[str],
    last_number: dict[str, int],
    can_spell: Callable[[Sequence[str]], list[bool]],
) -> str:
    stem = next((text for texts in attempts for text in texts), NAMELESS)
    number = last_number.get(stem, 0 if stem == NAMELESS else 1)
    unspellable = 0
    while unspellable < _UNSPELLABLE_NUMBERS:
        number += 1
        text = f"{stem} {number}"
        if fold(text) in taken:
            continue
        if can_spell([text])[0]:
            last_number[stem] = number
            return text
        unspellable += 1
    raise IdgrError(
        f"the recommender's tokenizer cannot spell {text!r}", "give --rec-tokenizer one that spells letters and digits"
    )
