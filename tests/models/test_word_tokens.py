"""Words as tokens of their own: matched whole, read back, and begun as the mean of what they were spelled with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from idgr.models.backbone import (
    Backbone,
    CausalPreset,
    Preset,
    load_causal_backbone,
    new_backbone,
    new_causal_backbone,
    save_backbone,
)
from idgr.models.tokenizer import decode, encode, load_tokenizer, train_tokenizer
from idgr.models.word_tokens import add_word_tokens, pieced_words, tables

TEXTS = ["amber basil cedar", "amber basil", "cedar amber", "basilica"]
IDS = ["aar bab cac", "aar babel", "aa amber", "bab aar", "amber aar basil"]
NEW = ["aa", "aar", "bab", "babel", "cac"]
OTHERS = ["basilica", "xaar aarx", "baba cacao", "a ar", "aab aar2", "aaré", "a aa_b"]
SHAPE = CausalPreset(d_model=16, d_ff=24, num_layers=1, num_heads=2, vocab_size=400)


def unigram() -> Any:
    return train_tokenizer(TEXTS, 400)


def bytes_alone() -> Any:
    """As GPT-2's and Llama 3's: the space belongs to the word behind it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator([f" {text} {text}" for text in TEXTS] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")  # noqa: S106


@pytest.mark.parametrize("make", [unigram, bytes_alone])
def test_words_are_tokens_and_all_else_is_as_before(make: Any, tmp_path: Path) -> None:
    tokenizer = make()
    before = encode(tokenizer, OTHERS)
    backbone = new_causal_backbone(SHAPE, tokenizer, seed=3)
    added = add_word_tokens(backbone, IDS, seed=1, new=True)
    words = tokenizer.convert_ids_to_tokens(added)
    assert set(NEW) <= set(words)
    assert len(tokenizer) == backbone.model.config.vocab_size == len(tables(backbone.model)[0])

    save_backbone(backbone, tmp_path)
    for one in (tokenizer, load_tokenizer(str(tmp_path))):
        rows = encode(one, IDS)
        assert [len(row) for row in rows] == [len(text.split()) for text in IDS]
        assert [text.split() for text in decode(one, rows)] == [text.split() for text in IDS]
        assert encode(one, OTHERS) == before
        assert pieced_words(one, IDS) == []
    assert add_word_tokens(backbone, IDS, seed=1, new=True) == []


def test_ids_are_read_back_as_they_were() -> None:
    tokenizer = unigram()
    add_word_tokens(new_causal_backbone(SHAPE, tokenizer, seed=3), IDS, seed=1, new=True)
    assert decode(tokenizer, encode(tokenizer, IDS)) == IDS
    assert encode(tokenizer, ["amber basil"])[0] == encode(unigram(), ["amber basil"])[0]


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_means_and_old_ones_stay(tied: bool, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    tokenizer = unigram()
    config = new_causal_backbone(SHAPE, tokenizer, seed=3).model.config
    config.tie_word_embeddings = tied
    torch.manual_seed(5)
    backbone = Backbone(LlamaForCausalLM(config), tokenizer)
    old = [table.detach().clone() for table in tables(backbone.model)]
    assert len(old) == (1 if tied else 2)
    spelled = dict(zip(NEW, encode(tokenizer, NEW), strict=True))
    added = dict(zip(NEW, add_word_tokens(backbone, IDS, seed=1, new=False), strict=True))

    save_backbone(backbone, tmp_path)
    for model in (backbone.model, load_causal_backbone(tmp_path).model):
        for before, after in zip(old, tables(model), strict=True):
            assert torch.equal(after[: len(before)], before)
            for word, token in added.items():
                assert torch.equal(after[token], before[spelled[word]].mean(dim=0))


def test_a_t5_has_them_too() -> None:
    shape = Preset(d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, vocab_size=400)
    backbone = new_backbone(shape, unigram(), seed=1)
    added = add_word_tokens(backbone, IDS, seed=1, new=True)
    assert encode(backbone.tokenizer, ["bab aar"])[0] == [added[2], added[1]]
    assert len(tables(backbone.model)) == 1
    assert len(tables(backbone.model)[0]) > max(added)


def test_rows_of_a_preset_depend_on_the_seed_alone() -> None:
    found = []
    for seed, noise in ((1, 0), (1, 7), (2, 0)):
        backbone = new_causal_backbone(SHAPE, unigram(), seed=3)
        torch.manual_seed(noise)
        added = add_word_tokens(backbone, IDS, seed=seed, new=True)
        found.append(tables(backbone.model)[0].detach()[added])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
