"""Words that a tokenizer would cut into pieces, made tokens of their own, with rows in the model's embeddings and head.

An index word such as "aar" then costs one step of a search and one place of a history, whatever the vocabulary that a
model came with (LLM-BS writes such words <s1_17>).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from idgr.models.tokenizer import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from idgr.models.backbone import Backbone


def add_word_tokens(backbone: Backbone, texts: Iterable[str], *, seed: int, new: bool) -> list[int]:
    """Give every distinct word of the texts that is not one token already a token of its own; both parts are changed.

    Only whole words are matched, so that a word which another one holds leaves that one's tokens as they were.

    Args:
        seed: of the rows that are random.
        new: whether the model's rows are random themselves; the new ones are then as well. Else a new row begins as the
            mean of the rows of the pieces that its word was spelled with so far, in the embeddings and in a head of
            their own alike.

    Returns:
        The new tokens, in the order of their words.
    """
    tokenizer, model = backbone.tokenizer, backbone.model
    words = pieced_words(tokenizer, texts)
    if not words:
        return []
    spelled = encode(tokenizer, words)
    _add_words(tokenizer, words)
    tokens: list[int] = tokenizer.convert_tokens_to_ids(words)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        # Some models have more rows than their tokenizer has tokens.
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        if not new:
            for weight_VD in tables(model):
                for token, pieces in zip(tokens, spelled, strict=True):
                    if pieces:
                        weight_VD[token] = weight_VD[pieces].mean(dim=0)
    return tokens


def pieced_words(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> list[str]:
    """The distinct words of texts that are not one known token each, in the order of the alphabet."""
    words = sorted({word for text in texts for word in text.split()})
    alone = encode(tokenizer, words)
    # A word behind another may have a token of its own there.
    behind = encode(tokenizer, [f"{word} {word}" for word in words])
    unknown = tokenizer.unk_token_id
    return [
        word
        for word, one, two in zip(words, alone, behind, strict=True)
        if len(one) != 1 or len(two) != 2 or unknown in one
    ]


def tables(model: Any) -> list[torch.nn.Parameter]:
    """The matrices that have a row for each token: the embeddings, and the head's where it has rows of its own."""
    read, written = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return [read] if written is read else [read, written]


def _add_words(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> None:
    from tokenizers import AddedToken, Regex, decoders

    # The space before a word belongs to it; of the rest of a text, nothing is touched.
    tokenizer.add_tokens([AddedToken(word, single_word=True, lstrip=True, normalized=False) for word in words])
    inner = tokenizer.backend_tokenizer
    # So it must come back in front of the word, written as the tokenizer's own pieces have it.
    space = " " if "ByteLevel" in repr(inner.decoder) else "▁"
    before_word = Regex(f"^(?={_any_of(words)}$)")
    inner.decoder = decoders.Sequence([decoders.Replace(before_word, space), inner.decoder])


def _any_of(words: Sequence[str]) -> str:
    """An expression for any of some words, which share their beginnings: one by one, a thousand would take long."""
    rest: dict[str, list[str]] = {}
    for word in words:
        if word:
            rest.setdefault(word[0], []).append(word[1:])
    branches = [re.escape(letter) + _any_of(ends) for letter, ends in rest.items()]
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)})" + ("?" if "" in words else "")
