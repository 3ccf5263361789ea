"""The two-tower: its scores beside one pair at a time, histories of different lengths, and its folder on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from idgr.errors import IdgrError
from idgr.formats.rec_folder import item_model_type
from idgr.item_models.ranking import rank_items
from idgr.models import two_tower
from idgr.models.item_models import load_item_model, pad_histories, read_item_vectors
from idgr.models.two_tower import TwoTower, TwoTowerConfig, load_two_tower, new_two_tower, save_two_tower

CONFIG = TwoTowerConfig(n_items=7, width=6, units=3, max_history=4, dropout_rate=0.25)
KEYS = [f"i{n}" for n in range(7)]
HISTORIES = [[3], [], [6, 5, 4, 3, 2, 1, 0], [1, 1, 2]]


@pytest.fixture
def model() -> TwoTower:
    """Every weight is drawn, so that none of them is without a say."""
    model = new_two_tower(CONFIG, seed=3).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
        model.items.weight[-1] = 0
    return model


@pytest.fixture
def folder(model: TwoTower, tmp_path: Path) -> Path:
    save_two_tower(model, KEYS, tmp_path)
    return tmp_path


def padded(model: TwoTower) -> tuple[Tensor, Tensor]:
    return pad_histories(model, [np.array(history, dtype=np.int64) for history in HISTORIES])


def pair_score(model: TwoTower, history: list[int], candidate: int) -> float:
    """The formulas of the module, an item of the history at a time."""
    weight = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    vector = weight["items.weight"][candidate]
    user = weight["everyone"].copy()
    for back, item in enumerate(reversed(history[-CONFIG.max_history :])):
        read = weight["items.weight"][item]
        placed = read + weight["places.weight"][back]
        unit = weight["by_history.weight"] @ placed + weight["by_history.bias"]
        unit += weight["by_candidate"] @ vector + weight["by_product"] @ (placed * vector)
        attention = weight["weigh.weight"][0] @ np.maximum(unit, 0) + weight["weigh.bias"][0]
        user += attention * (weight["values.weight"] @ read)
    return float(user @ vector)


@pytest.mark.parametrize("pairs", [1, 40, 2**17])
def test_scores_are_those_of_one_pair_at_a_time(model: TwoTower, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_tower, "_PAIRS", pairs)
    expected = torch.tensor([[pair_score(model, history, item) for item in range(7)] for history in HISTORIES])
    assert expected.std() > 1
    with torch.inference_mode():
        torch.testing.assert_close(model.catalogue_scores(*padded(model)), expected, rtol=1e-4, atol=1e-4)
        some = model(*padded(model), model.item_vectors()[[4, 2, 2]])
        torch.testing.assert_close(some, expected[:, [4, 2, 2]], rtol=1e-4, atol=1e-4)


def test_filling_up_changes_nothing(model: TwoTower) -> None:
    items_BL, lengths_B = padded(model)
    assert items_BL.tolist() == [[3, 7, 7, 7], [7, 7, 7, 7], [3, 2, 1, 0], [1, 1, 2, 7]]
    with torch.inference_mode():
        together = model.catalogue_scores(items_BL, lengths_B)
        for row, length in enumerate(lengths_B.tolist()):
            alone = model.catalogue_scores(items_BL[row : row + 1, :length], lengths_B[row : row + 1])
            torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)


def test_order_counts(model: TwoTower) -> None:
    with torch.inference_mode():
        one, other = model.catalogue_scores(torch.tensor([[1, 2, 3], [3, 2, 1]]), torch.tensor([3, 3]))
    assert not torch.allclose(one, other, atol=0.1)


def test_what_stands_for_no_item_gets_no_gradient(model: TwoTower) -> None:
    model.catalogue_scores(*padded(model)).square().sum().backward()  # type: ignore[no-untyped-call]
    gradient = model.items.weight.grad
    assert gradient is not None
    assert gradient[-1].tolist() == [0.0] * 6
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_it_is_ranked_like_a_sasrec(model: TwoTower) -> None:
    found = rank_items(model, HISTORIES, 3, excluded=[set(history) for history in HISTORIES])
    for ranking, history in zip(found, HISTORIES, strict=True):
        scores = {item: pair_score(model, history, item) for item in set(range(7)) - set(history)}
        assert ranking.items == sorted(scores, key=lambda item: -scores[item])[:3]


def test_weights_follow_from_the_seed() -> None:
    one, same, other = (new_two_tower(CONFIG, seed).item_vectors() for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_folder_is_read_back(model: TwoTower, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"config.json", "items.json", "model.safetensors"}
    assert item_model_type(folder) == json.loads((folder / "config.json").read_text())["model_type"] == "two-tower"
    again, keys = load_item_model(folder)
    assert isinstance(again, TwoTower)
    assert (keys, again.config, again.training) == (KEYS, CONFIG, False)
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in again.state_dict().items())
    with torch.inference_mode():
        torch.testing.assert_close(again.catalogue_scores(*padded(model)), model.catalogue_scores(*padded(model)))
    keys, vectors = read_item_vectors(folder)
    assert keys == KEYS
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, model.items.weight[:-1].detach().numpy())


def config_of(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(found | changes))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (config_of(model_type="sasrec"), "config.json: its model_type is 'sasrec', not 'two-tower'"),
        (config_of(units=0), "config.json: its units is 0"),
        (config_of(units=4), "model.safetensors: its by_candidate is [3, 6], where its config.json asks for [4, 6]"),
        (config_of(max_history=10**9), "model.safetensors: its places.weight is [4, 6]"),
        (config_of(n_items=8), "items.json: lists 7 different items, where config.json tells of 8"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: cannot be read"),
        (lambda folder: (folder / "items.json").write_text("[]"), "items.json: is not a JSON object"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(
    folder: Path, change: Callable[[Path], object], message: str
) -> None:
    change(folder)
    with pytest.raises(IdgrError) as fault:
        load_two_tower(folder)
    assert message in str(fault.value)
    assert str(fault.value).endswith("; give a folder that `idgr train-two-tower` wrote")
