"""Two processes, started by the launchers that users have, train the model that one process trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.engine.distributed import ProcessGroup, init_process_group, n_processes
from idgr.errors import UsageError
from idgr.formats.jsonl import write_jsonl

ROOT = Path(__file__).parents[2]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
ACCELERATE = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m"]
# Batches of 7 and a last one of 1: shares of different sizes, with different numbers of terms, one of them empty.
PLAIN = ["--epochs", "2", "--batch-size", "7", "--device", "cpu"]


def test_shares_cover_everything_once_and_come_back_in_order() -> None:
    things = list("abcdefg")
    parts = [things[ProcessGroup(rank, 3).share(7)] for rank in range(3)]
    assert parts == [["a", "d", "g"], ["b", "e"], ["c", "f"]]
    assert ProcessGroup().gather_shares(things, 7) == things


def launch(launcher: list[str], command: list[str]) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "idgr", *command],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def figures(output: Path) -> list[dict[str, float]]:
    lines = [orjson.loads(line) for line in (output / "log.jsonl").read_bytes().splitlines()]
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


def compare(one: Path, two: Path) -> None:
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    whole, halves = (load_file(folder / "model.safetensors") for folder in (one, two))
    for name, tensor in whole.items():
        torch.testing.assert_close(halves[name], tensor, rtol=0, atol=1e-5)
    for mine, theirs in zip(figures(one), figures(two), strict=True):
        assert mine == {name: pytest.approx(value, rel=1e-5) for name, value in theirs.items()}


@pytest.mark.parametrize(("launcher", "stage"), [(TORCHRUN, "train-rec"), (ACCELERATE, "init-gen")])
def test_two_processes_train_as_one(launcher: list[str], stage: str, data: Path, small_folder: Path) -> None:
    # Dropout is drawn by each process for itself, so it is off here; that is a setting of the model's for init-gen.
    config = small_folder / "config.json"
    config.write_bytes(orjson.dumps(orjson.loads(config.read_bytes()) | {"dropout_rate": 0.0}))
    rows = [{"user_id": f"V{n}", "items": [f"I{(n + k) % 10}" for k in range(2 + n % 4)]} for n in range(9)]
    write_jsonl(data / "train.jsonl", rows)
    command = [stage, str(data / ("train.jsonl" if stage == "train-rec" else "items.jsonl")), *PLAIN]
    command += ["--model", str(small_folder)]
    if stage == "train-rec":
        command += ["--ids", str(data / "ids.jsonl"), "--valid", str(data / "valid.jsonl"), "--valid-beams", "10"]
        command += ["--valid-users", "7", "--accumulate", "2"]
    else:
        command += ["--held-out", "0.3"]
    before = set(data.iterdir())
    said = launch(launcher, [*command, "-o", str(data / "two")])
    assert said.count("epoch 2/2") == 1, "only the first process speaks"
    assert set(data.iterdir()) - before == {data / "two"}, "only the first process writes"
    assert run([*command, "-o", str(data / "one")]) == 0
    compare(data / "one", data / "two")


LAUNCHED = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that a launcher of two processes sets."""
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("launched")
def test_one_device_cannot_be_given_to_several_processes() -> None:
    with pytest.raises(UsageError, match=r"--device cpu:0 given to several processes"):
        init_process_group("cpu:0")


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_variable_that_the_launcher_did_not_set_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert n_processes() == 2
    monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=f"WORLD_SIZE=2 is in the environment, but {name} not"):
        n_processes()


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "abc"),
        ("WORLD_SIZE", "0"),
        ("WORLD_SIZE", "9" * 20),
        ("RANK", "x"),
        ("RANK", "2"),
        ("LOCAL_RANK", "y"),
        ("LOCAL_RANK", "2"),
        ("LOCAL_RANK", "-1"),
        ("MASTER_PORT", "z"),
    ],
)
def test_variables_that_cannot_be_are_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name}={value}"):
        n_processes()


@pytest.mark.usefixtures("launched")
def test_alternate_is_for_one_process(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["alternate", "data", "--gen", "gen", "-o", "run"]) == 2
    assert "alternate runs in one process" in capfd.readouterr().err
