"""The keyphrase rule."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.text import plain_text
from idgr.ids.keyphrase import MOST_WORDS, keyphrase_ids
from idgr.ids.spelling import clean_id

DATASETS = Path(__file__).parents[2].parent / "shared" / "datasets"

CATALOGUE = [
    "title: aurora red nail polish for women; categories: beauty, nails",
    "title: aurora blue nail polish for women; categories: beauty, nails",
    "title: zenith hair dryer with ion filter; categories: beauty, hair",
    "title: zenith hair dryer with cool shot; categories: beauty, hair",
]


def test_words_that_tell_items_apart_in_the_order_of_the_text() -> None:
    ids = keyphrase_ids(CATALOGUE)
    assert "red" in ids[0].split()
    assert "blue" in ids[1].split()
    for text, phrase in zip(CATALOGUE, ids, strict=True):
        words = clean_id(text).split()
        places = [words.index(word) for word in phrase.split()]
        assert places == sorted(places)


def test_names_of_fields_are_no_words() -> None:
    for phrase in keyphrase_ids(CATALOGUE):
        assert not {"title", "categories"} & set(phrase.split())


def test_ids_that_collide_get_more_words_others_then_a_number() -> None:
    ids = keyphrase_ids(["name: corner coffee; city: york"] * 12)
    assert len(set(ids)) == 12
    assert all(phrase.startswith("corner coffee") for phrase in ids)
    assert ids[-1].split()[-1].isdigit()


def test_pairs_for_training_may_repeat() -> None:
    assert len(set(keyphrase_ids(["name: corner coffee"] * 3, unique=False))) == 1
    assert keyphrase_ids(["title: 🎉", "title: a"], unique=False) == ["", "a"]


def test_no_words_no_spaces_and_identical_titles() -> None:
    texts = ["title: 🎉🎉", "title: 🎉🎉", "", "标题: 红色指甲油套装大号", "标题: 红色指甲油套装大号", "title: 紅"]
    ids = keyphrase_ids(texts)
    assert ids[:3] == ["item 1", "item 2", "item 3"]
    assert ids[3] == "红色 指甲 油套 装大"
    assert ids[4] == "红色 指甲 油套 装大 号"
    assert ids[5] == "紅"


def test_only_words_that_the_tokenizer_spells() -> None:
    def ascii_only(texts: Sequence[str]) -> list[bool]:
        return [text.isascii() for text in texts]

    assert keyphrase_ids(["title: café noir 指甲油", "title: 指甲油"], can_spell=ascii_only) == ["noir", "item 1"]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.text(alphabet="aA bé指:; 7🎉-", max_size=12), max_size=12))
def test_ids_are_unique_also_in_case_and_clean(texts: list[str]) -> None:
    ids = keyphrase_ids(texts)
    assert len(ids) == len(texts)
    assert len({phrase.casefold() for phrase in ids}) == len(texts)
    for phrase in ids:
        assert phrase
        assert clean_id(phrase) == phrase
        assert len(phrase.split()) <= MOST_WORDS + 1


@pytest.mark.skipif(not (DATASETS / "beauty").is_dir(), reason="the Beauty data set is not here")
def test_beauty() -> None:
    with gzip.open(DATASETS / "beauty" / "meta.jsonl.gz") as lines:
        texts = [plain_text(orjson.loads(line)) for line in lines]
    ids = keyphrase_ids(texts)
    assert len({phrase.casefold() for phrase in ids}) == 12_101
    assert sum(len(phrase.split()) for phrase in ids) / len(ids) < 5
