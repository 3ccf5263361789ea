"""The files of a model folder, held to what may be opened: tensors as safetensors, and nothing outside the folder.

Shapes are known from the files' headers before a byte of a tensor is read, so that a configuration can be held against
them before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError
from idgr.formats import json_file

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_MOST_JSON = 512 << 20  # bytes; the largest vocabularies have a tenth
# What safetensors calls the numbers that weights are made of.
_FLOATS = ("F64", "F32", "F16", "BF16")
# What the libraries open in a folder, by the endings of names.
_OPENED = (".json", ".safetensors", ".model", ".txt", ".jinja", ".gguf")


@dataclass(frozen=True)
class Header:
    """What a file's header tells of a tensor: its shape, its type as safetensors names it, and the file."""

    shape: tuple[int, ...]
    dtype: str
    file: Path


def check_files(folder: Path, name: str) -> None:
    """Raise `IdgrError` where what would be opened in a folder is no file, lies elsewhere, or is far too large.

    In the cache of the Hugging Face hub, files are links to the `blobs` beside the snapshots; those are of the folder.

    Args:
        name: what to call the folder in messages.
    """
    if not folder.is_dir():
        return  # whoever reads it tells
    home = folder.resolve()
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(_OPENED) or path.is_dir():
            continue
        if path.is_symlink():
            try:
                target = path.resolve()
            except (OSError, RuntimeError):  # a link to itself
                raise IdgrError(f"its {path.name} is no file", "give a complete model folder", where=name) from None
            if not target.is_relative_to(home) and not _is_blob(target):
                todo = "put the file itself there, whose hash then counts as the folder's"
                raise IdgrError(f"its {path.name} is a link that leaves the folder", todo, where=name)
        if not path.is_file():
            raise IdgrError(f"its {path.name} is no file", "give a complete model folder", where=name)
        if path.suffix == ".json" and path.stat().st_size > _MOST_JSON:
            raise IdgrError(f"its {path.name} has more than {_MOST_JSON >> 20} MiB", "give a model folder", where=name)


def _is_blob(target: Path) -> bool:
    return target.parent.name == "blobs" and target.parent.parent.name.startswith("models--")


def read_object(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a model folder, which `name` is what to call in messages.

    Raises:
        IdgrError: there is none.
    """
    todo = "give a complete model folder"
    try:
        return json_file.read_object(path, todo)
    except IdgrError as fault:
        raise IdgrError(f"its {path.name} {fault.what}", todo, where=name) from None


def read_headers(folder: Path, name: str) -> dict[str, Header]:
    """What is known of every tensor of a model folder, by the tensor's name; nothing but safetensors is opened.

    Args:
        name: what to call the folder in messages.

    Raises:
        IdgrError: the folder has no weights, or pickled ones only; a file is missing or damaged; the index names what
            is no safetensors file of the folder.
    """
    if (folder / WEIGHTS).exists():
        return headers_of(folder / WEIGHTS, name)
    if not (folder / INDEX).exists():
        if has_pickles(names_in(folder)):
            raise pickled(name)
        raise IdgrError(f"holds no {WEIGHTS}", "give a complete model folder", where=name)
    shard_of = _shards(read_object(folder / INDEX, name).get("weight_map"), folder, name)
    found: dict[str, Header] = {}
    for shard in sorted(set(shard_of.values())):
        for tensor, header in headers_of(folder / shard, name).items():
            if tensor in found:
                what = f"holds {tensor!r} twice, in {found[tensor].file.name} and {shard}"
                raise IdgrError(what, "give a complete model folder", where=name)
            found[tensor] = header
    for tensor, shard in shard_of.items():
        if tensor not in found or found[tensor].file.name != shard:
            what = f"its {INDEX} looks for {tensor!r} in {shard}, which does not hold it"
            raise IdgrError(what, "give a complete model folder", where=name)
    return found


def _shards(weight_map: Any, folder: Path, name: str) -> dict[str, str]:
    """The index's file of each tensor."""
    todo = "give a model folder as save_pretrained writes it"
    if not isinstance(weight_map, dict) or not weight_map:
        raise IdgrError(f"its {INDEX} has no weight_map", todo, where=name)
    for shard in weight_map.values():
        if not isinstance(shard, str) or not shard.endswith(".safetensors"):
            raise IdgrError(f"its {INDEX} names {shard!r}, which is no safetensors file", todo, where=name)
        if Path(shard).name != shard or "\\" in shard or "\0" in shard:
            raise IdgrError(f"its {INDEX} names {shard!r}, which is no file of the folder", todo, where=name)
    for shard in sorted(set(weight_map.values())):
        if not (folder / shard).is_file():
            raise IdgrError(f"its {INDEX} names {shard}, which is missing", todo, where=name)
    return dict(weight_map)


def headers_of(path: Path, name: str, what: str = "model") -> dict[str, Header]:
    """What the header of one safetensors file tells of its tensors.

    Args:
        what: what is read, for messages.

    Raises:
        IdgrError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as tensors:
            slices = {tensor: tensors.get_slice(tensor) for tensor in tensors.keys()}  # noqa: SIM118 - no dictionary
            found = {tensor: Header(tuple(part.get_shape()), part.get_dtype(), path) for tensor, part in slices.items()}
    except (OSError, SafetensorError) as fault:
        raise _unreadable(what, path, fault, name) from None
    return found


def _unreadable(what: str, path: Path, fault: Exception, name: str) -> IdgrError:
    reason = f"its {path.name} cannot be read: {str(fault).strip()}"
    return IdgrError(f"holds no usable {what} ({reason})", f"give a complete {what} folder", where=name)


def floats(headers: Mapping[str, Header]) -> dict[str, Header]:
    """Those of floating-point numbers; some encoders have places and the like among their tensors."""
    return {tensor: header for tensor, header in headers.items() if header.dtype in _FLOATS}


def read_tensors(headers: Mapping[str, Header], name: str, what: str = "model") -> dict[str, Tensor]:
    """The tensors, in float32, which all of idgr's models train and rank in if nothing else is asked for.

    Args:
        what: what is read, for messages.

    Raises:
        IdgrError: a file cannot be read, or a tensor holds other numbers than finite floating-point ones.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    for tensor, header in headers.items():
        if header.dtype not in _FLOATS:
            told = f"its {tensor!r} holds numbers of type {header.dtype}"
            raise IdgrError(told, "give weights that are not quantised: F32, F16, BF16 or F64", where=name)
    found: dict[str, Tensor] = {}
    for path in sorted({header.file for header in headers.values()}):
        try:
            with safe_open(path, framework="pt") as tensors:
                for tensor in _of(headers, path):
                    # A copy: the file may be replaced while the model is in use.
                    found[tensor] = tensors.get_tensor(tensor).to(torch.float32, copy=True)
        except (OSError, SafetensorError) as fault:
            raise _unreadable(what, path, fault, name) from None
    check_finite(found, name, what)
    return found


def check_finite(tensors: Mapping[str, Tensor], name: str, what: str = "model") -> None:
    """Raise `IdgrError` where a tensor holds values that are no finite numbers; the arguments as `read_tensors`'s."""
    for tensor, values in tensors.items():
        if not bool(values.isfinite().all()):
            told = f"its {tensor!r} holds values that are not finite numbers"
            raise IdgrError(told, f"train or fetch the {what} again", where=name)


def _of(headers: Mapping[str, Header], path: Path) -> Iterable[str]:
    return (tensor for tensor, header in headers.items() if header.file == path)


def names_in(folder: Path) -> list[str]:
    """The names of what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def has_safetensors(names: Iterable[str]) -> bool:
    """Whether there are weights as safetensors among a folder's files."""
    return not {WEIGHTS, INDEX}.isdisjoint(names)


def has_pickles(names: Iterable[str]) -> bool:
    """Whether there are pickled weights among a folder's files."""
    return any(name.startswith("pytorch_model") and name.endswith((".bin", ".bin.index.json")) for name in names)


def pickled(name: str) -> IdgrError:
    """The error for a model of which there are pickled weights alone."""
    return IdgrError(
        "holds its weights as pickle, which idgr does not read",
        "convert them: load the model where you trust it and call save_pretrained, which writes model.safetensors",
        where=name,
    )
