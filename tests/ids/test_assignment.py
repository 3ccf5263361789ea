"""Algorithm 1 in bulk against item by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.errors import IdgrError
from idgr.ids.assignment import Assigned, assign

Table = dict[tuple[int, int], list[str]]


def spell_all(texts: Sequence[str]) -> list[bool]:
    return [True] * len(texts)


def one_by_one(sources: Sequence[int], table: Table, n_attempts: int) -> list[Assigned]:
    """The plain algorithm: an item after the other, an attempt after the other."""
    taken: set[str] = set()
    chosen = []
    for source in sources:
        found = None
        for attempt in range(1, n_attempts + 1):
            free = [text for text in table[source, attempt] if text.casefold() not in taken]
            if free:
                found = Assigned(free[0], attempt)
                break
        if found is None:
            texts = [text for attempt in range(1, n_attempts + 1) for text in table[source, attempt]]
            stem, number = (texts[0], 2) if texts else ("item", 1)
            while f"{stem} {number}".casefold() in taken:
                number += 1
            found = Assigned(f"{stem} {number}", None)
        taken.add(found.text.casefold())
        chosen.append(found)
    return chosen


def recorded(table: Table) -> tuple[Callable[[list[tuple[int, int]]], list[list[str]]], list[list[tuple[int, int]]]]:
    asked: list[list[tuple[int, int]]] = []

    def propose(wanted: list[tuple[int, int]]) -> list[list[str]]:
        asked.append(wanted)
        return [table[pair] for pair in wanted]

    return propose, asked


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[int], Table, int]:
    n_attempts = draw(st.integers(1, 4))
    n_sources = draw(st.integers(1, 6))
    sources = draw(st.lists(st.integers(0, n_sources - 1), min_size=1, max_size=14))
    texts = st.lists(st.sampled_from(["a", "A", "b", "c", "d", "a 2", "item 1", "e f"]), max_size=3)
    table = {(source, attempt): draw(texts) for source in range(n_sources) for attempt in range(1, n_attempts + 1)}
    return sources, table, n_attempts


@settings(derandomize=True, deadline=None, max_examples=400)
@given(catalogues())
def test_bulk_gives_what_item_by_item_gives(catalogue: tuple[list[int], Table, int]) -> None:
    sources, table, n_attempts = catalogue
    propose, asked = recorded(table)
    assert assign(sources, propose, n_attempts, spell_all) == one_by_one(sources, table, n_attempts)
    pairs = [pair for wanted in asked for pair in wanted]
    assert len(set(pairs)) == len(pairs)  # nothing is searched twice


def test_an_item_that_moves_on_upsets_the_first_choice_of_a_later_one() -> None:
    # Item 1 loses "a" to item 0 and takes "b" at its second attempt, which item 2 would have had at its first.
    table = {(0, 1): ["a"], (1, 1): ["a"], (1, 2): ["b"], (2, 1): ["b"], (2, 2): ["c"]}
    propose, asked = recorded(table)
    chosen = assign([0, 1, 2], propose, 2, spell_all)
    assert chosen == [Assigned("a", 1), Assigned("b", 2), Assigned("c", 2)]
    assert asked[0] == [(0, 1), (1, 1), (2, 1)]  # first attempts in one go


def test_ids_that_differ_only_by_case_are_the_same() -> None:
    table = {(0, 1): ["Straße"], (1, 1): ["STRASSE", "strasse west"]}
    assert [chosen.text for chosen in assign([0, 1], recorded(table)[0], 1, spell_all)] == ["Straße", "strasse west"]


def test_numbers_follow_when_all_attempts_fail() -> None:
    table = {(0, 1): ["coffee", "coffee 3"], (0, 2): []}
    chosen = assign([0] * 5, recorded(table)[0], 2, spell_all)
    assert [choice.text for choice in chosen] == ["coffee", "coffee 3", "coffee 2", "coffee 4", "coffee 5"]
    assert [choice.attempt for choice in chosen] == [1, 1, None, None, None]


def test_an_item_without_any_candidate_is_numbered_too() -> None:
    chosen = assign([0, 0], recorded({(0, 1): []})[0], 1, spell_all)
    assert [choice.text for choice in chosen] == ["item 1", "item 2"]


def test_without_numbers_an_exhausted_item_is_an_error() -> None:
    with pytest.raises(IdgrError, match=r"item 2 .*--max-length-rounds"):
        assign([0, 0], recorded({(0, 1): ["a"]})[0], 1, spell_all, numbers=False)


def test_numbers_that_cannot_be_spelled_are_passed_over_and_end_in_an_error() -> None:
    propose, _ = recorded({(0, 1): ["tea"]})
    odd = assign([0] * 3, propose, 1, lambda texts: [text[-1] in "aeiou13579" for text in texts])
    assert [choice.text for choice in odd] == ["tea", "tea 3", "tea 5"]
    with pytest.raises(IdgrError, match="cannot spell"):
        assign([0] * 2, propose, 1, lambda texts: [not text[-1].isdigit() for text in texts])
