"""Vocabularies of the catalogue's own: everything is spelled and read back, and equal texts give equal vocabularies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idgr.errors import IdgrError
from idgr.models.tokenizer import decode, encode, load_tokenizer, train_tokenizer

WORDS = ["quillane nordic poncho", "tavishko harbor bib", "quillane desert pump", "tavishko nordic pump"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([*WORDS, "指甲油 红色", "crème brûlée"], 500)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12))
@example("指甲油 红色 新")
@example("🧼👩‍🔬")
@example("ﬁne ½")
def test_any_text_is_spelled_and_read_back_in_nfkc(tokenizer: Any, text: str) -> None:
    import unicodedata

    row = encode(tokenizer, [text])[0]
    assert tokenizer.unk_token_id not in row
    assert decode(tokenizer, [row]) == [" ".join(unicodedata.normalize("NFKC", text).split())]


def test_special_tokens_in_text_are_not_special(tokenizer: Any) -> None:
    for text in ("</s>", "a </s> b", "<pad>x", "<unk>"):
        row = encode(tokenizer, [text])[0]
        assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(row)


def test_words_that_recur_are_pieces_even_in_a_catalogue_of_ids_alone() -> None:
    tokenizer = train_tokenizer(WORDS, 8000)
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, ["quillane nordic pump"])[0]) == [
        "▁quillane",
        "▁nordic",
        "▁pump",
    ]


def test_equal_texts_give_an_equal_vocabulary_of_at_most_the_wanted_size() -> None:
    texts = [f"{a} {b}" for a in ["lorem", "ipsum", "dolor", "sit", "amet"] for b in ["red", "green", "blue", "white"]]
    first, second = (train_tokenizer(texts, 290) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert len(first) <= 290


def test_a_saved_tokenizer_is_the_same(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    texts = ["quillane pump", "新 色", "a </s> b"]
    assert encode(again, texts) == encode(tokenizer, texts)
    assert (again.pad_token_id, again.eos_token_id, again.unk_token_id) == (0, 1, 2)


def test_a_catalogue_without_text_has_no_vocabulary() -> None:
    with pytest.raises(IdgrError, match="no text to learn a vocabulary from"):
        train_tokenizer(["", "  "], 400)


def test_long_texts_are_cut(tokenizer: Any) -> None:
    whole = encode(tokenizer, [" ".join(WORDS)])[0]
    assert encode(tokenizer, [" ".join(WORDS)], max_tokens=5) == [whole[:5]]
