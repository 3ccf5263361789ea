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
from idgr.models.encoder import load_encoder
from idgr.models.tokenizer import load_tokenizer
from idgr.progress import progress

if TYPE_CHECKING:
    import torch

Floats32 = npt.NDArray[np.float32]

_WIDTH = 64  # of the vectors from counts
_POWERS = 5  # iterations that sharpen the decomposition
_BATCH = 32
_MOST_TOKENS = 256


def text_vectors(texts: Sequence[str], source: str, seed: int) -> Floats32:
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

    A causal model, in which a token sees those before it only, gives the mean of its own (LLM-BS).
    """
    import torch

    if not Path(source).is_dir():
        raise IdgrError("there is no such folder", f"give --text-vectors {TFIDF} or a local model folder", where=source)
    tokenizer = load_tokenizer(source)
    if tokenizer.pad_token_id is None:  # Llamas seldom have one; the mask keeps it out of the mean
        tokenizer.pad_token = tokenizer.eos_token
    model = load_encoder(source)
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    found = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for start in progress(range(0, len(texts), _BATCH), "text vectors", unit="batches"):
                read = tokenizer(
                    list(texts[start : start + _BATCH]),
                    padding=True,
                    padding_side="right",  # so that a token's place does not depend on the other texts
                    truncation=True,
                    max_length=_MOST_TOKENS,
                    return_tensors="pt",
                )
                found.append(_mean(encoder, read["input_ids"], read["attention_mask"]).numpy())
    finally:
        torch.set_num_threads(threads)
    return np.concatenate(found)


def _mean(encoder: Any, tokens_NT: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    states_NTD: torch.Tensor = encoder(input_ids=tokens_NT, attention_mask=mask_NT).last_hidden_state
    weights_NT1 = mask_NT.unsqueeze(-1).to(states_NTD.dtype)
    return (states_NTD * weights_NT1).sum(1) / weights_NT1.sum(1).clamp(min=1)
