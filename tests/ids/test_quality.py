"""Shares of what is wrong with IDs, by hand."""

from __future__ import annotations

import pytest

from idgr.formats.records import ItemId
from idgr.ids.quality import MIN_IDS, IdQuality, id_quality

TEXTS = {"a": "title: red tea; brand: acme", "b": "title: green tea", "c": "", "z": "红色衬衫 shirt"}


def test_the_shares() -> None:
    ids = [
        ItemId("a", "red tea", attempt=1),
        ItemId("a", "Tea tea pot", attempt=2),
        ItemId("b", "green tea 2"),
        ItemId("c", "c of no text"),
        ItemId("z", "红色 shirt", attempt=1),
    ]
    found = id_quality(ids, TEXTS)
    # 2 + 3 + 2 + 2 words of items with a text, of which `pot` is strange; a number that makes an ID unique is no word.
    assert (found.n_ids, found.repeating, found.strange_words) == (5, 1 / 5, 1 / 9)
    assert found.second_attempts == 2 / 4, "a numbered ID found none in the attempts either"
    assert "of 5 IDs 20.0% repeat a word and 50.0% needed a second attempt; 11.1% of their words" in found.told


def test_ids_from_elsewhere_tell_no_attempts() -> None:
    assert id_quality([ItemId("a", "red tea"), ItemId("b", "green tea")], TEXTS).second_attempts == 0


@pytest.mark.parametrize(
    ("shares", "doubtful", "junk"),
    [
        ((0.11, 0.11, 0.112), False, False),  # what the authors published
        ((0.0, 0.0, 0.62), True, False),
        ((0.3, 0.0, 0.0), True, False),
        ((0.6, 0.0, 0.0), True, True),
        ((0.0, 0.6, 0.0), True, True),
    ],
)
def test_when_ids_are_junk(shares: tuple[float, float, float], doubtful: bool, junk: bool) -> None:
    found = IdQuality(MIN_IDS, *shares)
    assert (found.is_doubtful, found.is_junk) == (doubtful, junk)
    assert not IdQuality(MIN_IDS - 1, *shares).is_junk
