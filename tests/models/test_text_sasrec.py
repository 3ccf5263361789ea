"""The SASRec of texts: its network, its whitening, its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from idgr.errors import IdgrError
from idgr.formats.rec_folder import item_model_type
from idgr.models.item_models import load_item_model, pad_histories
from idgr.models.text_sasrec import (
    TextSasrec,
    TextSasrecConfig,
    TextSource,
    load_text_sasrec,
    new_text_sasrec,
    save_text_sasrec,
    whitened,
)

CONFIG = TextSasrecConfig(7, 8, 2, 2, 5, 0.25, text_width=6)
SOURCE = TextSource("/models/reader", "ab" * 32)
VECTORS = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)


@pytest.fixture
def model() -> TextSasrec:
    model = new_text_sasrec(CONFIG, seed=3).eval()
    model.take_catalogue(VECTORS)
    return model


@pytest.fixture
def folder(model: TextSasrec, tmp_path: Path) -> Path:
    save_text_sasrec(model, SOURCE, tmp_path)
    return tmp_path


def test_whitened_vectors_are_spread_alike_in_their_own_axes() -> None:
    rng = np.random.default_rng(1)
    drawn = (rng.normal(size=(5000, 4)) * [3, 1, 2, 0.5] + [5, 0, 0, 1]).astype(np.float32)
    found = whitened(drawn)
    np.testing.assert_allclose(np.cov(found.T), np.eye(4), atol=0.2)
    assert (np.diag(np.corrcoef(found.T, drawn.T)[:4, 4:]) > 0.99).all(), "an axis means what it meant"
    assert np.abs(found.mean(0)).max() < 1e-4
    assert whitened(np.ones((3, 4), dtype=np.float32)).tolist() == [[0] * 4] * 3
    few = whitened(drawn[:2])
    assert np.isfinite(few).all()
    assert np.abs(few).max() < 10


def test_scores_are_cosines_by_the_temperature(model: TextSasrec) -> None:
    """Against the definition, written out."""
    items_BL, lengths_B = pad_histories(model, [np.array([3, 1]), np.array([], dtype=np.int64)])
    assert items_BL.tolist() == [[3, 1], [7, 7]]
    with torch.inference_mode():
        scores_BI = model.catalogue_scores(items_BL, lengths_B)
        adaptor, read = model.items.adaptor, torch.from_numpy(whitened(VECTORS))
        vectors_ID = read @ adaptor.weight.T + adaptor.bias
        hidden = torch.stack([vectors_ID[3], vectors_ID[1]])[None] + model.places.weight[:2]
        for layer in model.layers:
            hidden = layer(hidden)
        newest = model.norm(hidden)[0, -1]
        expected = [float(torch.cosine_similarity(newest, vector, dim=0)) / 0.07 for vector in vectors_ID]
    assert scores_BI[0].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert scores_BI.abs().max() <= 1 / 0.07 + 1e-3
    assert torch.isfinite(scores_BI).all()


def test_another_catalogue_takes_the_place_of_the_first(model: TextSasrec) -> None:
    model.take_catalogue(VECTORS[:3])
    assert (model.no_item, model.item_vectors().shape) == (3, (3, 8))
    with torch.inference_mode():
        assert model.catalogue_scores(*pad_histories(model, [np.array([2])])).shape == (1, 3)


def test_a_folder_is_read_back_exactly(model: TextSasrec, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert item_model_type(folder) == "text-sasrec"
    assert all(7 not in weight.shape for weight in load_file(folder / "model.safetensors").values()), "no item table"
    again, source = load_text_sasrec(folder)
    assert (again.config, source, again.training) == (CONFIG, SOURCE, False)
    again.take_catalogue(VECTORS)
    items = torch.tensor([[0, 1, 2]])
    with torch.inference_mode():
        assert torch.equal(again(items), model(items))
        assert torch.equal(again.item_vectors(), model.item_vectors())


def test_where_item_vectors_are_wanted_it_is_refused(folder: Path) -> None:
    with pytest.raises(IdgrError, match="is a SASRec of texts, which keeps no items; give a SASRec"):
        load_item_model(folder)


def config_of(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(found | changes))

    return change


def without_adaptor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["items.adaptor.bias"]
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (config_of(model_type="sasrec"), "config.json: its model_type is 'sasrec', not 'text-sasrec'"),
        (config_of(text_width=0), "config.json: its text_width is 0"),
        (config_of(text_width=7), "model.safetensors: its items.adaptor.weight is [8, 6]"),
        (config_of(text_width=10**18), "config.json: asks for tensors that are too large to be"),
        (config_of(heads=3), "config.json: its 3 heads do not divide its width of 8"),
        (config_of(layers=3), "model.safetensors: has not the 3 layers of config.json"),
        (config_of(text_vectors="x"), "config.json: its text_vectors do not tell path and sha256"),
        (config_of(text_vectors={"path": "x", "sha256": 1}), "config.json: its text_vectors do not tell"),
        (without_adaptor, "model.safetensors: its items.adaptor.bias is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "model.safetensors: cannot be read"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(
    folder: Path, change: Callable[[Path], object], message: str
) -> None:
    change(folder)
    with pytest.raises(IdgrError) as fault:
        load_text_sasrec(folder)
    assert message in str(fault.value)
    assert str(fault.value).endswith("; give a folder that `idgr train-sasrec` wrote")
