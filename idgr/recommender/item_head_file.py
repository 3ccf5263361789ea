"""The file of an item head, beside the model that it belongs to.

It holds the head's weights, the pairs of near items where it heeds them, and in its metadata the items' keys. These are
all of its metadata: several entries would be written in an order that differs from run to run.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import orjson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from idgr.errors import IdgrError
from idgr.formats.rec_folder import ITEM_HEAD, read_item_head_weight
from idgr.models.weight_files import Header, headers_of, read_tensors
from idgr.recommender.item_head import ItemHead
from idgr.recommender.near_items import NearItems
from idgr.recommender.near_mixture import NearMixture

_WANTED = "give the folder as `idgr train-rec` wrote it, or --item-head-weight 0"
_PAIRS = "pairs."
_ITEMS = "items"  # in the metadata


def save_item_head(head: ItemHead, item_keys: Sequence[str], folder: str | os.PathLike[str]) -> None:
    """Write a head, and the keys of its items in the order of its free vectors, into a recommender's folder."""
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in head.state_dict().items()}
    if head.near is not None:
        tensors |= {f"{_PAIRS}{name}": torch.from_numpy(array) for name, array in head.near.arrays().items()}
    save_file(tensors, Path(folder) / ITEM_HEAD, metadata={_ITEMS: orjson.dumps(list(item_keys)).decode()})


def load_item_head(
    folder: str | os.PathLike[str], item_keys: Sequence[str], width: int, texts: Sequence[str] | None = None
) -> ItemHead:
    """The head in a recommender's folder, for a catalogue; items that it does not know have free vectors of zeros.

    They have no pairs of use, and none of texts but where the catalogue's texts are given.

    Args:
        item_keys: the catalogue.
        width: D.
        texts: of its items; where it is another than that of the training, the pairs of texts are made anew of them.

    Raises:
        IdgrError: the folder has none, or one that is damaged or of a model of another width.
    """
    path = Path(folder) / ITEM_HEAD
    headers = _headers(folder)
    weights = {name: header for name, header in headers.items() if not name.startswith(_PAIRS)}
    tensors = read_tensors(weights, os.fspath(folder), "item head")
    known = head_items(folder)
    number = {key: place for place, key in enumerate(known)}
    near = None
    if names := headers.keys() - weights.keys():
        near = _pairs(path, names, [number.get(key, -1) for key in item_keys], len(known))
        if texts is not None and set(item_keys) != number.keys():
            near = near.with_texts(texts)
    own = "given_IE" if "given_IE" in tensors else "free_ID"
    head = _empty(tensors, len(known), width, near)
    expected = {tensor: list(weight.shape) for tensor, weight in head.state_dict().items()}
    found = {tensor: list(weight.shape) for tensor, weight in tensors.items()}
    for tensor in sorted(expected.keys() | found.keys()):
        if expected.get(tensor) != found.get(tensor):
            what = f"its {tensor} is {found.get(tensor, 'missing')}, where {expected.get(tensor, 'none')} is expected"
            raise IdgrError(what, _WANTED, where=path)
    rows = torch.tensor([number.get(key, len(known)) for key in item_keys])
    tensors[own] = torch.cat([tensors[own], torch.zeros_like(tensors[own][:1])])[rows]
    fitted = _empty(tensors, len(item_keys), width, near)
    fitted.load_state_dict(tensors)
    return fitted.eval().requires_grad_(False)


def refuse_told_items(rec: str | os.PathLike[str], todo: str) -> None:
    """Raise `IdgrError` where a recommender tells items, for what reads the tokens of its histories alone."""
    if read_item_head_weight(rec) is not None and tells_items(rec):
        raise IdgrError("reads a vector of each item beside its ID (--tell-items)", todo, where=os.fspath(rec))


def tells_items(folder: str | os.PathLike[str]) -> bool:
    """Whether the head in a recommender's folder tells items, so that the model is no whole one without it.

    Raises:
        IdgrError: the folder has none, or one that is damaged.
    """
    return "telling.weight" in _headers(folder)


def has_pairs(folder: str | os.PathLike[str]) -> bool:
    """Whether the head in a recommender's folder heeds pairs of items.

    Raises:
        IdgrError: the folder has none, or one that is damaged.
    """
    return "near_weight" in _headers(folder)


def head_items(folder: str | os.PathLike[str]) -> list[str]:
    """The keys of the items that the head in a recommender's folder was trained on. Raises `IdgrError` without any."""
    path = Path(folder) / ITEM_HEAD
    try:
        with safe_open(path, framework="pt") as file:
            keys = orjson.loads((file.metadata() or {})[_ITEMS])
    except (OSError, SafetensorError, KeyError, orjson.JSONDecodeError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise IdgrError("does not tell the keys of its items", _WANTED, where=path)
    return keys


def _headers(folder: str | os.PathLike[str]) -> dict[str, Header]:
    path, name = Path(folder) / ITEM_HEAD, os.fspath(folder)
    if not path.is_file():
        raise IdgrError(f"holds no {ITEM_HEAD}", _WANTED, where=name)
    return headers_of(path, name, "item head")


def _pairs(path: Path, names: Collection[str], known: list[int], n_known: int) -> NearItems:
    """The pairs of the catalogue whose items had the `known` numbers, -1 for those that were not there."""
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name.removeprefix(_PAIRS): file.get_tensor(name) for name in names}
        # A file that does not tell is older; where enough items are alike, one has as many pairs as any could have.
        most = [np.diff(arrays[f"{kind}_begin"]).max() for kind in ("text", "use")]
        near = NearItems.of({"n": np.array(max(most)), **arrays}, np.array(known, dtype=np.int64))
    except (OSError, SafetensorError, KeyError, IndexError, TypeError, ValueError):
        raise IdgrError("its pairs of items do not fit together", _WANTED, where=path) from None
    if len(arrays["count"]) != n_known:
        raise IdgrError(f"its pairs are of {len(arrays['count'])} items, its keys of {n_known}", _WANTED, where=path)
    return near


def _empty(tensors: dict[str, Tensor], n_items: int, width: int, near: NearItems | None) -> ItemHead:
    """A head of the form that such tensors are of."""
    given_IE = tensors.get("given_IE")
    if given_IE is not None:
        given_IE = given_IE.new_zeros(n_items, given_IE.shape[-1])
    head = ItemHead(n_items, width, given_IE=given_IE, tells="telling.weight" in tensors, near=near)
    if "mixture.log_odds" in tensors and head.near_weight is not None:
        head.mixture = NearMixture(head.near_weight)
    return head
