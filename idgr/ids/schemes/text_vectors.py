"""A vector for each item's text: from counts of words, or from a saved language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from idgr.errors import IdgrError
from idgr.ids.assignment import NAMELESS
from idgr.ids.keyphrase import words_of
from idgr.ids.schemes.options import TFIDF
from idgr.models.encoder import load_encoder, n_places
from idgr.models.hub import told_as_unusable
from idgr.models.tokenizer import load_tokenizer
from idgr.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Floats32 = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]

_WIDTH = 64  # of the vectors from counts
_POWERS = 5  # iterations that sharpen the decomposition
_BATCH = 32
_TOKENIZED = 1024  # texts at a time
_MOST_TOKENS = 256


def text_vectors(texts: Sequence[str], source: str, seed: int = 0) -> Floats32:
    """[N, D] a vector of length 1 for each text; of length 0 where nothing is known of its words.

    Args:
        source: "tfidf", or a folder with a Hugging Face encoder, T5, or causal language model, such as a Llama.
        seed: of the reduction of counts to fewer dimensions.

    Raises:
        IdgrError: there is no such folder, or it holds no usable model.
    """
    vectors_ND = _from_counts(texts, seed) if source == TFIDF else _from_encoder(texts, source)
    return of_length_one(vectors_ND)


def of_length_one(vectors_ND: Any) -> Floats32:
    """[N, D] the vectors by their lengths; those of length 0 stay so."""
    length = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors_ND / np.where(length > 0, length, 1), dtype=np.float32)


def _from_counts(texts: Sequence[str], seed: int) -> Any:
    """TF-IDF of the words, reduced to `_WIDTH` dimensions by a truncated singular value decomposition."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.utils.extmath import randomized_svd

    counts = TfidfVectorizer(analyzer=_words, sublinear_tf=True).fit_transform(texts)
    width = min(_WIDTH, *counts.shape)
    if counts.shape[1] <= width:  # nothing to reduce
        return counts.toarray()
    left_NW, values_W, _ = randomized_svd(counts, width, n_iter=_POWERS, random_state=seed)
    return left_NW * values_W


def _words(text: str) -> list[str]:
    return [word.casefold() for word in words_of(text)] or [NAMELESS]


def _from_encoder(texts: Sequence[str], source: str) -> Any:
    """The mean of the last hidden states over a text's tokens, in float32 on the CPU; of the encoder, if there is one.

    So a sentence encoder that pools by the mean gives its own vectors. A causal model, in which a token sees those
    before it only, gives the mean of its own (LLM-BS). Of a text that is longer than `_MOST_TOKENS`, or than the places
    that the model has, the beginning is read.
    """
    import torch

    if not Path(source).is_dir():
        raise IdgrError("there is no such folder", f"give --text-vectors {TFIDF} or a local model folder", where=source)
    tokenizer = load_tokenizer(source, need_eos=False)
    model = load_encoder(source)
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    rows = _tokens_of(texts, tokenizer, encoder, source)
    found = []
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))  # rows of one length need no filling up
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode(), Progress("text vectors", total=len(rows), unit="items") as shown:
            for begin in range(0, len(order), _BATCH):
                batch = order[begin : begin + _BATCH]
                found.append(_mean(encoder, *_filled_up([rows[row] for row in batch])).numpy())
                shown.advance(len(batch))
    finally:
        torch.set_num_threads(threads)
    return np.concatenate(found)[np.argsort(order)]


def _tokens_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, encoder: Any, source: str) -> list[Tokens]:
    """What the model reads of each text, with the special tokens that its tokenizer puts around one.

    Raises:
        IdgrError: the tokenizer is of another model, or the model has no place for a word.
    """
    most = min(_MOST_TOKENS, n_places(encoder))
    if most <= tokenizer.num_special_tokens_to_add():
        raise IdgrError(f"reads texts of {most} tokens, special ones among them", "give another model", where=source)
    rows: list[Tokens] = []
    for begin in range(0, len(texts), _TOKENIZED):
        part = list(texts[begin : begin + _TOKENIZED])
        with told_as_unusable("tokenizer", source):
            found = tokenizer(part, truncation=True, max_length=most, return_attention_mask=False)["input_ids"]
        rows += [np.array(row, dtype=np.int64) for row in found]
    n_known = encoder.get_input_embeddings().num_embeddings
    highest = max((int(row.max()) for row in rows if len(row)), default=0)
    if highest >= n_known:
        what = f"its tokenizer has a token {highest}, where the model knows {n_known}"
        raise IdgrError(what, "put the model's own tokenizer into the folder", where=source)
    return rows


def _filled_up(rows: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, T] tokens, and which of them are a text's; a text's own stand first, so that filling up moves none."""
    import torch

    lengths = np.array([len(row) for row in rows])
    mask_NT = np.arange(max(1, lengths.max())) < lengths[:, None]
    tokens_NT = np.zeros(mask_NT.shape, dtype=np.int64)  # any token does, the mask keeps it out
    tokens_NT[mask_NT] = np.concatenate(rows)
    return torch.from_numpy(tokens_NT), torch.from_numpy(mask_NT.astype(np.int64))


def _mean(encoder: Any, tokens_NT: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    states_NTD: torch.Tensor = encoder(input_ids=tokens_NT, attention_mask=mask_NT).last_hidden_state
    weights_NT1 = mask_NT.unsqueeze(-1).to(states_NTD.dtype)
    return (states_NTD * weights_NT1).sum(1) / weights_NT1.sum(1).clamp(min=1)
