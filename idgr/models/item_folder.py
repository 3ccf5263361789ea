"""The folder of a model that knows items as numbers: `config.json`, `model.safetensors`, `items.json`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import torch
from safetensors.torch import save_file

from idgr.errors import IdgrError
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import write_json
from idgr.formats.rec_folder import CONFIG, ITEMS, SASREC, TEXT_SASREC
from idgr.models.weight_files import check_files, headers_of, read_tensors

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor, nn

    Config = TypeVar("Config", bound=DataclassInstance)
    Model = TypeVar("Model", bound=nn.Module)

WEIGHTS = "model.safetensors"


def wanted(model_type: str) -> str:
    """What to do about a folder that is none of this type."""
    return f"give a folder that `idgr train-{SASREC if model_type == TEXT_SASREC else model_type}` wrote"


def save_item_model(
    model: nn.Module,
    model_type: str,
    config: DataclassInstance,
    item_keys: Sequence[str],
    folder: str | os.PathLike[str],
) -> None:
    """Write a model, its shape and the keys of its items, in the model's order, into a folder."""
    write_json(Path(folder) / ITEMS, {"items": list(item_keys)})
    save_network(model, model_type, asdict(config), folder)


def save_network(model: nn.Module, model_type: str, config: Mapping[str, Any], folder: str | os.PathLike[str]) -> None:
    """Write a model and its shape into a folder."""
    write_json(Path(folder) / CONFIG, {"model_type": model_type, **config})
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, Path(folder) / WEIGHTS)


def read_config(folder: str | os.PathLike[str], model_type: str, kind: type[Config]) -> Config:
    """The shape of a saved model; all its numbers are at least 1, and `dropout_rate` is below 1.

    Raises:
        IdgrError: the folder holds another type of model, or a number is missing or out of range.
    """
    check_files(Path(folder), os.fspath(folder))
    path = Path(folder) / CONFIG
    found = read_object(path, wanted(model_type))
    if found.get("model_type") != model_type:
        what = f"its model_type is {found.get('model_type')!r}, not {model_type!r}"
        raise IdgrError(what, wanted(model_type), where=path)
    kinds = get_type_hints(kind)
    for field in fields(kind):
        value: Any = found.get(field.name)
        good = isinstance(value, kinds[field.name]) and not isinstance(value, bool)
        if not good or not (0 <= value < 1 if field.name == "dropout_rate" else value >= 1):
            raise IdgrError(f"its {field.name} is {value!r}", wanted(model_type), where=path)
    return kind(**{field.name: found[field.name] for field in fields(kind)})


def read_keys(folder: str | os.PathLike[str], model_type: str, n_items: int) -> list[str]:
    """The keys of the items of a saved model, in its order.

    Raises:
        IdgrError: they are not so many different keys.
    """
    path = Path(folder) / ITEMS
    keys = read_object(path, wanted(model_type)).get("items")
    if not isinstance(keys, list) or not all(isinstance(key, str) and key for key in keys):
        raise IdgrError('its "items" is not a list of keys', wanted(model_type), where=path)
    if len(set(keys)) != len(keys) or len(keys) != n_items:
        what = f"lists {len(set(keys))} different items, where {CONFIG} tells of {n_items}"
        raise IdgrError(what, wanted(model_type), where=path)
    return keys


def read_weights(folder: str | os.PathLike[str], model_type: str) -> dict[str, Tensor]:
    """The weights of a saved model, by name, in float32.

    Raises:
        IdgrError: the file cannot be read, or holds other numbers than finite floating-point ones.
    """
    path = Path(folder) / WEIGHTS
    name = os.fspath(folder)
    try:
        headers = headers_of(path, name)
    except IdgrError as fault:
        raise IdgrError(f"cannot be read ({fault.what})", wanted(model_type), where=path) from None
    return read_tensors(headers, name)


def without_weights(
    kind: Callable[[Config], Model], config: Config, folder: str | os.PathLike[str], model_type: str
) -> Model:
    """A model on the device `meta`, which takes no memory, whatever its configuration says.

    Raises:
        IdgrError: there are no tensors of such a shape.
    """
    try:
        with torch.device("meta"):
            return kind(config)
    except (RuntimeError, OverflowError, TypeError):  # what PyTorch makes of numbers that a size cannot be
        what = "asks for tensors that are too large to be"
        raise IdgrError(what, wanted(model_type), where=Path(folder) / CONFIG) from None


def take_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], folder: str | os.PathLike[str], model_type: str
) -> None:
    """Give a model, which may lie on the device `meta`, the weights that were read.

    Raises:
        IdgrError: the model has other weights, or of another shape.
    """
    expected = {name: list(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: list(weight.shape) for name, weight in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            asked = expected.get(name, "none")
            what = f"its {name} is {found.get(name, 'missing')}, where its {CONFIG} asks for {asked}"
            raise IdgrError(what, wanted(model_type), where=Path(folder) / WEIGHTS)
    model.load_state_dict(tensors, assign=True)
