"""Backbones, T5 or a causal Llama: new ones from a preset, saved ones from a folder or the hub.

Knows nothing of what a backbone is used for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError, UsageError
from idgr.models.hub import load_pretrained, quiet_transformers
from idgr.models.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, T5ForConditionalGeneration


@dataclass(frozen=True)
class Backbone:
    """A T5, or a Llama where that was asked for, and the tokenizer that its embeddings belong to."""

    model: T5ForConditionalGeneration | LlamaForCausalLM
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


@dataclass(frozen=True)
class CausalPreset:
    """The shape of a Llama to make from scratch; `vocab_size` bounds a vocabulary trained for it."""

    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    vocab_size: int


PRESETS = {
    "nano": Preset(d_model=128, d_ff=512, num_layers=3, num_heads=4, d_kv=32, vocab_size=8_000),
    "small": Preset(d_model=512, d_ff=2048, num_layers=6, num_heads=8, d_kv=64, vocab_size=32_000),
}
CAUSAL_PRESETS = {
    "nano-causal": CausalPreset(d_model=128, d_ff=352, num_layers=2, num_heads=4, vocab_size=8_000),
}


def resolve_model(
    name: str,
    *,
    arch: str = "t5",
    tokenizer: str | None = None,
    texts: Callable[[], Iterable[str]],
    vocab_size: int | None = None,
    seed: int = 0,
) -> Backbone:
    """The backbone that `--model` names: a preset with random weights, a model folder, or a model on the hub.

    Args:
        name: a preset's name comes first; write `./nano` for a folder of that name.
        arch: "t5", or "causal" for a Llama.
        tokenizer: a folder or hub name whose tokenizer a preset shall share.
        texts: gives the texts from which a preset's vocabulary is learnt where no tokenizer is given.
        vocab_size: bounds that vocabulary, in place of the preset's own bound.

    Raises:
        IdgrError: the model or tokenizer cannot be loaded.
        UsageError: the preset is of another architecture, or an option was given that only a preset can heed.
    """
    ours: dict[str, Preset] | dict[str, CausalPreset] = PRESETS if arch == "t5" else CAUSAL_PRESETS
    preset = ours.get(name)
    if preset is None and name in {*PRESETS, *CAUSAL_PRESETS}:
        raise UsageError(f"--model {name} given with --arch {arch}", f"take --model {' or '.join(ours)}")
    if preset is None:
        for option, value in (("--tokenizer", tokenizer), ("--vocab-size", vocab_size)):
            if value is not None:
                presets = " or ".join(ours)
                raise UsageError(
                    f"{option} given with --model {name}, which has a vocabulary of its own",
                    f"leave {option} out or take --model {presets}",
                )
        return load_backbone(name) if arch == "t5" else load_causal_backbone(name)
    if tokenizer is not None and vocab_size is not None:
        raise UsageError("--vocab-size given with --tokenizer", "leave one of them out")
    words = load_tokenizer(tokenizer) if tokenizer else train_tokenizer(texts(), vocab_size or preset.vocab_size)
    if isinstance(preset, CausalPreset):
        return new_causal_backbone(preset, words, seed)
    return new_backbone(preset, words, seed)


def new_backbone(preset: Preset, tokenizer: PreTrainedTokenizerBase, seed: int, *, dropout: float = 0.1) -> Backbone:
    """A T5 with random weights, drawn from `seed` alone, over the vocabulary of `tokenizer`.

    The cross-attention begins as a copier: its output is what it reads, turned there and back by a rotation. With
    embeddings shared by input and output, the decoder then at first favours the tokens that it looks at. Both of
    idgr's tasks, IDs from a text's own words and next IDs from a history's, are half copying, which a small T5 would
    need many times the steps to find.
    """
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
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
        for block in model.decoder.block:
            cross = block.layer[1].EncDecAttention
            torch.nn.init.orthogonal_(cross.v.weight)
            cross.o.weight.copy_(cross.v.weight.T)
    return Backbone(model, tokenizer)


def new_causal_backbone(
    preset: CausalPreset, tokenizer: PreTrainedTokenizerBase, seed: int, *, dropout: float = 0.1
) -> Backbone:
    """A Llama with random weights, drawn from `seed` alone, over the vocabulary of `tokenizer`.

    Every attention layer begins as a copier, as the cross-attention of `new_backbone` does and for the same reason. Its
    configuration has a dropout rate, which idgr's training heeds and a Llama alone does not know.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=preset.d_model,
        intermediate_size=preset.d_ff,
        num_hidden_layers=preset.num_layers,
        num_attention_heads=preset.num_heads,
        num_key_value_heads=preset.num_heads,
        max_position_embeddings=1 << 16,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        dropout_rate=dropout,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        for layer in model.model.layers:
            torch.nn.init.orthogonal_(layer.self_attn.v_proj.weight)
            layer.self_attn.o_proj.weight.copy_(layer.self_attn.v_proj.weight.T)
    return Backbone(model, tokenizer)


def load_backbone(source: str | os.PathLike[str]) -> Backbone:
    """A T5 from a model folder or, by its name, from the hub; weights are read as safetensors only.

    Raises:
        IdgrError: there is no such folder and the hub has no such model or cannot be reached; the folder holds no
            safetensors, misses weights, is not a T5, or has a tokenizer that is larger than its embeddings.
    """
    from transformers import AutoModelForSeq2SeqLM, T5ForConditionalGeneration

    return _load(source, AutoModelForSeq2SeqLM, T5ForConditionalGeneration, "T5")


def load_causal_backbone(source: str | os.PathLike[str]) -> Backbone:
    """A Llama, as `load_backbone` loads a T5.

    Raises:
        IdgrError: as there; or its layers have biases.
    """
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    backbone = _load(source, AutoModelForCausalLM, LlamaForCausalLM, "Llama")
    config = backbone.model.config
    if config.attention_bias or config.mlp_bias:
        raise IdgrError("its layers have biases", "give a Llama without", where=source)
    return backbone


def _load(source: str | os.PathLike[str], auto: Any, kind: Any, architecture: str) -> Backbone:
    name = os.fspath(source)
    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("*.safetensors")) and any(folder.glob("pytorch_model*.bin")):
        raise IdgrError(
            "holds its weights as pickle, which idgr does not read",
            "convert them: load the model where you trust it and call save_pretrained, which writes model.safetensors",
            where=name,
        )
    tokenizer = load_tokenizer(name)
    model, report = load_pretrained(auto.from_pretrained, "model", name, use_safetensors=True, output_loading_info=True)
    if not isinstance(model, kind):
        raise IdgrError(f"is a {type(model).__name__}", f"give a model of the {architecture} architecture", where=name)
    if report["missing_keys"]:
        raise IdgrError(
            f"misses the weights of {len(report['missing_keys'])} tensors, such as {min(report['missing_keys'])}",
            "give a complete model folder",
            where=name,
        )
    if len(tokenizer) > model.config.vocab_size:
        raise IdgrError(
            f"its tokenizer has {len(tokenizer)} tokens, its embeddings {model.config.vocab_size}",
            "give a model folder whose tokenizer belongs to it",
            where=name,
        )
    return Backbone(model, tokenizer)


def save_backbone(backbone: Backbone, folder: str | os.PathLike[str]) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files into an existing folder."""
    quiet_transformers()
    backbone.model.save_pretrained(Path(folder), safe_serialization=True)
    backbone.tokenizer.save_pretrained(Path(folder))
