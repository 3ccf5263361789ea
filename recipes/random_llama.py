"""A causal model folder of random weights in SmolLM2-135M's shape, or a tiny one, to measure speed with.

Its tokenizer is learnt from IDs; the vocabulary is as large as SmolLM2's all the same, since its size costs time.

Usage: python recipes/random_llama.py smollm2|tiny ids.jsonl OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

SHAPES = {
    "smollm2": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "tiny": {
        "vocab_size": 2048,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
    },
}


def main(shape: str, ids: str, out: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from idgr.formats.records import read_ids
    from idgr.models.backbone import Backbone, save_backbone
    from idgr.models.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([record.id for record in read_ids(ids)], SHAPES[shape]["vocab_size"])
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    save_backbone(Backbone(LlamaForCausalLM(config), tokenizer), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
