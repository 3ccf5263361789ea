"""Fixtures of the ID tests: the golden cases with their models, and a tiny generator of random weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from idgr.models.backbone import Backbone, Preset, new_backbone, save_backbone
from idgr.models.tokenizer import train_tokenizer

TEXTS = [f"title: {colour} {thing} {n}; brand: {brand}" for n, (colour, thing, brand) in enumerate(
    (colour, thing, brand)
    for colour in ("red", "blue", "matte green")
    for thing in ("nail polish", "hair dryer", "face cream", "hand soap")
    for brand in ("aurora", "zenith")
)]  # fmt: skip


@pytest.fixture(scope="session")
def make_golden() -> ModuleType:
    """The script that wrote the golden cases, for its models and inputs."""
    spec = importlib.util.spec_from_file_location("make_golden", Path(__file__).with_name("make_golden.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generator() -> Backbone:
    """A T5 of random weights whose output depends on its input, with a vocabulary that spells everything."""
    preset = Preset(d_model=32, d_ff=48, num_layers=1, num_heads=2, d_kv=8, vocab_size=400)
    backbone = new_backbone(preset, train_tokenizer([*TEXTS, "指甲油 红色 蓝色"], 400), seed=3)
    with torch.no_grad():
        backbone.model.shared.weight *= 0.05
        # Single bytes and special tokens but EOS get a logit of 0, which is never the highest.
        pieces = backbone.tokenizer.convert_ids_to_tokens(range(len(backbone.tokenizer)))
        unlikely = [n for n, piece in enumerate(pieces) if piece.startswith("<") and piece != "</s>"]
        backbone.model.shared.weight[unlikely] = 0.0
        backbone.model.decoder.final_layer_norm.weight *= 15.0
        for block in backbone.model.decoder.block:
            block.layer[1].EncDecAttention.q.weight *= 3.0
            block.layer[1].EncDecAttention.o.weight *= 4.0
    backbone.model.eval()
    return backbone


@pytest.fixture(scope="session")
def generator_folder(generator: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gen")
    save_backbone(generator, folder)
    return folder


@pytest.fixture(scope="session")
def causal_generator() -> Backbone:
    """A Llama of random weights whose output depends on its input, with a vocabulary that spells everything."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer([*TEXTS, "Red Nail Polish"], 400)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
        # Single bytes and special tokens but EOS are seldom the likeliest.
        pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        unlikely = [n for n, piece in enumerate(pieces) if piece.startswith("<") and piece != "</s>"]
        model.lm_head.weight[unlikely] *= 0.2
    return Backbone(model, tokenizer)


@pytest.fixture(scope="session")
def causal_folder(causal_generator: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal-gen")
    save_backbone(causal_generator, folder)
    return folder
