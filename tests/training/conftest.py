"""A catalogue of ten items, a tiny backbone, and their renderer."""

from __future__ import annotations

from pathlib import Path

import pytest

from idgr.formats.jsonl import write_jsonl
from idgr.models.backbone import Backbone, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import id_tokens, train_tokenizer
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import load_templates, template_words

WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord"]
TEXTUAL_IDS = ["amber basil", "amber basil cedar", "amber delta", "basil", "basil ember fjord", "cedar amber basil"]
TEXTUAL_IDS += ["cedar amber delta", "delta ember", "ember", "fjord amber cedar delta"]
SHAPE = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=400)


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """All tests of training run so."""


@pytest.fixture
def small() -> Backbone:
    tokenizer = train_tokenizer([*TEXTUAL_IDS, *template_words(load_templates())], SHAPE.vocab_size)
    return new_backbone(SHAPE, tokenizer, seed=1)


@pytest.fixture
def small_renderer(small: Backbone) -> PromptRenderer:
    return PromptRenderer(small.tokenizer, load_templates(), id_tokens(small.tokenizer, TEXTUAL_IDS), max_history=4)


@pytest.fixture
def small_folder(small: Backbone, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_backbone(small, folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as `prep` writes it, with ids.jsonl: each item is followed by the next in the catalogue."""
    n = len(TEXTUAL_IDS)
    write_jsonl(
        tmp_path / "items.jsonl",
        (
            {"item_id": f"I{i}", "text": f"title: the {text}; brand: {text.split()[0]}"}
            for i, text in enumerate(TEXTUAL_IDS)
        ),
    )
    write_jsonl(tmp_path / "ids.jsonl", ({"item_id": f"I{i}", "id": text} for i, text in enumerate(TEXTUAL_IDS)))
    users = [[f"I{(start + step) % n}" for step in range(6)] for start in range(n)]
    write_jsonl(tmp_path / "train.jsonl", ({"user_id": f"U{u}", "items": row[:4]} for u, row in enumerate(users)))
    write_jsonl(
        tmp_path / "valid.jsonl",
        ({"user_id": f"U{u}", "history": row[:4], "target": row[4]} for u, row in enumerate(users)),
    )
    return tmp_path
