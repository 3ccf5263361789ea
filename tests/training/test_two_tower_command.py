"""The two-tower's loss and its training, from tensors to the command and those who read its vectors."""

from __future__ import annotations

import math
import random
import signal
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch

from idgr.cli.main import run
from idgr.engine import trainer
from idgr.engine.options import TrainingOptions
from idgr.evaluation.metrics import hit_rate, target_ranks
from idgr.formats.run_info import hash_folder
from idgr.item_models.training import train_item_model
from idgr.item_models.two_tower import two_tower_task
from idgr.models.item_models import read_item_vectors
from idgr.models.two_tower import TwoTowerConfig, new_two_tower


def test_the_loss_is_that_of_a_loop_over_pairs() -> None:
    sequences = [[0, 1, 2], [3, 1], [4, 2, 1, 5]]  # targets 1 2 1 2 1 5
    model = new_two_tower(TwoTowerConfig(7, width=4, units=3), seed=0).eval()
    with torch.no_grad():
        model.items.weight.mul_(8)
    batch = np.array([4, 0, 1, 2, 5])
    loss, n = two_tower_task(model, sequences, []).loss_of(batch, 0)
    assert n == 5
    instances = [(row[:end], row[end]) for row in sequences for end in range(1, len(row))]
    picked = [instances[number] for number in batch.tolist()]
    share = {item: sum(target == item for _, target in instances) / len(instances) for item in range(7)}
    expected = 0.0
    for history, target in picked:
        with torch.inference_mode():
            scores = model.catalogue_scores(torch.tensor([history]), torch.tensor([len(history)]))[0].tolist()
        right = scores[target] - math.log(share[target])
        # Of the other rows, those with the same target are no negatives.
        wrong = [scores[other] - math.log(share[other]) for _, other in picked if other != target]
        expected += math.log(sum(math.exp(score) for score in [right, *wrong])) - right
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_two_groups_are_told_apart() -> None:
    """Users buy from one of two groups of items only, in any order; popularity knows nothing of that."""
    draw = random.Random(0)
    sequences, valid = [], []
    for user in range(120):
        *row, target = draw.sample(range(user % 2, 40, 2), 7)
        sequences.append(row)
        valid.append((row, target))
    model = new_two_tower(TwoTowerConfig(40, width=8, units=4, dropout_rate=0.1), seed=0)
    records: list[dict[str, float]] = []
    options = TrainingOptions(epochs=5, lr=1e-2, batch_size=64)
    best = train_item_model(model, two_tower_task, sequences, valid, options, records.append)
    often = np.bincount(np.concatenate(sequences), minlength=40)
    by_often = sorted(range(40), key=lambda item: -often[item])
    lists = [[item for item in by_often if item not in history][:10] for history, _ in valid]
    popular = hit_rate(target_ranks(lists, [target for _, target in valid]), 10)
    assert popular < 0.4
    assert best["hr@10"] > popular + 0.15
    assert best["ndcg@10"] == max(record["ndcg@10"] for record in records)
    vectors = torch.nn.functional.normalize(model.item_vectors(), dim=1)
    alike = (vectors @ vectors.T).detach()
    assert alike[::2, ::2].mean() > alike[::2, 1::2].mean() + 0.1
    assert model.items.weight[-1].tolist() == [0.0] * 8


def command(data: Path, *options: str, output: str = "tower") -> int:
    files = [str(data / "train.jsonl"), "--items", str(data / "items.jsonl"), "--valid", str(data / "valid.jsonl")]
    shape = ["--width", "8", "--units", "2", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]
    return run(["train-two-tower", *files, "-o", str(data / output), *shape, *options])


def test_a_folder_with_exactly_these_files_that_others_read(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(data, "--max-history", "3") == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "train-two-tower: epoch 2/2, loss " in err
    tower = data / "tower"
    files = {"config.json", "items.json", "model.safetensors", "log.jsonl", "run.json"}
    assert {path.name for path in tower.iterdir()} == files
    assert orjson.loads((tower / "config.json").read_bytes()) == {
        "model_type": "two-tower", "n_items": 10, "width": 8, "units": 2, "max_history": 3, "dropout_rate": 0.3,
    }  # fmt: skip
    log = [orjson.loads(line) for line in (tower / "log.jsonl").read_bytes().splitlines()]
    assert [record["instances"] for record in log] == [30, 30]
    record = orjson.loads((tower / "run.json").read_bytes())
    assert record["command"] == "train-two-tower"
    assert record["kept"] in log
    assert read_item_vectors(tower)[0] == [f"I{n}" for n in range(10)]

    ids = data / "tree.jsonl"
    words = ["--scheme", "behavior-tree", "--item-vectors", str(tower), "--codebook", "4", "-o", str(ids)]
    assert run(["gen-ids", str(data / "items.jsonl"), *words]) == 0
    assert len({orjson.loads(line)["id"] for line in ids.read_bytes().splitlines()}) == 10

    recs = data / "recs.jsonl"
    asked = ["recommend", str(data / "valid.jsonl"), "--rec", str(tower), "-k", "4", "-o", str(recs)]
    assert run(asked) == 0
    assert all(len(orjson.loads(line)["items"]) == 4 for line in recs.read_bytes().splitlines())
    assert run([*asked, "--beams", "3"]) == 2
    assert (
        f"{tower} is a two-tower, which knows no textual IDs, so --beams says nothing to it" in capfd.readouterr().err
    )


def test_runs_repeat_bit_for_bit_and_a_stopped_one_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(data) == command(data, output="again") == command(data, "--seed", "1", output="other") == 0
    whole = hash_folder(data / "tower")
    assert hash_folder(data / "again") == whole
    assert hash_folder(data / "other")["model.safetensors"] != whole["model.safetensors"]

    take, taken = trainer.optimizer_step, 0

    def take_and_stop(*given: object) -> None:
        nonlocal taken
        take(*given)  # type: ignore[arg-type]
        taken += 1
        if taken == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "optimizer_step", take_and_stop)
        assert command(data, output="stopped") == 128 + signal.SIGTERM
    assert not (data / "stopped").exists()
    assert command(data, output="stopped") == 0
    assert "goes on in epoch 1, after step 3" in capfd.readouterr().err
    assert hash_folder(data / "stopped") == whole


def test_a_dry_run_writes_nothing(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = set(data.iterdir())
    assert command(data, "--dry-run") == 0
    assert orjson.loads(capfd.readouterr().out)["instances_per_epoch"] == 30
    assert set(data.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--units", "0"], "--units 0; give"),
        (["--max-history", "0"], "--max-history 0; give"),
        (["--dropout", "1"], "--dropout 1; give"),
        (["-o", "-"], "-o - cannot hold a model folder; give"),
    ],
)
def test_a_wrong_command_line(data: Path, options: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(data, *options) == 2
    assert message in capfd.readouterr().err


def test_wrong_data_is_told_with_its_place(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open(data / "train.jsonl", "ab") as stream:
        stream.write(b'{"user_id": "X", "items": ["I0", "I99"]}\n')
    assert command(data) == 1
    assert "train.jsonl:11: unknown item 'I99'" in capfd.readouterr().err
    assert not (data / "tower").exists()
