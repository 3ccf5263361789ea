"""Text vectors of a sentence encoder: those that transformers and a mean over the attention mask give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer, RobertaConfig, RobertaModel

from idgr.cli.main import run
from idgr.errors import IdgrError
from idgr.formats.jsonl import write_jsonl
from idgr.ids.schemes.text_vectors import text_vectors

from ...encoder_folder import save_encoder, shape, tiny_bert

WORDS = "red blue nail polish hair dryer with a longer text brush soap".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[(n * 5 + step) % len(WORDS)] for step in range(n % 9)) for n in range(70)]
MINILM = Path(__file__).parents[3] / "models" / "minilm"  # of recipes/pretrained.sh


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return tiny_bert(WORDS, tmp_path / "bert")


def plain(folder: Path, texts: list[str], most: int) -> np.ndarray[Any, Any]:
    """As the card of a sentence encoder tells it, in the order of the texts."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    read = tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
    with torch.inference_mode():
        states = model(**read).last_hidden_state
    mask = read["attention_mask"].unsqueeze(-1).expand(states.size()).float()
    pooled = torch.sum(states * mask, 1) / torch.clamp(mask.sum(1), min=1e-9)
    found: np.ndarray[Any, Any] = F.normalize(pooled, p=2, dim=1).numpy()
    return found


def test_those_of_transformers_and_the_mean_over_the_mask(bert: Path) -> None:
    vectors = text_vectors(TEXTS, str(bert), seed=0)
    assert vectors.shape == (70, 16)
    np.testing.assert_allclose(vectors, plain(bert, TEXTS, 12), atol=2e-6)
    assert len({vector.tobytes() for vector in vectors.round(3)}) > 30, "the texts do differ"
    np.testing.assert_allclose(text_vectors(TEXTS[4:5], str(bert), seed=0), vectors[4:5], atol=2e-6)


def test_a_long_text_is_cut_at_the_places_that_the_model_has(bert: Path, tmp_path: Path) -> None:
    texts = [" ".join(WORDS * 30), " ".join(WORDS), "red"]
    vectors = text_vectors(texts, str(bert), seed=0)
    np.testing.assert_allclose(vectors, plain(bert, texts, 12), atol=2e-6)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=2e-6)  # 10 words and two special tokens of either
    torch.manual_seed(0)
    config = RobertaConfig(**shape(WORDS), pad_token_id=0, initializer_range=0.5)
    roberta = save_encoder(RobertaModel(config, add_pooling_layer=False), WORDS, tmp_path / "roberta")
    np.testing.assert_allclose(text_vectors(texts, str(roberta), seed=0), plain(roberta, texts, 11), atol=2e-6)


def test_what_does_not_hold_together_is_told(bert: Path, tmp_path: Path) -> None:
    small = tiny_bert(WORDS, tmp_path / "small", vocab_size=9)
    with pytest.raises(IdgrError, match="small: its tokenizer has a token 13, where the model knows 9; put"):
        text_vectors([" ".join(WORDS)], str(small), seed=0)
    narrow = tiny_bert(WORDS, tmp_path / "narrow", max_position_embeddings=2)
    with pytest.raises(IdgrError, match="narrow: reads texts of 2 tokens, special ones among them; give"):
        text_vectors(["red"], str(narrow), seed=0)


def test_semantic_ids_of_a_sentence_encoder(bert: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "items.jsonl", ({"item_id": f"i{n}", "text": text or "x"} for n, text in enumerate(TEXTS)))
    words = ["--scheme", "semantic", "--text-vectors", str(bert), "--codebook", "4", "-o", str(tmp_path / "ids.jsonl")]
    assert run(["gen-ids", str(tmp_path / "items.jsonl"), *words]) == 0
    assert len((tmp_path / "ids.jsonl").read_text().splitlines()) == 70


@pytest.mark.skipif(not MINILM.is_dir(), reason=f"{MINILM} is not there")
def test_a_published_sentence_encoder() -> None:
    texts = ["title: red nail polish", "hair dryer", "a much longer text about soap, brushes and towels"]
    np.testing.assert_allclose(text_vectors(texts, str(MINILM), seed=0), plain(MINILM, texts, 256), atol=1e-5)
