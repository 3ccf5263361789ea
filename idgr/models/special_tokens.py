"""The tokens that a model and its tokenizer must agree on: EOS, padding, the decoder's start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def settle_special_tokens(config: Any, tokenizer: PreTrainedTokenizerBase, arch: str, name: str) -> None:
    """Make a configuration's special tokens single ones that the tokenizer knows too; changes the configuration.

    EOS, which idgr sets behind every ID, is the tokenizer's. A configuration may list several, as that of Llama 3
    does; if it tells none that is the tokenizer's, model and tokenizer do not belong together. A T5 starts its
    answers with padding, if nothing else is told. A Llama needs none, since what fills up rows is never looked at.

    Args:
        name: the folder, for messages.

    Raises:
        IdgrError: they do not agree, or a token is none of the model's.
    """
    vocabulary = config.vocab_size
    ids = tokenizer.get_vocab().values()
    if max(len(tokenizer), max(ids, default=-1) + 1) > vocabulary:
        raise IdgrError(
            f"its tokenizer has {max(len(tokenizer), max(ids) + 1)} tokens, its embeddings {vocabulary}",
            "give a model folder whose tokenizer belongs to it",
            where=name,
        )
    config.eos_token_id = _eos(config.eos_token_id, tokenizer, vocabulary, name)
    if arch == "causal":
        if config.pad_token_id == -1:  # as some of the first Llamas say that they have none
            config.pad_token_id = None
        _check(config, "pad_token_id", vocabulary, name)
        return
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if config.pad_token_id is None:
        raise IdgrError("tells no pad_token_id", "name one in config.json, from which a T5 starts", where=name)
    if getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id
    for key in ("pad_token_id", "decoder_start_token_id"):
        _check(config, key, vocabulary, name)


def _eos(told: Any, tokenizer: PreTrainedTokenizerBase, vocabulary: int, name: str) -> int:
    own: int = tokenizer.eos_token_id
    listed = [] if told is None else told if isinstance(told, list) else [told]
    for token in listed:
        if not _is_token(token, vocabulary):
            what = f"its eos_token_id in config.json is {told!r}"
            raise IdgrError(what, f"it should be {own}, the tokenizer's", where=name)
    if listed and own not in listed:
        what = f"its eos_token_id in config.json is {told!r}, its tokenizer's {own}"
        raise IdgrError(what, "give a tokenizer that belongs to the model, or set one of them to the other", where=name)
    return own


def _check(config: Any, key: str, vocabulary: int, name: str) -> None:
    token = getattr(config, key)
    if token is not None and not _is_token(token, vocabulary):
        raise IdgrError(
            f"its {key} in config.json is {token!r}", f"it should be a token, from 0 to {vocabulary - 1}", where=name
        )


def _is_token(token: Any, vocabulary: int) -> bool:
    return isinstance(token, int) and not isinstance(token, bool) and 0 <= token < vocabulary
