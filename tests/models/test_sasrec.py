"""SASRec: each place sees the past alone, and its folder is read back or refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from idgr.errors import IdgrError
from idgr.formats.rec_folder import item_model_type
from idgr.models.item_models import pad_histories, read_item_vectors
from idgr.models.sasrec import (
    Sasrec,
    SasrecConfig,
    load_sasrec,
    new_sasrec,
    save_sasrec,
)

CONFIG = SasrecConfig(n_items=7, width=8, layers=2, heads=2, max_history=5, dropout_rate=0.25)
KEYS = [f"i{n}" for n in range(7)]


@pytest.fixture
def model() -> Sasrec:
    model = new_sasrec(CONFIG, seed=3).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(10)  # so that attention is not the same everywhere
    return model


@pytest.fixture
def folder(model: Sasrec, tmp_path: Path) -> Path:
    save_sasrec(model, KEYS, tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_later_item_changes_nothing_earlier(model: Sasrec, dtype: torch.dtype) -> None:
    model.to(dtype)
    with torch.inference_mode():
        one, other = model(torch.tensor([[0, 1, 2, 3, 4]])), model(torch.tensor([[0, 1, 2, 6, 4]]))
    assert torch.equal(one[0, :3], other[0, :3])
    assert not torch.allclose(one[0, 3].float(), other[0, 3].float(), atol=1e-2)
    assert not torch.allclose(one[0, 4].float(), other[0, 4].float(), atol=1e-3), "what is earlier does matter"


def test_both_ways_of_attention_agree(model: Sasrec) -> None:
    items = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 0, 7, 7]])
    with torch.inference_mode():
        exact, rough = model(items), model.bfloat16()(items).float()
    assert (exact - rough).norm() < 0.02 * exact.norm()


def test_filling_up_changes_nothing_and_the_newest_items_are_read(model: Sasrec) -> None:
    histories = [np.array(row, dtype=np.int64) for row in ([3], [], [6, 5, 4, 3, 2, 1, 0])]
    items_BL, lengths_B = pad_histories(model, histories)
    assert items_BL.tolist() == [[3, 7, 7, 7, 7], [7, 7, 7, 7, 7], [4, 3, 2, 1, 0]]
    assert lengths_B.tolist() == [1, 1, 5]
    with torch.inference_mode():
        torch.testing.assert_close(model(items_BL)[0, 0], model(torch.tensor([[3]]))[0, 0])


def test_what_stands_for_no_item_is_0_and_no_item_vector(model: Sasrec) -> None:
    assert model.items.weight[-1].tolist() == [0.0] * 8
    assert model.item_vectors().shape == (7, 8)


def test_weights_follow_from_the_seed() -> None:
    one, same, other = (new_sasrec(CONFIG, seed).item_vectors() for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_folder_is_read_back(model: Sasrec, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "items.json", "model.safetensors"}
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sasrec"
    assert item_model_type(folder) == "sasrec"
    again, keys = load_sasrec(folder)
    assert keys == KEYS
    assert again.config == CONFIG
    assert not again.training
    items = torch.tensor([[0, 1, 2]])
    with torch.inference_mode():
        assert torch.equal(again(items), model(items))


def test_item_vectors_for_others(model: Sasrec, folder: Path) -> None:
    keys, vectors = read_item_vectors(folder)
    assert keys == KEYS
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, model.item_vectors().detach().numpy())


def test_other_folders_are_none(folder: Path) -> None:
    assert item_model_type(folder / "nowhere") is None
    for text in ('{"model_type": "t5"}', "[]", "{"):
        (folder / "config.json").write_text(text)
        assert item_model_type(folder) is None


def config_of(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(found | changes))

    return change


def items_of(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "items.json").write_text(text) and None


def without(tensor: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors[tensor]
        save_file(tensors, folder / "model.safetensors")

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (config_of(model_type="t5"), "config.json: its model_type is 't5', not 'sasrec'"),
        (config_of(width="8"), "config.json: its width is '8'"),
        (config_of(layers=0), "config.json: its layers is 0"),
        (config_of(dropout_rate=1.5), "config.json: its dropout_rate is 1.5"),
        (config_of(heads=3), "config.json: its 3 heads do not divide its width of 8"),
        (config_of(n_items=8), "items.json: lists 7 different items, where config.json tells of 8"),
        (config_of(layers=10**12), "model.safetensors: has not the 1000000000000 layers of config.json"),
        (config_of(layers=1), "model.safetensors: its layers.1."),
        (config_of(max_history=10**9), "model.safetensors: its places.weight is [5, 8]"),
        (items_of("[]"), "items.json: is not a JSON object"),
        (items_of('{"items": [1]}'), 'items.json: its "items" is not a list of keys'),
        (items_of("{"), "items.json: is not a JSON object ("),
        (without("norm.bias"), "model.safetensors: its norm.bias is missing"),
        (lambda folder: (folder / "items.json").unlink(), "items.json: cannot be read ("),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(pickle.dumps([1])),
            "model.safetensors: cannot be read",
        ),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(
    folder: Path, change: Callable[[Path], object], message: str
) -> None:
    change(folder)
    with pytest.raises(IdgrError) as fault:
        load_sasrec(folder)
    assert message in str(fault.value)
    assert str(fault.value).endswith("; give a folder that `idgr train-sasrec` wrote")
