"""Writes tests/ids/golden/diverse_beam.json: what transformers 4.46 returned for diverse beam search.

transformers 5 has no diverse beam search, so this runs in an environment of its own:

    python3.11 -m venv golden-env
    golden-env/bin/pip install torch==2.13.0 transformers==4.46.3 tokenizers==0.20.3 huggingface_hub==0.26.5 numpy
    golden-env/bin/python tests/ids/make_golden.py

The weights come from a hash of their name and place, so that the test makes the same ones without a file. All is
computed in double precision, so that what is compared does not depend on a processor's rounding.
"""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden" / "diverse_beam.json"

SHAPE = {"d_model": 24, "d_ff": 32, "d_kv": 8, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2}
MODELS: dict[str, dict[str, Any]] = {
    "tied": {"vocab_size": 40, "feed_forward_proj": "relu", "tie_word_embeddings": True},
    "untied gated": {"vocab_size": 60, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
BEAMS = [(5, 5), (6, 3), (4, 2), (10, 10), (4, 1)]
LENGTHS = [(1, 10), (10, 20), (3, 6)]
PENALTIES = [0.1, 0.5, 4.0]
LENGTH_PENALTIES = [1.0, 0.0]
ROWS = [[33, 24, 28, 24, 2, 36, 36, 1], [33, 12, 31, 34, 4, 1], [27, 30, 3, 1], [39, 11, 18, 31, 35, 12, 10, 10, 1]]


def hashed_weights(name: str, shape: torch.Size) -> torch.Tensor:
    """Numbers of about unit variance in (-1.7, 1.7), from splitmix64 of the name's checksum and the place."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(zlib.crc32(name.encode()))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    uniform = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return torch.from_numpy((uniform - np.float32(0.5)) * np.float32(3.4641)).reshape(shape)


def build_model(name: str) -> Any:
    """A T5 with hashed weights; `lm_head` is its own where the model is untied."""
    from transformers import T5Config, T5ForConditionalGeneration

    options = MODELS[name]
    config = T5Config(**SHAPE, **options, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    if not options["tie_word_embeddings"]:
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(options["vocab_size"], SHAPE["d_model"]))
    with torch.no_grad():
        for key, weight in model.named_parameters():
            # Small embeddings and a large last norm: the layers, not the newest token, decide what comes next.
            if "layer_norm" in key:
                scale, shift = 0.2, 8.0 if key == "decoder.final_layer_norm.weight" else 1.0
            elif key in ("shared.weight", "lm_head.weight"):
                scale, shift = 0.2, 0.0
            else:
                scale, shift = weight.shape[-1] ** -0.5, 0.0
            weight.copy_(shift + scale * hashed_weights(f"{name} {key}", weight.shape))
    return model


def in_double() -> None:
    """From now on, what the library computes in single precision by name is double too: norms, softmax, beam scores."""
    torch.float = torch.float32 = torch.float64
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.set_default_dtype(torch.float64)


def main() -> None:
    torch.set_num_threads(1)
    models = {name: build_model(name).double() for name in MODELS}
    in_double()
    cases = []
    for name, model in models.items():
        for (beams, groups), (low, high), length_penalty in itertools.product(BEAMS, LENGTHS, LENGTH_PENALTIES):
            for penalty in PENALTIES if groups > 1 else [0.0]:
                results = []
                for row in ROWS:
                    found = model.generate(
                        input_ids=torch.tensor([row]),
                        attention_mask=torch.ones((1, len(row)), dtype=torch.long),
                        num_beams=beams,
                        num_beam_groups=groups,
                        diversity_penalty=penalty,
                        min_length=low,
                        max_length=high,
                        length_penalty=length_penalty,
                        num_return_sequences=beams,
                        do_sample=False,
                        return_dict_in_generate=True,
                        output_scores=True,
                    )
                    results.append(
                        {
                            "sequences": [strip(sequence) for sequence in found.sequences.tolist()],
                            "scores": [round(score, 12) for score in found.sequences_scores.tolist()],
                        }
                    )
                case = {"model": name, "beams": beams, "groups": groups, "penalty": penalty, "min": low, "max": high}
                cases.append({**case, "length_penalty": length_penalty, "results": results})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(f"[\n{lines}\n]\n")


def strip(sequence: list[int]) -> list[int]:
    """Without the start token, and without EOS and what comes after it."""
    tokens = sequence[1:]
    return tokens[: tokens.index(1)] if 1 in tokens else tokens


if __name__ == "__main__":
    main()
