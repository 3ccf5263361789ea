"""Odd and damaged variants of a folder, drawn from a seed: bits flipped, files cut, tensors dropped, odd settings.

Knows files, JSON and safetensors; what the folder is of, it does not.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.1, 1e-300, 1e300, 10**6, 10**9, 10**12, 2**63, -(2**63)),
    *("", "x", "1", "../outside.safetensors", "/dev/zero", "weights.bin", "<pad>", "gelu", "relu", "dynamic", "\0"),
    *([], [0], [1, 2], ["x"], [[]], {}, {"a": 1}, {"rope_type": "dynamic", "factor": 2.0}),
)
# Settings that some configurations have and others not.
EXTRA = (
    *("quantization_config", "auto_map", "torch_dtype", "dtype", "attn_implementation", "transformers_weights"),
    *("hidden_act", "rope_scaling", "rope_parameters", "rope_theta", "attention_bias", "head_dim", "item_slots"),
    *("partial_rotary_factor", "sliding_window", "layer_types", "pruned_heads", "return_dict", "is_decoder"),
    *("feed_forward_proj", "is_gated_act", "dense_act_fn", "scale_decoder_outputs", "pad_token_id", "bos_token_id"),
    *(
        "vocab_file",
        "tokenizer_class",
        "model_max_length",
        "added_tokens_decoder",
        "chat_template",
        "r",
        "rank_pattern",
    ),
)
_SAMPLE = 4096  # bytes of content, where a file is replaced


def damaged_variants(folder: str | os.PathLike[str], count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """`count` variants of `folder` one after the other, each as (what was done to it, where it lies).

    A variant is gone when the next one is asked for; the folder itself stays as it is. Equal seeds give equal variants.
    """
    random = Random(seed)
    source = Path(folder)
    for number in range(count):
        with tempfile.TemporaryDirectory(prefix="damaged-") as place:
            copy = Path(place) / source.name
            shutil.copytree(source, copy)
            damage = KINDS[number % len(KINDS)] if number < len(KINDS) else random.choice(KINDS)
            yield f"{number}: {damage(copy, random)}", copy


def _files(folder: Path, ending: str = "") -> list[Path]:
    return sorted(path for path in folder.rglob(f"*{ending}") if path.is_file())


def flip_bits(folder: Path, random: Random) -> str:
    path = random.choice(_files(folder))
    content = bytearray(path.read_bytes())
    # Headers and settings stand at the beginning of a file.
    span = len(content) if random.random() < 0.5 else min(len(content), 200)
    places = [random.randrange(span) for _ in range(random.choice((1, 1, 8)))] if span else []
    for place in places:
        content[place] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    return f"bits of {path.name} flipped at {places}"


def cut(folder: Path, random: Random) -> str:
    path = random.choice(_files(folder))
    size = random.choice((0, 1, 8, random.randrange(path.stat().st_size + 1), max(0, path.stat().st_size - 1)))
    path.write_bytes(path.read_bytes()[:size])
    return f"{path.name} cut to {size} bytes"


def drop_file(folder: Path, random: Random) -> str:
    path = random.choice(_files(folder))
    path.unlink()
    return f"{path.name} dropped"


def replace_file(folder: Path, random: Random) -> str:
    path, other = random.choice(_files(folder)), random.choice(_files(folder))
    contents: dict[str, bytes] = {
        "noise": random.randbytes(random.randrange(_SAMPLE)),
        "spaces": b" " * _SAMPLE,
        "an empty object": b"{}",
        "an empty list": b"[]",
        "null": b"null",
        "nesting": b"[" * 100_000,
        other.name: other.read_bytes(),
    }
    name = random.choice(sorted(contents))
    path.write_bytes(contents[name])
    return f"{path.name} replaced by {name}"


def odd_place(folder: Path, random: Random) -> str:
    path = random.choice(_files(folder))
    path.unlink()
    kinds: dict[str, Callable[[], object]] = {
        "a folder": path.mkdir,
        "a link to nothing": lambda: path.symlink_to("nothing"),
        "a link to itself": lambda: path.symlink_to(path.name),
        "a link elsewhere": lambda: path.symlink_to("/dev/null"),
        "a named pipe": lambda: os.mkfifo(path),
    }
    name = random.choice(sorted(kinds))
    kinds[name]()
    return f"{name} in place of {path.name}"


def odd_setting(folder: Path, random: Random) -> str:
    """A value anywhere in a JSON file set to an odd one, dropped, or one more put in."""
    paths = [path for path in _files(folder, ".json") if path.stat().st_size]
    settings = [path for path in paths if path.name.endswith("config.json")]
    path = random.choice(settings if settings and random.random() < 0.7 else paths)
    told = json.loads(path.read_bytes())
    holder, way = told, []
    while True:
        keys = sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if isinstance(holder, dict) and random.random() < 0.2 and not way:
            keys = list(EXTRA)
        if not keys:
            return f"nothing in {path.name}"
        key = random.choice(keys)
        way.append(key)
        inner = holder.get(key) if isinstance(holder, dict) else holder[key]
        if not isinstance(inner, (dict, list)) or not inner or random.random() < 0.2:
            break
        holder = inner
    if random.random() < 0.15 and (not isinstance(holder, dict) or key in holder):
        del holder[key]
        done = "dropped"
    else:
        holder[key] = random.choice(ODD)
        done = f"set to {holder[key]!r}"
    path.write_text(json.dumps(told))
    return f"{'.'.join(map(str, way))} of {path.name} {done}"


def odd_tensor(folder: Path, random: Random) -> str:
    """A tensor dropped, renamed, of another shape or type, with values that are no numbers, or one more."""
    path = random.choice(_files(folder, ".safetensors"))
    tensors = load_file(path)
    name = random.choice(sorted(tensors))
    weight = tensors[name]
    changes: dict[str, Callable[[], dict[str, Any]]] = {
        "dropped": lambda: {},
        "renamed": lambda: {f"{name}x": weight},
        "cut": lambda: {name: weight[: len(weight) // 2].clone()},
        "flat": lambda: {name: weight.flatten().clone()},
        "wider": lambda: {name: torch.cat([weight, weight])},
        "int8": lambda: {name: weight.to(torch.int8)},
        "half": lambda: {name: weight.half()},
        "double": lambda: {name: weight.double()},
        "bool": lambda: {name: weight > 0},
        "not a number": lambda: {name: weight * float("nan")},
        "infinite": lambda: {name: weight / 0},
        "huge": lambda: {name: weight * 1e30},
        "zero": lambda: {name: weight * 0},
        "beside another": lambda: {name: weight, "another": torch.zeros(3)},
        "empty": lambda: {name: weight[:0].clone()},
    }
    done = random.choice(sorted(changes))
    del tensors[name]
    save_file(tensors | changes[done](), path, metadata={"format": "pt"})
    return f"{name} of {path.name} {done}"


def odd_index(folder: Path, random: Random) -> str:
    """The weights under an index, which may name what it should not."""
    path = random.choice(_files(folder, ".safetensors"))
    names = sorted(load_file(path))
    shard = path.with_name("shard.safetensors")
    path.rename(shard)
    names_of = dict.fromkeys(names, shard.name)
    odd = random.choice((None, "weights.bin", "../outside.safetensors", "missing.safetensors", 3, shard.name))
    if odd is not None:
        names_of[random.choice(names)] = odd
    path.with_name(f"{path.name}.index.json").write_text(json.dumps({"weight_map": names_of}))
    return f"{path.name} under an index that names {odd!r}"


# Settings and tensors are where the odd things are, so they are drawn more often.
KINDS = (
    odd_setting,
    odd_tensor,
    flip_bits,
    cut,
    drop_file,
    replace_file,
    odd_place,
    odd_index,
    odd_setting,
    odd_tensor,
)
