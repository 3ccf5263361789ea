"""GGUF files of tiny Llamas, as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_gguf(path: Path, model: Any, tokenizer: Any, *, packed: bool = False, **changes: Any) -> Path:
    """A GGUF file of a Llama and a byte-level BPE.

    Args:
        packed: projections in 8 bits (Q8_0), which is not what they were.
        changes: metadata that is told otherwise; `arch` for the architecture, `extra` for tensors beside.
    """
    import gguf
    import numpy as np

    config = model.config
    architecture = changes.pop("arch", "llama")
    extra = changes.pop("extra", ())
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    told = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(told["vocab"], key=told["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    special = set(tokenizer.all_special_tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in told["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    for key, value in changes.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)

    def turned(weight: Any, heads: int) -> Any:
        """llama.cpp turns pairs of neighbours, transformers the two halves of a head."""
        return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)

    def add(name: str, weight: Any) -> None:
        if packed and weight.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(weight))

    state = {name: value.detach().float().numpy() for name, value in model.state_dict().items()}
    add("token_embd.weight", state["model.embed_tokens.weight"])
    add("output_norm.weight", state["model.norm.weight"])
    if not config.tie_word_embeddings:
        add("output.weight", state["lm_head.weight"])
    for layer in range(config.num_hidden_layers):
        of, to = f"model.layers.{layer}.", f"blk.{layer}."
        add(f"{to}attn_norm.weight", state[f"{of}input_layernorm.weight"])
        add(f"{to}attn_q.weight", turned(state[f"{of}self_attn.q_proj.weight"], config.num_attention_heads))
        add(f"{to}attn_k.weight", turned(state[f"{of}self_attn.k_proj.weight"], config.num_key_value_heads))
        add(f"{to}attn_v.weight", state[f"{of}self_attn.v_proj.weight"])
        add(f"{to}attn_output.weight", state[f"{of}self_attn.o_proj.weight"])
        add(f"{to}ffn_norm.weight", state[f"{of}post_attention_layernorm.weight"])
        for name in ("gate", "up", "down"):
            add(f"{to}ffn_{name}.weight", state[f"{of}mlp.{name}_proj.weight"])
    for name in extra:
        writer.add_tensor(name, np.ones(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
