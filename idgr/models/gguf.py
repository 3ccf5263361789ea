"""Llamas in GGUF files, as llama.cpp has them, read by transformers through the package gguf.

Weights are unpacked to float32 when they are read, so a model from such a file is any other Llama from then on. What
transformers would pass over in silence, tensors and settings that a plain Llama has not, is refused here, from the
file's header (`idgr.models.gguf_header`).
"""

from __future__ import annotations

import io
import json
import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError
from idgr.models.gguf_header import GgufHeader, read_gguf_header
from idgr.models.hub import quiet_transformers, told_as_unusable

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Shapes = dict[str, tuple[int, ...]]

_LLAMA = "llama"
_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_OF_LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NEEDED = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_MAYBE = {
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
}
_SPECIAL = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
_FOLDER = "give the model's folder with config.json and safetensors"


def check_gguf_package(source: str) -> None:
    """Raise `IdgrError` where the package gguf, through which transformers reads such files, is not installed."""
    try:
        version("gguf")
    except PackageNotFoundError:
        what = "is a GGUF file, which is read through the package gguf, and that is not installed"
        raise IdgrError(what, "pip install 'idgr[gguf]'", where=source) from None


def gguf_config(header: GgufHeader, source: str) -> dict[str, Any]:
    """What a `config.json` would tell of the model of a GGUF file.

    Raises:
        IdgrError: it is no Llama, does not tell what one is, or has settings that transformers does not read from it.
    """
    architecture = header.architecture
    if architecture != _LLAMA:
        told = f"of the architecture {architecture!r}" if "general.architecture" in header.metadata else "of none"
        raise IdgrError(
            f"is a GGUF file {told}", "give one of the architecture 'llama', or a T5's folder", where=source
        )
    told_of = {key.removeprefix(f"{_LLAMA}."): value for key, value in header.metadata.items()}
    missing = sorted(key for key in _NEEDED if key not in told_of)
    if missing:
        raise IdgrError(f"its metadata tells no {_LLAMA}.{missing[0]}", _FOLDER, where=source)
    config: dict[str, Any] = {"model_type": _LLAMA, "hidden_act": "silu"}
    config |= {name: told_of[key] for key, name in {**_NEEDED, **_MAYBE}.items() if key in told_of}
    for key, name in _SPECIAL.items():
        config[name] = told_of.get(f"tokenizer.ggml.{key}")
    rows = header.shapes.get("token_embd.weight", ())
    config["vocab_size"] = rows[0] if rows else 0
    config["tie_word_embeddings"] = "output.weight" not in header.shapes
    _check_rotary(header, told_of, source)
    return config


def _check_rotary(header: GgufHeader, told: dict[str, Any], source: str) -> None:
    """Raise `IdgrError` where the rotary embedding is not the plain one of all of a head, which alone is read."""
    kind = told.get("rope.scaling.type", "none")
    what = None
    if kind != "none":
        what = f"its rotary embedding is scaled ({_LLAMA}.rope.scaling.type is {kind!r})"
    elif "rope.scale_linear" in told and told["rope.scale_linear"] != 1:
        what = f"its rotary embedding is scaled ({_LLAMA}.rope.scale_linear is {told['rope.scale_linear']})"
    elif "rope_freqs.weight" in header.shapes:
        what = "its rotary embedding is scaled, as that of Llama 3.1 is (tensor rope_freqs.weight)"
    if what is not None:
        raise IdgrError(f"{what}, which transformers does not read from a GGUF file", _FOLDER, where=source)
    heads, width = told["attention.head_count"], told["embedding_length"]
    if not _are_numbers(heads, width) or "rope.dimension_count" not in told:
        return
    of_head = told.get("attention.key_length", width // heads)
    if told["rope.dimension_count"] != of_head:
        what = f"turns {told['rope.dimension_count']} of the {of_head} numbers of a head by their place"
        raise IdgrError(what, "give a Llama, which turns all", where=source)


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int) and value > 0 for value in values)


def gguf_shapes(header: GgufHeader, source: str) -> Shapes:
    """The shapes of the tensors under the names that transformers has for them.

    Raises:
        IdgrError: there is a tensor that a plain Llama has not, such as one of experts.
    """
    found: Shapes = {}
    for name, shape in header.shapes.items():
        layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
        stem = name.removesuffix(".weight")
        if layer and layer[2] in _OF_LAYERS:
            found[f"model.layers.{layer[1]}.{_OF_LAYERS[layer[2]]}.weight"] = shape
        elif stem in _TENSORS and stem != name:
            found[f"{_TENSORS[stem]}.weight"] = shape
        else:
            raise IdgrError(f"has a tensor {name}, which a plain Llama has not", _FOLDER, where=source)
    return found


def gguf_numbers(header: GgufHeader) -> int:
    """How many numbers the weights are when they are unpacked."""
    return sum(math.prod(shape) for shape in header.shapes.values())


def read_gguf_tensors(path: Path, config: Any, source: str) -> dict[str, Tensor]:
    """The weights of a GGUF file, unpacked to float32, under the names that transformers has for them.

    Args:
        config: the `LlamaConfig` of the file.

    Raises:
        IdgrError: the package gguf is not installed, or weights are packed in a way that it does not know.
    """
    import torch
    from transformers import LlamaForCausalLM

    check_gguf_package(source)
    with told_as_unusable("model", source), _alone(path) as (folder, name):
        model = LlamaForCausalLM.from_pretrained(folder, gguf_file=name, config=config, dtype=torch.float32)
    tensors: dict[str, Tensor] = model.state_dict()
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    return tensors


def load_gguf_tokenizer(path: Path, source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file.

    Raises:
        IdgrError: the file is none of a Llama, the package gguf is not installed, or the file has no tokenizer that
            transformers can read.
    """
    from transformers import AutoTokenizer

    header = read_gguf_header(path)
    gguf_config(header, source)  # which tells more of a file that is no model than a tokenizer can
    check_gguf_package(source)
    with told_as_unusable("tokenizer", source), _alone(path) as (folder, name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, gguf_file=name, trust_remote_code=False, local_files_only=True
        )
        tokenizer = _of_the_file(tokenizer, header.lengths.get("tokenizer.ggml.tokens", 0))
    tokenizer.name_or_path = source
    return tokenizer


def _of_the_file(tokenizer: PreTrainedTokenizerBase, n_tokens: int) -> PreTrainedTokenizerBase:
    """A tokenizer without what transformers adds to a file's first `n_tokens` tokens: GPT-2's <|endoftext|>."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    inner: Any = tokenizer.backend_tokenizer
    told = json.loads(inner.to_str())
    own = [token for token in told["added_tokens"] if token["id"] < n_tokens]
    if len(own) == len(told["added_tokens"]):
        return tokenizer
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = {name: getattr(tokenizer, name) for name in names if getattr(tokenizer, f"{name}_id") is not None}
    found: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(told | {"added_tokens": own})),
        chat_template=tokenizer.chat_template,
        **{name: token for name, token in special.items() if tokenizer.convert_tokens_to_ids(token) < n_tokens},
    )
    return found


@contextmanager
def _alone(path: Path) -> Iterator[tuple[str, str]]:
    """A folder where a file lies alone, so that nothing beside it is read, and its name there; libraries are quiet."""
    quiet_transformers()
    with tempfile.TemporaryDirectory(prefix="idgr-gguf-") as folder, redirect_stderr(io.StringIO()):
        name = "model.gguf"
        (Path(folder) / name).symlink_to(path.resolve())
        yield folder, name
