"""What stands between the items of a history that a causal model reads, and ends each ID: EOS, or a newline.

A model that was trained on text alone has hardly seen anything go on behind its EOS, but lists of a thing a line are
everywhere in its training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from idgr.errors import IdgrError
from idgr.models.tokenizer import decode, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEWLINE = "newline"


def newline_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that is a newline and nothing else; None where the tokenizer has none, or spells it otherwise."""
    (row,) = encode(tokenizer, ["\n"])
    return row[0] if len(row) == 1 and decode(tokenizer, [row]) == ["\n"] else None


def separator_token(tokenizer: PreTrainedTokenizerBase, separator: str) -> int:
    """The token of a separator, "eos" or "newline".

    Raises:
        IdgrError: a newline is not one token.
    """
    if separator != NEWLINE:
        eos: int = tokenizer.eos_token_id
        return eos
    token = newline_token(tokenizer)
    if token is None:
        what = "a newline is not one token of its tokenizer"
        raise IdgrError(what, "take --separator eos", where=tokenizer.name_or_path or None)
    return token
