"""T5 backbones: new ones from a preset, saved ones from a folder or the hub.

Knows nothing of what a backbone is used for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.models.tokenizer import cannot_load, load_tokenizer, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration


@dataclass(frozen=True)
class Backbone:
    """An encoder-decoder and the tokenizer that its embeddings belong to."""

    model: T5ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Preset:
    """The shape of a T5 to make from scratch; `vocab_size` bounds a vocabulary trained for it."""

    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    d_kv: int
    vocab_size: int


PRESETS = {
    "nano": Preset(d_model=128, d_ff=512, num_layers=3, num_heads=4, d_kv=32, vocab_size=8_000),
    "small": Preset(d_model=512, d_ff=2048, num_layers=6, num_heads=8, d_kv=64, vocab_size=32_000),
}


def new_backbone(preset: Preset, tokenizer: PreTrainedTokenizerBase, seed: int, *, dropout: float = 0.1) -> Backbone:
    """A T5 with random weights, drawn from `seed` alone, over the vocabulary of `tokenizer`."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=preset.d_model,
        d_ff=preset.d_ff,
        d_kv=preset.d_kv,
        num_layers=preset.num_layers,
        num_decoder_layers=preset.num_layers,
        num_heads=preset.num_heads,
        dropout_rate=dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(T5ForConditionalGeneration(config), tokenizer)


def load_backbone(source: str | os.PathLike[str]) -> Backbone:
    """A model folder, or the name of a model on the hub; weights are read as safetensors only.

    Raises:
        IdgrError: there is no such folder and the hub has no such model or cannot be reached.
    """
    from transformers import AutoModelForSeq2SeqLM

    name = os.fspath(source)
    quiet_transformers()
    tokenizer = load_tokenizer(name)
    try:
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
    except Exception as fault:  # the library raises OSError, ValueError, KeyError and more for a bad source
        raise cannot_load("model", name, fault) from fault
    return Backbone(model, tokenizer)


def save_backbone(backbone: Backbone, folder: str | os.PathLike[str]) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files into an existing folder."""
    quiet_transformers()
    backbone.model.save_pretrained(Path(folder), safe_serialization=True)
    backbone.tokenizer.save_pretrained(Path(folder))
