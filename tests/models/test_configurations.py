"""Every configuration that is accepted gives the scores of `transformers`; every other one is refused in one line.

The reference is loaded by `transformers` itself from the same folder, and scores every item path by path without a
cache. Prompts are shorter and longer than the lengths that the rotary embeddings of the configurations tell of.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idgr.decoding.beam import SearchOptions, beam_search
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError
from idgr.models.backbone import Backbone, load_backbone, load_causal_backbone

from ..decoding.oracle import EOS, random_ids, score_every_item, tiny_llama, tiny_t5

LENGTHS = (3, 40, 90)
LONG = {"max_position_embeddings": 64}
ROPE = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {**ROPE, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {**ROPE, "rope_type": "yarn"}

ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2", "relu6", "silu")
ACTIVATIONS = (*ACTIVATIONS, "swish", "mish", "tanh", "sigmoid", "leaky_relu", "hardswish", "linear")

LLAMAS: dict[str, dict[str, Any]] = {
    **{f"hidden_act {act}": {"hidden_act": act} for act in ACTIVATIONS},
    "rope default": {**LONG, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "rope linear": {**LONG, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "rope llama3": {**LONG, "rope_parameters": LLAMA3},
    "rope yarn": {**LONG, "rope_parameters": YARN},
    "rope yarn, its own factor": {**LONG, "rope_parameters": {**YARN, "attention_factor": 0.7, "truncate": False}},
    "rope yarn, mscale": {**LONG, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.4, "beta_fast": 8}},
    "biases of attention": {"attention_bias": True},
    "biases of feed-forward layers": {"mlp_bias": True},
    "all biases, tied": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 24},
    "narrow heads, shared": {"head_dim": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    "one head of keys": {"num_attention_heads": 4, "num_key_value_heads": 1, "attention_bias": True},
    "large epsilon": {"rms_norm_eps": 0.05},
    "one layer": {"num_hidden_layers": 1},
    "several EOS": {"eos_token_id": [7, EOS, 6]},
    "no EOS told": {"eos_token_id": None},
    "no pad": {"pad_token_id": None},
    "pad is EOS": {"pad_token_id": EOS},
    "pad is -1": {"pad_token_id": -1},
    "attention dropout": {"attention_dropout": 0.5},
    "pretraining_tp": {"pretraining_tp": 2},
    "places of items": {"item_slots": 9},
    "places of items, rope llama3": {"item_slots": 9, **LONG, "rope_parameters": LLAMA3},
}

T5S: dict[str, dict[str, Any]] = {
    **{
        f"feed-forward {act}": {"feed_forward_proj": act}
        for act in ("relu", "gelu", "gelu_new", "silu", "tanh", "linear")
    },
    **{f"feed-forward gated-{act}": {"feed_forward_proj": f"gated-{act}"} for act in ("gelu", "silu", "relu")},
    "dense_act_fn told": {"feed_forward_proj": "gated-gelu", "dense_act_fn": "relu"},
    "T5 1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "scaled though of its own": {"scale_decoder_outputs": True, "tie_word_embeddings": False},
    "few buckets": {"relative_attention_num_buckets": 6, "relative_attention_max_distance": 7},
    "many buckets": {"relative_attention_num_buckets": 64, "relative_attention_max_distance": 40},
    "inner width": {"d_kv": 3, "num_heads": 5},
    "more decoder layers": {"num_layers": 1, "num_decoder_layers": 3},
    "fewer decoder layers": {"num_layers": 3, "num_decoder_layers": 1},
    "large epsilon": {"layer_norm_epsilon": 0.05},
    "another start": {"decoder_start_token_id": 4},
    "padding from the tokenizer": {"pad_token_id": None},
    "another pad": {"pad_token_id": 6},
    "pad is EOS": {"pad_token_id": EOS},
    "several EOS": {"eos_token_id": [5, EOS]},
}


def saved(model: Any, tiny: Backbone, folder: Path, **told: Any) -> Path:
    """A folder of a model with weights that are not those of its start, and of the tokenizer."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.copy_(torch.randn(weight.shape, generator=generator))
    model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    change(folder, **told)
    return folder


def change(folder: Path, **told: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | told))


def scores(model: Any, ids: list[list[int]], prompts: list[list[int]], normalize: str) -> np.ndarray[Any, Any]:
    found = beam_search(model, build_trie(ids, EOS), prompts, SearchOptions(len(ids), len(ids), 0.0, normalize))
    rows = np.full((len(prompts), len(ids)), np.nan)
    for row, ranking in zip(rows, found, strict=True):
        row[ranking.items] = ranking.scores
    return rows


def check(reference: Any, model: Any, prompts: list[list[int]], vocabulary: int) -> None:
    ids = random_ids(np.random.default_rng(4), 8, vocabulary, longest=5)
    for normalize in ("full", "trie"):
        wanted = [
            score_every_item(reference, ids, prompt, length_penalty=0.0, normalize=normalize) for prompt in prompts
        ]
        np.testing.assert_allclose(scores(model, ids, prompts, normalize), wanted, atol=1e-4)


@pytest.mark.parametrize("name", LLAMAS)
def test_an_accepted_llama_scores_as_transformers_does(name: str, tiny: Backbone, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    vocabulary = len(tiny.tokenizer)
    saved(tiny_llama(3, vocabulary, **LLAMAS[name]), tiny, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    model = load_causal_backbone(tmp_path).model
    assert model.config.eos_token_id == EOS
    generator = np.random.default_rng(1)
    prompts = [[EOS, *generator.integers(3, vocabulary, size=length).tolist()] for length in LENGTHS]
    check(reference, model, prompts, vocabulary)


@pytest.mark.parametrize("name", T5S)
def test_an_accepted_t5_scores_as_transformers_does(name: str, tiny: Backbone, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    vocabulary = len(tiny.tokenizer)
    start = T5S[name].get("decoder_start_token_id", 0)
    shape = {key: value for key, value in T5S[name].items() if key != "pad_token_id"}
    told = {key: value for key, value in T5S[name].items() if key == "pad_token_id"}
    saved(tiny_t5(3, vocabulary, **shape), tiny, tmp_path, **told)
    reference = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    model = load_backbone(tmp_path).model
    assert (model.config.eos_token_id, model.config.decoder_start_token_id) == (EOS, start)
    generator = np.random.default_rng(1)
    prompts = [[*generator.integers(3, vocabulary, size=length).tolist(), EOS] for length in LENGTHS]
    if start:  # the oracle's answers begin with padding
        shared, wanted = reference.shared.weight, reference.shared.weight.detach()[start].clone()
        with torch.no_grad():
            head = reference.lm_head.weight.detach().clone()
            shared[0] = wanted
            reference.lm_head.weight = torch.nn.Parameter(head)
    check(reference, model, prompts, vocabulary)


@pytest.mark.parametrize("length", LENGTHS)
def test_in_half_precision_the_angles_are_not_rounded(length: int) -> None:
    """A model that is brought to bfloat16 has its frequencies rounded with all else; ours are made anew."""
    from idgr.models.llama import read_weights

    whole = tiny_llama(3, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    half = tiny_llama(3, rope_parameters={"rope_type": "default", "rope_theta": 1e4}).to(torch.bfloat16)
    wanted, found = read_weights(whole, torch.float32), read_weights(half, torch.bfloat16)
    assert torch.equal(wanted.frequency_E, found.frequency_E)


ROPE_REFUSED = {
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    "longrope": {
        **{"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16},
        **{"short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    },
    "unknown": {"rope_type": "spiral", "rope_theta": 1e4},
    "partial": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0, "partial_rotary_factor": 0.5},
    "no factor": {"rope_type": "linear", "rope_theta": 1e4},
    "factor in words": {"rope_type": "linear", "rope_theta": 1e4, "factor": "four"},
    "theta 0": {"rope_type": "default", "rope_theta": 0},
    "nested": {"full_attention": {"rope_type": "linear"}, "rope_type": ["linear"]},
}
LLAMAS_REFUSED: dict[str, dict[str, Any]] = {
    **{f"rope {name}": {"rope_parameters": rope} for name, rope in ROPE_REFUSED.items()},
    "rope_scaling of old": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "rope a number": {"rope_parameters": 3},
    "act with weights": {"hidden_act": "prelu"},
    "act unknown": {"hidden_act": "snake"},
    "act a number": {"hidden_act": 1},
    "bias told, none there": {"attention_bias": True},
    "mlp_bias told, none there": {"mlp_bias": True},
    "bias in words": {"attention_bias": "no"},
    "epsilon negative": {"rms_norm_eps": -1e-6},
    "epsilon text": {"rms_norm_eps": "1e-6"},
    "head_dim of others": {"head_dim": 12},
    "head_dim 0": {"head_dim": 0},
    "odd heads": {"head_dim": 7},
    "heads do not divide": {"num_attention_heads": 3, "num_key_value_heads": 2},
    "more layers": {"num_hidden_layers": 3},
    "fewer layers": {"num_hidden_layers": 1},
    "millions of layers": {"num_hidden_layers": 10_000_000},
    "wide": {"hidden_size": 10_000_000},
    "far wider": {"hidden_size": 10**18},
    "width 0": {"hidden_size": 0},
    "width negative": {"hidden_size": -16},
    "width text": {"hidden_size": "16"},
    "width true": {"hidden_size": True},
    "inner": {"intermediate_size": 1 << 40},
    "vocabulary": {"vocab_size": 10**12},
    "small vocabulary": {"vocab_size": 10},
    "item_slots text": {"item_slots": "9"},
    "item_slots negative": {"item_slots": -1},
    "item_slots huge": {"item_slots": 10**15},
    "item_slots none": {"item_slots": None},
    "dropout 2": {"dropout_rate": 2},
    "EOS of another": {"eos_token_id": 7},
    "EOS not among several": {"eos_token_id": [7, 8]},
    "EOS text": {"eos_token_id": "</s>"},
    "EOS beyond": {"eos_token_id": [EOS, 10**9]},
    "EOS negative": {"eos_token_id": -1},
    "pad beyond": {"pad_token_id": 10**6},
    "pad text": {"pad_token_id": "<pad>"},
    "quantised": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "weights elsewhere": {"transformers_weights": "../outside.safetensors"},
    "layers of their own": {"per_layer_config": {"0": {"hidden_size": 8}}},
    "mistral": {"model_type": "mistral"},
    "qwen": {"model_type": "qwen2"},
    "a T5": {"model_type": "t5"},
    "no type": {"model_type": None},
    "type a list": {"model_type": ["llama"]},
    "max_position_embeddings text": {"max_position_embeddings": "64"},
    "use_cache text": {"use_cache": "maybe"},
}
T5S_REFUSED: dict[str, dict[str, Any]] = {
    "act unknown": {"feed_forward_proj": "snake"},
    "gated twice": {"feed_forward_proj": "gated-gated-gelu"},
    "act none": {"feed_forward_proj": None},
    "dense_act_fn unknown": {"dense_act_fn": "snake"},
    "gated told, not there": {"feed_forward_proj": "gated-gelu", "is_gated_act": True},
    "flag in words": {"is_gated_act": "yes"},
    "mask in words": {"causal_encoder": "yes"},
    "buckets 0": {"relative_attention_num_buckets": 0},
    "buckets of others": {"relative_attention_num_buckets": 16},
    "buckets huge": {"relative_attention_num_buckets": 10**9},
    "distance too short": {"relative_attention_max_distance": 16},
    "distance text": {"relative_attention_max_distance": "128"},
    "not encoder and decoder": {"is_encoder_decoder": False},
    "is_encoder_decoder text": {"is_encoder_decoder": "true"},
    "start beyond": {"decoder_start_token_id": 10**6},
    "start negative": {"decoder_start_token_id": -1},
    "start text": {"decoder_start_token_id": "0"},
    "start a list": {"decoder_start_token_id": [0]},
    "start half": {"decoder_start_token_id": 0.5},
    "pad beyond": {"pad_token_id": 10**6},
    "pad negative": {"pad_token_id": -1},
    "pad a list": {"pad_token_id": [0]},
    "EOS of another": {"eos_token_id": 5},
    "EOS an object": {"eos_token_id": {"a": 1}},
    "more layers": {"num_layers": 5},
    "fewer decoder layers": {"num_decoder_layers": 1},
    "millions of layers": {"num_layers": 5_000_000, "num_decoder_layers": 5_000_000},
    "layers 0": {"num_layers": 0},
    "d_model": {"d_model": 32},
    "d_model huge": {"d_model": 10**7, "vocab_size": 10**7},
    "d_ff none": {"d_ff": None},
    "d_kv": {"d_kv": 16},
    "heads": {"num_heads": 0},
    "heads traded for width": {"num_heads": 4, "d_kv": 4},
    "epsilon": {"layer_norm_epsilon": float("inf")},
    "dropout": {"dropout_rate": 1.0},
    "dropout text": {"dropout_rate": "0.1"},
    "a Llama": {"model_type": "llama"},
    "another type": {"model_type": "bart", "architectures": ["BartForConditionalGeneration"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    vocabulary = len(tiny.tokenizer)
    return {
        "llama": saved(tiny_llama(3, vocabulary), tiny, tmp_path_factory.mktemp("llama")),
        "t5": saved(tiny_t5(3, vocabulary), tiny, tmp_path_factory.mktemp("t5")),
    }


def _refused(load: Any, plain: Path, folder: Path, told: dict[str, Any]) -> None:
    shutil.copytree(plain, folder, dirs_exist_ok=True)
    config = json.loads((plain / "config.json").read_text()) | told
    (folder / "config.json").write_text(json.dumps(config).replace("Infinity", "1e999"))
    with pytest.raises(IdgrError) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert caught.value.todo
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LLAMAS_REFUSED)
def test_other_llamas_are_refused_before_they_are_built(name: str, plain: dict[str, Path], tmp_path: Path) -> None:
    _refused(load_causal_backbone, plain["llama"], tmp_path, LLAMAS_REFUSED[name])


@pytest.mark.parametrize("name", T5S_REFUSED)
def test_other_t5s_are_refused_before_they_are_built(name: str, plain: dict[str, Path], tmp_path: Path) -> None:
    _refused(load_backbone, plain["t5"], tmp_path, T5S_REFUSED[name])
