"""A tiny backbone of random weights, and the folder it was saved to."""

from __future__ import annotations

from pathlib import Path

import pytest

from idgr.models.backbone import Backbone, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer

TEXTS = [
    "red nail polish",
    "blue nail polish",
    "chi pro hair dryer",
    "aloe face cream 50 ml",
    "指甲油 红色",
    "soap 🧼 soap",
]
TINY = Preset(d_model=16, d_ff=32, num_layers=2, num_heads=2, d_kv=8, vocab_size=400)


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    return new_backbone(TINY, train_tokenizer(TEXTS, TINY.vocab_size), seed=1)


@pytest.fixture
def folder(tiny: Backbone, tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    save_backbone(tiny, place)
    return place
