"""The configurations of T5 and Llama models: what idgr computes as transformers does, and what it refuses.

A configuration is held against the shapes of the weights before a model is built, so that no number in it can ask for
more than what is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from idgr.errors import IdgrError

Shapes = Mapping[str, tuple[int, ...]]

_CAUSAL, _T5 = "llama", "t5"
_KINDS = {_T5: "T5", _CAUSAL: "Llama"}
# How transformers is asked for what is beside the model's own function, or for other code than its own: not heeded.
_NOT_HEEDED = (
    *("auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
    *("experts_implementation", "use_kernels", "fusion_config", "distributed_config", "gradient_checkpointing"),
    *("return_dict", "use_return_dict", "output_attentions", "output_hidden_states", "torchscript"),
    *("dtype", "torch_dtype", "_name_or_path", "name_or_path", "_commit_hash"),
)
_REFUSED = ("quantization_config", "transformers_weights", "per_layer_config", "pruned_heads")
# Places of an item; the longest ID with EOS has some dozens of tokens.
_MOST_SLOTS = 1 << 16
# The rotary embeddings whose angles depend on the place alone, and what each must tell. Those of the others, such as
# dynamic and longrope, change with the length of all that is read, so that keys could not be kept.
_STATIC_ROPE: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


def model_kind(config: Mapping[str, Any]) -> str | None:
    """What a configuration is of: "t5", "causal" for a Llama, or None."""
    return {_T5: "t5", _CAUSAL: "causal"}.get(str(config.get("model_type")))


def check_kind(config: Mapping[str, Any], arch: str, name: str) -> None:
    """Raise `IdgrError` where a configuration is of another architecture than "t5" or "causal" as asked for."""
    found = model_kind(config)
    if found == arch:
        return
    told, wanted = config.get("model_type"), _KINDS[_T5 if arch == "t5" else _CAUSAL]
    known = _KINDS.get(str(told))
    what = f"is a {known}" if known else _said(told, config.get("architectures"))
    raise IdgrError(what, f"give a model of the {wanted} architecture", where=name)


def _said(model_type: Any, architectures: Any) -> str:
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        return f"is a {architectures[0]}"
    return f"is a model of type {model_type!r}" if model_type is not None else "its config.json tells no model_type"


def checked_config(config: Mapping[str, Any], shapes: Shapes, arch: str, name: str) -> Any:
    """The configuration object of transformers for a `config.json`.

    Args:
        shapes: of the tensors that lie beside it, by their names.
        arch: "t5", or "causal" for a Llama.
        name: the folder, for messages.

    Returns:
        A `T5Config` or a `LlamaConfig`. Its special tokens are not looked at yet: those are the tokenizer's affair.

    Raises:
        IdgrError: it is of another architecture, says something that idgr does not compute, that makes no sense, or
            that the weights are not of.
    """
    check_kind(config, arch, name)
    for key in _REFUSED:
        if config.get(key):
            raise IdgrError(f"its config.json has a {key}, which idgr does not compute", _todo(arch), where=name)
    rest = {key: value for key, value in config.items() if key not in (*_NOT_HEEDED, *_REFUSED, "model_type")}
    _check_dropout(rest, name)
    if arch == "t5":
        _check_t5(rest, shapes, name)
    else:
        _check_llama(rest, shapes, name)
    try:
        return _kind(arch)(**rest)
    except Exception as fault:  # every field has a validator of its own in transformers
        what = f"its config.json is not one of a {_KINDS[_T5 if arch == 't5' else _CAUSAL]} ({fault})"
        raise IdgrError(what, _todo(arch), where=name) from fault


def _kind(arch: str) -> Callable[..., Any]:
    from transformers import LlamaConfig, T5Config

    kind: Callable[..., Any] = T5Config if arch == "t5" else LlamaConfig
    return kind


def _todo(arch: str) -> str:
    return f"give a {'T5' if arch == 't5' else 'Llama'} that idgr or transformers has saved"


def _check_dropout(config: Mapping[str, Any], name: str) -> None:
    for key in ("dropout_rate", "attention_dropout"):
        value = config.get(key, 0.0)
        if value is None and key == "attention_dropout":
            continue
        if not _is_number(value) or not 0 <= value < 1:
            raise _odd(key, value, "a number from 0 to below 1", name)


def _check_t5(config: dict[str, Any], shapes: Shapes, name: str) -> None:
    get = _reader(config, _kind("t5"), name)
    vocabulary, d_model, d_ff, d_kv, heads = (
        get(key) for key in ("vocab_size", "d_model", "d_ff", "d_kv", "num_heads")
    )
    layers = get("num_layers")
    buckets, distance = get("relative_attention_num_buckets"), get("relative_attention_max_distance")
    decoder_layers = layers if config.get("num_decoder_layers") is None else get("num_decoder_layers")
    if buckets < 4 or distance <= buckets // 2:
        what = f"its {buckets} relative_attention_num_buckets do not fit its max_distance of {distance}"
        raise IdgrError(what, "see config.json: at least 4 buckets, and a distance above half of them", where=name)
    if config.get("is_encoder_decoder", True) is not True:
        raise _odd("is_encoder_decoder", config["is_encoder_decoder"], "true", name)
    _check_epsilon(config, "layer_norm_epsilon", name)
    projection = config.get("feed_forward_proj", "relu")
    acts = re.fullmatch(r"(gated-)?([^-]+)", projection) if isinstance(projection, str) else None
    _check_activation("feed_forward_proj", projection, acts[2] if acts else None, name)
    _check_activation("dense_act_fn", config.get("dense_act_fn", "relu"), config.get("dense_act_fn", "relu"), name)
    for key in ("is_gated_act", "scale_decoder_outputs", "tie_word_embeddings", "causal_encoder"):
        _check_flag(config, key, name)
    _check_layers(shapes, r"encoder\.block\.(\d+)\.", layers, "num_layers", name)
    _check_layers(shapes, r"decoder\.block\.(\d+)\.", decoder_layers, "num_decoder_layers", name)
    own = "encoder.block.0.layer.0.SelfAttention."
    gated = bool(config.get("is_gated_act", bool(acts and acts[1])))
    inner = f"encoder.block.0.layer.1.DenseReluDense.{'wi_0' if gated else 'wi'}.weight"
    tables = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    _check_tables(shapes, tables, (vocabulary, d_model), name)
    _check_shape(shapes, f"{own}q.weight", (heads * d_kv, d_model), name)
    _check_shape(shapes, f"{own}relative_attention_bias.weight", (buckets, heads), name)
    _check_shape(shapes, inner, (d_ff, d_model), name)


def _check_llama(config: dict[str, Any], shapes: Shapes, name: str) -> None:
    get = _reader(config, _kind("causal"), name)
    vocabulary, width, inner, heads = (
        get(key) for key in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")
    )
    few = heads if config.get("num_key_value_heads") is None else get("num_key_value_heads")
    head = width // heads if config.get("head_dim") is None else get("head_dim")
    get("max_position_embeddings")
    if heads % few:
        what = f"its {few} num_key_value_heads do not divide its {heads} num_attention_heads"
        raise IdgrError(what, _todo("causal"), where=name)
    if not head or head % 2:
        raise _odd("head_dim", head, "an even number", name)
    _check_epsilon(config, "rms_norm_eps", name)
    act = config.get("hidden_act", "silu")
    _check_activation("hidden_act", act, act, name)
    for key in ("attention_bias", "mlp_bias", "tie_word_embeddings"):
        _check_flag(config, key, name)
    slots = config.get("item_slots", 0)
    if not _is_integer(slots) or not 0 <= slots <= _MOST_SLOTS:
        raise _odd("item_slots", slots, f"a number from 0 to {_MOST_SLOTS}", name)
    _check_rope(config, name)
    _check_layers(shapes, r"(?:model\.)?layers\.(\d+)\.", get("num_hidden_layers"), "num_hidden_layers", name)
    layer = "model.layers.0."
    _check_tables(shapes, ("model.embed_tokens.weight",), (vocabulary, width), name)
    _check_shape(shapes, f"{layer}self_attn.q_proj.weight", (heads * head, width), name)
    _check_shape(shapes, f"{layer}self_attn.k_proj.weight", (few * head, width), name)
    _check_shape(shapes, f"{layer}mlp.gate_proj.weight", (inner, width), name)


def _check_rope(config: dict[str, Any], name: str) -> None:
    """Raise `IdgrError` for a rotary embedding whose angles are not those of the place alone, or that is not whole."""
    scaling = config.get("rope_scaling")
    rope = scaling or config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise _odd("rope_scaling" if scaling else "rope_parameters", rope, "an object", name)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in _STATIC_ROPE:
        todo = f"give a Llama with one of {', '.join(_STATIC_ROPE)}, whose angles do not change with the length"
        raise IdgrError(f"its rope_type is {kind!r}, which idgr does not compute", todo, where=name)
    for where in (rope, config):
        if where.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise _odd("partial_rotary_factor", where["partial_rotary_factor"], "1, as Llamas have it", name)
    # As transformers takes them: what stands beside goes before, and the length is what the other one is by default.
    beside = {"rope_theta": config.get("rope_theta", 10_000.0)}
    beside["original_max_position_embeddings"] = config.get("max_position_embeddings", 2048)
    told = {**beside, **rope}
    if config.get("original_max_position_embeddings") is not None:
        told["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    for key in ("rope_theta", *_STATIC_ROPE[kind]):
        if not _is_number(told.get(key)) or told[key] <= 0:
            raise _odd(f"{key} of the rotary embedding", told.get(key), "a number above 0", name)
    for key in ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
        if rope.get(key) is not None and not (_is_number(rope[key]) and rope[key] >= 0):
            raise _odd(f"{key} of the rotary embedding", rope[key], "a number of at least 0", name)
    if told["rope_theta"] <= 1:
        raise _odd("rope_theta", told["rope_theta"], "a number above 1", name)
    if kind == "llama3" and told["low_freq_factor"] >= told["high_freq_factor"]:
        raise _odd("low_freq_factor", told["low_freq_factor"], "a number below high_freq_factor", name)


def _reader(config: Mapping[str, Any], kind: Any, name: str) -> Callable[[str], int]:
    """What gives a number of a configuration, or transformers' own where it is not told; at least 1."""

    def get(key: str) -> int:
        value = config.get(key, getattr(kind, key))
        if not _is_integer(value) or value < 1:
            raise _odd(key, value, "a whole number of at least 1", name)
        return int(value)

    return get


def _check_epsilon(config: Mapping[str, Any], key: str, name: str) -> None:
    value = config.get(key, 1e-6)
    if not _is_number(value) or not 0 <= value <= 1:
        raise _odd(key, value, "a small number of at least 0", name)


def _check_flag(config: Mapping[str, Any], key: str, name: str) -> None:
    if not isinstance(config.get(key, False), bool):
        raise _odd(key, config[key], "true or false", name)


def _check_activation(key: str, told: Any, act: Any, name: str) -> None:
    """Raise `IdgrError` for an activation that transformers does not know, or that has weights of its own."""
    from transformers.activations import ACT2CLS, ACT2FN

    if not isinstance(act, str) or act not in ACT2CLS or any(True for _ in ACT2FN[act].parameters()):
        known = ", ".join(sorted(act for act in ACT2CLS if act in ("gelu", "gelu_new", "relu", "silu")))
        raise _odd(key, told, f"an activation without weights of its own, such as {known}", name)


def _check_layers(shapes: Shapes, pattern: str, told: int, key: str, name: str) -> None:
    found = {int(match[1]) for tensor in shapes if (match := re.match(pattern, tensor))}
    if len(found) != told or (found and max(found) != told - 1):
        if found:
            what = f"its weights have {len(found)} layers, where {key} in config.json tells of {told}"
        else:
            what = f"its weights have none of the {told} layers that {key} in config.json tells of"
        raise IdgrError(what, "give a complete model folder", where=name)


def _check_tables(shapes: Shapes, tables: tuple[str, ...], wanted: tuple[int, int], name: str) -> None:
    """Raise `IdgrError` unless one of the embeddings' names is there, and all that are, with the head, fit."""
    there = [tensor for tensor in (*tables, "lm_head.weight") if tensor in shapes]
    for tensor in there if there and there[0] in tables else tables[:1]:
        _check_shape(shapes, tensor, wanted, name)


def _check_shape(shapes: Shapes, tensor: str, wanted: tuple[int, ...], name: str) -> None:
    found = shapes.get(tensor)
    if found is None:
        raise IdgrError(f"misses the weights of {tensor}", "give a complete model folder", where=name)
    if found != wanted:
        what = f"its {tensor} is {list(found)}, where its config.json asks for {list(wanted)}"
        raise IdgrError(what, "give a complete model folder", where=name)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _odd(key: str, value: Any, wanted: str, name: str) -> IdgrError:
    return IdgrError(f"its {key} in config.json is {value!r}", f"it should be {wanted}", where=name)
