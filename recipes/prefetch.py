"""Model folders of the hub, and pickled weights turned into safetensors: for recipes/prefetch.sh.

    python recipes/prefetch.py fetch [--pickle] NAME OUT
    python recipes/prefetch.py convert FROM OUT

`fetch` takes configuration, tokenizer and safetensors, or with --pickle the pickled weights where there are no others.
`convert` reads pytorch_model.bin with `torch.load(weights_only=True)`, which makes tensors and calls nothing, and
writes the same T5 with its weights as model.safetensors. A folder takes its name only when it is whole.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

PLAIN = ["*.json", "*.model", "*.txt"]
SAFE, PICKLE = "model.safetensors", "pytorch_model.bin"


def made(out: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` fill a folder beside `out`, which then takes its name; nothing where `out` is there."""
    if out.exists():
        return
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    fill(part)
    os.replace(part, out)


def fetch(name: str, out: Path, pickle: bool) -> None:
    from huggingface_hub import snapshot_download

    def fill(part: Path) -> None:
        snapshot_download(name, local_dir=part, allow_patterns=[*PLAIN, SAFE], ignore_patterns=["*/*"])
        if not (part / SAFE).exists() and pickle:
            snapshot_download(name, local_dir=part, allow_patterns=[PICKLE], ignore_patterns=["*/*"])
        if not (part / SAFE).exists() and not (part / PICKLE).exists():
            sys.exit(f"prefetch.py: error: the hub's {name} has no {SAFE}")
        shutil.rmtree(part / ".cache", ignore_errors=True)

    made(out, fill)


def convert(source: Path, out: Path) -> None:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    if (source / SAFE).exists():  # the hub has got them since
        made(out, lambda part: shutil.copytree(source, part, dirs_exist_ok=True) and None)
        return

    def fill(part: Path) -> None:
        state = torch.load(source / PICKLE, map_location="cpu", weights_only=True)
        model = T5ForConditionalGeneration(T5Config.from_json_file(source / "config.json"))
        missing, unknown = model.load_state_dict(state, strict=False)
        tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
        if set(missing) - tied or [name for name in unknown if "EncDecAttention.relative_attention_bias" not in name]:
            sys.exit(f"prefetch.py: error: {source / PICKLE} is not of its config.json: {[*missing, *unknown][:3]}")
        for file in source.iterdir():
            if file.is_file() and file.name not in (PICKLE, "config.json"):
                shutil.copy(file, part)
        model.save_pretrained(part)
        shutil.copymode(part / "config.json", part / SAFE)  # which is written for its owner alone

    made(out, fill)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fetch", "convert"))
    parser.add_argument("source")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pickle", action="store_true")
    given = parser.parse_args()
    if given.what == "fetch":
        fetch(given.source, given.out, given.pickle)
    else:
        convert(Path(given.source), given.out)


if __name__ == "__main__":
    main()
