"""What an ID may look like: letters and digits in words, which a tokenizer can write and read back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from idgr.models.tokenizer import decode, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NOT_ASCII_WORD = re.compile(r"[^0-9A-Za-z]+")


def clean_id(text: str) -> str:
    """The words of a text, NFKC: every run of characters that are neither letters nor digits becomes one space.

    A combining mark belongs to the letter before it: without that, scripts such as Devanagari would fall apart.
    """
    if text.isascii():
        return _NOT_ASCII_WORD.sub(" ", text).strip()
    kept: list[str] = []
    for character in unicodedata.normalize("NFKC", text):
        is_mark = unicodedata.category(character)[0] == "M" and bool(kept) and kept[-1] != " "
        kept.append(character if character.isalnum() or is_mark else " ")
    return " ".join("".join(kept).split())


def fold(text: str) -> str:
    """What two IDs must not share: IDs that differ only by case are told apart by no one."""
    return text.casefold()


def can_spell(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[bool]:
    """Whether each text comes back unchanged from its tokens, and so none of them is unknown or special.

    Texts that all come back have token sequences that all differ, since each sequence gives one text.
    """
    if not texts:
        return []
    rows = encode(tokenizer, texts)
    return [bool(row) and back == text for row, back, text in zip(rows, decode(tokenizer, rows), texts, strict=True)]
