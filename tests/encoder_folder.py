"""Folders like those of sentence encoders, tiny, with random weights and a tokenizer of a few words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast


def save_encoder(model: Any, words: Sequence[str], folder: Path) -> Path:
    """Special tokens around a text, and no EOS among them."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    inner = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, **{"unk_token": names[1]}))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def shape(words: Sequence[str], **others: int) -> dict[str, int]:
    told = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return told | {"vocab_size": len(words) + 4, "max_position_embeddings": 12} | others


def tiny_bert(words: Sequence[str], folder: Path, **others: int) -> Path:
    """Its weights without a pooler's."""
    torch.manual_seed(0)
    model = BertModel(BertConfig(**shape(words, **others), initializer_range=0.5), add_pooling_layer=False)
    return save_encoder(model, words, folder)
