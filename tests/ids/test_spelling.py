"""What an ID may look like."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from idgr.ids.spelling import can_spell, clean_id
from idgr.models.tokenizer import encode, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(["red nail polish 5 ml", "blue hair dryer 1200 watt", "指甲油"], 400)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("chi pro: hair-dryer, (2 pack)!", "chi pro hair dryer 2 pack"),
        ("snake_case__id", "snake case id"),
        ("指甲油，红色", "指甲油 红色"),
        ("हिन्दी किताब।", "हिन्दी किताब"),
        ("cafe\u0301 🎉 olé", "café olé"),
        ("\u0301 mark first", "mark first"),
        ("ＨＰ ５", "HP 5"),
        ("</s><unk> 🎉", "s unk"),
        ("🎉 !?", ""),
        ("", ""),
    ],
)
def test_words_of_letters_and_digits(text: str, wanted: str) -> None:
    assert clean_id(text) == wanted


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_cleaning_again_changes_nothing(text: str) -> None:
    cleaned = clean_id(text)
    assert clean_id(cleaned) == cleaned
    assert cleaned == " ".join(cleaned.split())


@settings(derandomize=True, deadline=None)
@given(st.lists(st.text(), min_size=2, max_size=5, unique=True))
def test_texts_that_are_spelled_have_token_sequences_of_their_own(
    tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> None:
    spelled = [text for text, right in zip(texts, can_spell(tokenizer, texts), strict=True) if right]
    rows = [tuple(row) for row in encode(tokenizer, spelled)]
    assert len(set(rows)) == len(spelled)


def test_what_a_tokenizer_changes_is_not_spelled(tokenizer: PreTrainedTokenizerBase) -> None:
    assert can_spell(tokenizer, ["nail polish", "指甲油", "Ⅳ", "", "a</s>b", "two  spaces"]) == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
