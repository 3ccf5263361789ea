"""Backbones, T5 or a causal Llama: new ones from a preset, saved ones from a folder, a GGUF file or the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError, UsageError
from idgr.formats.rec_folder import CONFIG
from idgr.formats.run_info import read_run
from idgr.models.configuration import check_kind, checked_config, model_kind
from idgr.models.gguf import gguf_config, gguf_numbers, gguf_shapes, read_gguf_tensors
from idgr.models.gguf_header import find_gguf, read_gguf_header
from idgr.models.hub import find_folder, quiet_transformers, told_as_unusable
from idgr.models.memory import check_room, n_numbers
from idgr.models.special_tokens import settle_special_tokens
from idgr.models.tokenizer import load_tokenizer, train_tokenizer
from idgr.models.weight_files import check_finite, read_headers, read_object, read_tensors

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, T5ForConditionalGeneration

GENERATION = "generation_config.json"
TAUGHT = {"prompt": "plain"}  # what the record of a Llama tells that was taught to write IDs behind a plain prompt
_LOADED = 4  # bytes of a number of the weights, in float32
_WHOLE_GGUF = "give the GGUF file of a plain Llama, whole"


@dataclass(frozen=True)
class Backbone:
    """A T5, or a Llama where that was asked for, and the tokenizer that its embeddings belong to.

    Attributes:
        taught: of a Llama, whether idgr has taught it to write IDs, so that it need not be asked in words.
    """

    model: T5ForConditionalGeneration | LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    taught: bool = False

    @property
    def arch(self) -> str:
        """ "t5", or "causal" for a Llama."""
        return model_kind({"model_type": self.model.config.model_type}) or "t5"


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


def is_preset(name: str) -> bool:
    """Whether a model is named that begins with random weights."""
    return name in PRESETS or name in CAUSAL_PRESETS


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
    if preset is None and is_preset(name):
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

    Raises:
        IdgrError: the tokenizer has no token for padding, which a T5's answers begin with.
    """
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    if tokenizer.pad_token_id is None:
        todo = "name one in tokenizer_config.json, or take --arch causal, which needs none"
        raise IdgrError("the tokenizer has no pad_token", todo, where=tokenizer.name_or_path)
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

    # The row of the token for padding begins at zero and does not learn from what is read, so EOS, which stands before
    # every item, must not be that while the model is made.
    pad = tokenizer.pad_token_id
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=preset.d_model,
        intermediate_size=preset.d_ff,
        num_hidden_layers=preset.num_layers,
        num_attention_heads=preset.num_heads,
        num_key_value_heads=preset.num_heads,
        max_position_embeddings=1 << 16,
        tie_word_embeddings=True,
        pad_token_id=None if pad == tokenizer.eos_token_id else pad,
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
    model.config.pad_token_id = pad
    return Backbone(model, tokenizer)


def load_backbone(source: str | os.PathLike[str]) -> Backbone:
    """A T5 from a model folder or, by its name, from the hub; weights are read as safetensors only, into float32.

    Raises:
        IdgrError: there is no such folder and the hub has no such model or cannot be reached; the folder holds no
            safetensors, misses weights or has others, is not a T5, says something in its configuration that idgr does
            not compute, or has a tokenizer that does not belong to it.
    """
    return _load(source, "t5")


def load_causal_backbone(source: str | os.PathLike[str]) -> Backbone:
    """A Llama, as `load_backbone` loads a T5.

    The model's EOS is the tokenizer's, where its configuration lists several. It need not have a token for padding.

    Raises:
        IdgrError: as there.
    """
    backbone = _load(source, "causal")
    # Else the row of the token for padding would not learn, which may be that of EOS, and stands before every item.
    backbone.model.model.embed_tokens.padding_idx = None
    return backbone


def arch_of(source: str) -> str:
    """What `--arch` is for a model where it is not given: "causal" for a Llama or a preset of one, else "t5".

    Raises:
        IdgrError: there is no such model.
    """
    if source in CAUSAL_PRESETS:
        return "causal"
    if source in PRESETS:
        return "t5"
    return model_kind(_read_config(source)) or "t5"


def check_either(source: str | os.PathLike[str]) -> None:
    """Raise `IdgrError` where a model is neither a T5 nor a Llama, before any of it is loaded."""
    name = os.fspath(source)
    config = _read_config(name)
    check_kind(config, model_kind(config) or "t5", name)


def load_either(source: str) -> Backbone:
    """A T5 or a Llama, as the folder is; see `load_backbone` and `load_causal_backbone`, also for errors."""
    if arch_of(source) != "causal":
        return load_backbone(source)
    return replace(load_causal_backbone(source), taught=is_taught(source))


def is_taught(source: str) -> bool:
    """Whether a Llama's folder tells in its record that idgr has taught it to write IDs."""
    return read_run(source).get("prompt") == TAUGHT["prompt"]


def check_t5(source: str | os.PathLike[str], needed_by: str) -> None:
    """Raise `IdgrError` where a model is not a T5, before any of it is loaded.

    Args:
        needed_by: the command, for the message, such as "train-gen".
    """
    name = os.fspath(source)
    config = _read_config(name)
    if model_kind(config) == "causal":
        raise IdgrError(
            f"is a Llama, and {needed_by} takes a T5", "give one such as `idgr init-gen --model nano` makes", where=name
        )
    check_kind(config, "t5", name)


def _read_config(name: str) -> dict[str, Any]:
    """What a model's configuration tells, that of a GGUF file from its metadata."""
    path = find_gguf(name)
    if path is not None:
        return gguf_config(read_gguf_header(path), name)
    return read_object(find_folder(name, "model") / CONFIG, name)


def _load(source: str | os.PathLike[str], arch: str) -> Backbone:
    name = os.fspath(source)
    path = find_gguf(name)
    if path is not None:
        return _load_gguf(path, arch, name)
    folder = find_folder(name, "model")
    config = read_object(folder / CONFIG, name)
    check_kind(config, arch, name)
    headers = read_headers(folder, name)
    checked = checked_config(config, {tensor: header.shape for tensor, header in headers.items()}, arch, name)
    tokenizer = load_tokenizer(name)
    settle_special_tokens(checked, tokenizer, arch, name)
    check_room(n_numbers(headers), _LOADED, name)
    model = _built(checked, read_tensors(headers, name), arch, name)
    if (folder / GENERATION).is_file():
        model.generation_config = _generation_config(folder, checked, name)
    return Backbone(model, tokenizer)


def _load_gguf(path: Path, arch: str, name: str) -> Backbone:
    header = read_gguf_header(path)
    config = gguf_config(header, name)
    check_kind(config, arch, name)
    shapes = gguf_shapes(header, name)
    try:
        checked = checked_config(config, shapes, arch, name)
    except IdgrError as fault:
        raise IdgrError(fault.what.replace("config.json", "metadata"), _WHOLE_GGUF, where=name) from None
    tokenizer = load_tokenizer(name)
    settle_special_tokens(checked, tokenizer, arch, name)
    check_room(gguf_numbers(header), _LOADED, name)
    tensors = read_gguf_tensors(path, checked, name)
    check_finite(tensors, name)
    return Backbone(_built(checked, tensors, arch, name), tokenizer)


def _built(config: Any, tensors: dict[str, Tensor], arch: str, name: str) -> Any:
    """The model of a configuration with these weights, all of them and no others, by transformers' own loader."""
    import torch
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

    kind: Any = T5ForConditionalGeneration if arch == "t5" else LlamaForCausalLM
    quiet_transformers()
    with told_as_unusable("model", name):
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are told below, all in one line
            output_loading_info=True,
        )
    todo = "give a complete model folder"
    for found, what in (("missing_keys", "misses"), ("unexpected_keys", "has more than")):
        if report[found]:
            n, first = len(report[found]), min(report[found])
            more = "misses the weights of" if what == "misses" else "its config.json does not know"
            raise IdgrError(f"{more} {n} tensors, such as {first}", todo, where=name)
    if report["mismatched_keys"]:
        tensor, is_, asked = min(report["mismatched_keys"])
        what = f"its {tensor} is {list(is_)}, where its config.json asks for {list(asked)}"
        raise IdgrError(what, todo, where=name)
    if arch == "t5" and not (
        model.shared.weight is model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight
    ):
        raise IdgrError("reads with other embeddings in its decoder than in its encoder", "give a T5", where=name)
    return model


def _generation_config(folder: Path, config: Any, name: str) -> Any:
    """How transformers would generate, which idgr passes on; its special tokens are the configuration's."""
    from transformers import GenerationConfig

    told = read_object(folder / GENERATION, name)
    with told_as_unusable("generation_config.json", name):
        found = GenerationConfig.from_dict(told)
    if found.eos_token_id != config.eos_token_id:
        found.eos_token_id = config.eos_token_id
    return found


def save_backbone(backbone: Backbone, folder: str | os.PathLike[str]) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files into an existing folder."""
    quiet_transformers()
    backbone.model.save_pretrained(Path(folder), safe_serialization=True)
    backbone.tokenizer.save_pretrained(Path(folder))
