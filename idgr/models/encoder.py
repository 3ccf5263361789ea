"""A saved model of any architecture that transformers knows, to read texts with.

Its files are opened one by one as those of idgr's own models; nothing is computed here.
"""

from __future__ import annotations

import os
import re
from math import prod
from typing import Any

from idgr.errors import IdgrError
from idgr.formats.rec_folder import CONFIG
from idgr.models.hub import find_folder, quiet_transformers, told_as_unusable
from idgr.models.weight_files import floats, read_headers, read_object, read_tensors
from idgr.options import MOST_INT

_LAYERS = re.compile(r"(num_.*layers|n_layers?|.*_layers)")
_UNUSED = "pooler"  # the part of an encoder that many are saved without; the last hidden states do not ask it


def load_encoder(source: str) -> Any:
    """The model without a head, in float32, in evaluation mode.

    Raises:
        IdgrError: there is none, it holds no safetensors, misses weights, or its configuration asks for far more than
            its weights are.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    quiet_transformers()
    folder = find_folder(source, "model")
    told = read_object(folder / CONFIG, source)
    headers = floats(read_headers(folder, source))
    for key, value in told.items():
        if _LAYERS.fullmatch(key) and isinstance(value, int) and value > len(headers):
            what = f"its {key} in config.json is {value}, and there are {len(headers)} tensors"
            raise IdgrError(what, "give a complete model folder", where=source)
    with told_as_unusable("model", source):
        config = AutoConfig.from_pretrained(os.fspath(folder), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            shell = AutoModel.from_config(config, trust_remote_code=False)
    asked, there = (
        sum(weight.numel() for weight in shell.parameters()),
        sum(prod(header.shape) for header in headers.values()),
    )
    if asked > 2 * there:
        what = f"its config.json asks for {asked} numbers, and there are {there}"
        raise IdgrError(what, "give a complete model folder", where=source)
    with told_as_unusable("model", source):
        model, report = type(shell).from_pretrained(
            None,
            config=config,
            state_dict=read_tensors(headers, source),
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = [name for name in report["missing_keys"] if _UNUSED not in name]
    if missing:
        what = f"misses the weights of {len(missing)} tensors, such as {min(missing)}"
        raise IdgrError(what, "give a complete model folder", where=source)
    return model.eval()


def n_places(model: Any) -> int:
    """How many tokens a model of `load_encoder` has places for, special ones with them; `MOST_INT` where any do."""
    told = getattr(model.config, "max_position_embeddings", None)
    most = told if isinstance(told, int) else MOST_INT
    places = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    begin = getattr(places, "padding_idx", None)
    # RoBERTa and its kin count places from the one after the padding's.
    return most if begin is None else min(most, int(getattr(places, "num_embeddings", most)) - begin - 1)
