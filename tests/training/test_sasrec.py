"""SASRec's loss and its training, from tensors to the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.engine.options import TrainingOptions
from idgr.engine.trainer import training_mode
from idgr.item_models.sasrec import cut_sequences, sasrec_task
from idgr.item_models.training import train_item_model
from idgr.models.item_models import read_item_vectors
from idgr.models.sasrec import SasrecConfig, new_sasrec


def test_every_item_but_the_first_is_a_target_once() -> None:
    numbers, pieces = cut_sequences([[0, 1, 2, 3, 4, 5, 6], [7], [8, 9], [1, 2, 3, 4]], max_history=3)
    assert numbers == [0, 0, 2, 3]
    assert [piece.tolist() for piece in pieces] == [[3, 4, 5, 6], [0, 1, 2, 3], [8, 9], [1, 2, 3, 4]]


def test_a_batch_costs_what_its_prefixes_cost_one_by_one() -> None:
    sequences = [[0, 1, 2, 3], [4, 5], [6, 0, 3]]
    model = new_sasrec(SasrecConfig(7, width=8, heads=2, max_history=9), seed=0).eval()
    loss, n = sasrec_task(model, sequences, []).loss_of(np.array([2, 0, 1]), 0)
    assert n == 6
    one_by_one = [
        F.cross_entropy(model.item_vectors() @ model(torch.tensor([row[:end]]))[0, -1], torch.tensor(row[end]))
        for row in sequences
        for end in range(1, len(row))
    ]
    torch.testing.assert_close(loss, torch.stack(one_by_one).sum())


def test_it_learns_a_chain_and_keeps_its_best_epoch() -> None:
    n = 20
    sequences = [[(start + step) % n for step in range(6)] for start in range(0, n, 2)]
    valid = [([start, (start + 1) % n], (start + 2) % n) for start in range(n)]
    model = new_sasrec(SasrecConfig(n, width=16, heads=2, max_history=6, dropout_rate=0.1), seed=0)
    records: list[dict[str, float]] = []
    options = TrainingOptions(epochs=40, lr=1e-2, batch_size=4)
    best = train_item_model(model, sasrec_task, sequences, valid, options, records.append)
    assert records[-1]["loss"] < 0.3 < 2 < records[0]["loss"]
    assert best["ndcg@10"] == max(record["ndcg@10"] for record in records) > 0.9
    assert records[0]["instances"] == 50
    assert model.items.weight[-1].tolist() == [0.0] * 16


def test_dropout_is_as_asked_in_training_and_as_before_afterwards() -> None:
    model = new_sasrec(SasrecConfig(5, width=8, dropout_rate=0.5), seed=0)
    with training_mode(model, TrainingOptions(dropout=0.0)):
        items = torch.tensor([[0, 1]])
        assert torch.equal(model.train()(items), model.eval()(items))
    assert not torch.equal(model.train()(items), model.eval()(items))


def command(data: Path, *options: str, items: bool = True, valid: bool = True) -> int:
    given = ["--items", str(data / "items.jsonl")] if items else []
    given += ["--valid", str(data / "valid.jsonl")] if valid else []
    shape = ["--width", "8", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]
    return run(["train-sasrec", str(data / "train.jsonl"), *given, "-o", str(data / "sasrec"), *shape, *options])


def test_a_folder_with_exactly_these_files(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(data, "--max-history", "3") == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "epoch 2/2, loss " in err
    output = data / "sasrec"
    files = {"config.json", "items.json", "model.safetensors", "log.jsonl", "run.json"}
    assert {path.name for path in output.iterdir()} == files
    assert orjson.loads((output / "config.json").read_bytes()) == {
        "model_type": "sasrec", "n_items": 10, "width": 8, "layers": 2, "heads": 2, "max_history": 3,
        "dropout_rate": 0.5,
    }  # fmt: skip
    keys, vectors = read_item_vectors(output)
    assert keys == [f"I{n}" for n in range(10)]
    assert vectors.shape == (10, 8)
    log = [orjson.loads(line) for line in (output / "log.jsonl").read_bytes().splitlines()]
    assert [record["instances"] for record in log] == [30, 30]
    record = orjson.loads((output / "run.json").read_bytes())
    assert record["kept"] in log
    assert set(record["inputs"]) == {"train", "items", "valid"}
    assert set(record["outputs"]) == {"config.json", "items.json", "model.safetensors"}


def test_runs_repeat_bit_for_bit_and_another_seed_differs(data: Path) -> None:
    weights = []
    for seed in ("3", "3", "4"):
        assert command(data, "--overwrite", "--seed", seed, "--precision", "bf16") == 0
        weights.append(load_file(data / "sasrec" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["items.weight"], weights[2]["items.weight"])


def test_without_items_it_knows_those_of_training(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = (data / "train.jsonl").read_bytes().splitlines(True)[:3]
    (data / "train.jsonl").write_bytes(b"".join(reversed(lines)))
    assert command(data, items=False, valid=False) == 0
    assert read_item_vectors(data / "sasrec")[0] == ["I2", "I3", "I4", "I5", "I1", "I0"]
    assert "no --valid, so the last epoch is kept" in capfd.readouterr().err
    assert command(data, "--overwrite", items=False) == 1
    assert "valid.jsonl:3: unknown item 'I6'; give IDs or items" in capfd.readouterr().err


def test_a_dry_run_writes_nothing(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = set(data.iterdir())
    assert command(data, "--dry-run") == 0
    told = orjson.loads(capfd.readouterr().out)
    assert told["instances_per_epoch"] == told["tokens_per_epoch"] == 30
    assert told["total_seconds"] >= 2 * told["seconds_per_epoch"]
    assert set(data.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "0"], "--width 0; give"),
        (["--max-history", "0"], "--max-history 0; give"),
        (["--heads", "3"], "--heads 3 does not divide --width 8; give"),
        (["--dropout", "1"], "--dropout 1; give"),
        (["--valid-users", "-1"], "--valid-users -1; give"),
        (["--epochs", "0"], "--epochs 0; give"),
        (["-o", "-"], "-o - cannot hold a model folder; give"),
        (["--items", "-", "--valid", "-"], "standard input (-) given for several inputs; give"),
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
    (data / "train.jsonl").write_bytes(b'{"user_id": "X", "items": ["I0"]}\n')
    assert command(data) == 1
    assert "train.jsonl: no sequence has two items" in capfd.readouterr().err
    assert not (data / "sasrec").exists()
