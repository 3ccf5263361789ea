"""What is tried on the stand-in, in a process of its own that `test_cuda.py` starts."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file

from idgr.cli.main import run
from idgr.engine import trainer
from idgr.engine.device import forked_rng
from idgr.generator.soft_ids import Splice, prompt_embeddings
from idgr.models.device import to_device
from tests.cuda import stand_in
from tests.cuda.commands import COMMANDS, NO_PRECISION, Shop
from tests.training.test_stage import stop_after

os.environ["IDGR_COMPILE_BACKEND"] = "none"  # PyTorch's compiler knows no such device; what surrounds it is tried

GPU = torch.device("cuda")
TRAININGS = [name for name in COMMANDS if name.startswith(("train", "init"))]
# User IDs are searched for step by step, in each training step.
WAITING = {"train-rec user IDs"}
BEAMS = [name for name in COMMANDS if name.startswith("recommend") and not any(
    word in name for word in ("exact", "sasrec", "two-tower"))]  # fmt: skip
# But for `alternate`, which runs what is run here one by one, and those whose parts others of them run as well.
IN_BF16 = [name for name in COMMANDS if not name.startswith((*NO_PRECISION, "alternate")) and name not in (
    "train-rec trie", "train-rec causal full", "train-sasrec texts", "train-gen straight-through", "train-rec compiled",
    "recommend beam trie", "recommend exact full", "recommend causal full", "recommend causal compiled",
    "recommend --adapter")]  # fmt: skip


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    torch.set_num_threads(1)
    return Shop(tmp_path_factory.mktemp("shop"), run)


@pytest.fixture(autouse=True)
def _nothing_waited_for() -> None:
    stand_in.take_waits()


def files(output: Path) -> list[Path]:
    found = [output] if output.is_file() else sorted(path for path in output.rglob("*") if path.is_file())
    return [path for path in found if not path.name.endswith("run.json")]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def assert_close(ours: Any, theirs: Any, where: str) -> None:
    """Numbers to rounding, but for times and hashes of weights; everything else exactly."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in theirs.items():
            if key not in ("seconds", "instances_per_second", "scored"):
                assert_close(ours[key], value, f"{where} {key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), where
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, where)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=2e-4, abs=1e-5), where
    else:
        assert ours == theirs, where


def assert_same(ours: Path, theirs: Path) -> None:
    names = [path.relative_to(theirs) for path in files(theirs)]
    assert [path.relative_to(ours) for path in files(ours)] == names
    for name in names:
        one, other = ours / name, theirs / name
        if other.suffix == ".safetensors":
            weights, expected = load_file(one), load_file(other)
            assert weights.keys() == expected.keys()
            for key, weight in weights.items():
                torch.testing.assert_close(weight, expected[key], rtol=1e-3, atol=2e-4, msg=f"{name} {key}")
        elif other.suffix == ".jsonl" or other == theirs:
            assert_close(rows_of(one), rows_of(other), str(name))
        elif name.name == "metrics.json":
            assert_close(orjson.loads(one.read_bytes()), orjson.loads(other.read_bytes()), str(name))


@pytest.mark.parametrize("name", COMMANDS)
def test_in_fp32_it_writes_what_the_cpu_writes(shop: Shop, name: str) -> None:
    assert_same(shop.result(name, "cuda").output, shop.result(name).output)


@pytest.mark.parametrize("name", IN_BF16)
def test_in_bf16_it_runs_through(shop: Shop, name: str) -> None:
    output, expected = shop.result(name, "cuda", "bf16").output, shop.result(name).output
    names = [path.relative_to(output) for path in files(output)]
    assert names == [path.relative_to(expected) for path in files(expected)]
    for path in files(output):
        if path.name == "log.jsonl":
            for ours, theirs in zip(rows_of(path), rows_of(expected / path.relative_to(output)), strict=True):
                assert ours.get("loss", 0.0) == pytest.approx(theirs.get("loss", 0.0), rel=0.1)
        elif path == output:
            assert all(math.isfinite(score) for row in rows_of(path) for score in row["scores"])


@pytest.mark.parametrize("name", TRAININGS)
def test_no_step_of_a_training_waits(shop: Shop, name: str) -> None:
    done = shop.result(name, "cuda")
    assert done.steps
    if name not in WAITING:
        assert done.steps == [{}] * len(done.steps)


@pytest.mark.parametrize("name", BEAMS)
def test_a_depth_of_a_beam_search_asks_once(shop: Shop, name: str) -> None:
    done = shop.result(name, "cuda")
    assert done.depths == [{"copy from the GPU": 1}] * len(done.depths)


def test_there_are_depths_to_count(shop: Shop) -> None:
    assert sum(len(shop.result(name, "cuda").depths) for name in BEAMS) >= 4


@pytest.mark.parametrize("name", ["recommend exact full", "recommend exact trie", "recommend causal exact"])
def test_a_pass_of_an_exact_search_asks_thrice(shop: Shop, name: str) -> None:
    """How many nodes are open, which slots lie above them, and how many children they have."""
    depths = shop.result(name, "cuda").depths
    assert depths
    assert all(depth.total() == 3 for depth in depths)


def test_the_counts_see_a_wait_that_is_put_in(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from idgr.decoding.beam import BeamSearch
    from idgr.engine import step

    backward, finish = step._backward, BeamSearch._finish

    def reading_backward(*arguments: Any) -> Any:
        sums, terms = backward(*arguments)
        assert sums[0].item() > 0
        return sums, terms

    def reading_finish(*arguments: Any) -> Any:
        score, node = finish(*arguments)
        assert not score.isnan().any()
        return score, node

    monkeypatch.setattr(step, "_backward", reading_backward)
    monkeypatch.setattr(BeamSearch, "_finish", reading_finish)
    monkeypatch.setattr(shop, "done", {key: done for key, done in shop.done.items() if key[1] == "cpu"})
    # Other names of outputs: what is finished is not run again.
    monkeypatch.setattr(shop, "folder_of_outputs", shop.folder / "planted")
    (shop.folder / "planted").mkdir()
    assert shop.result("train-rec trie", "cuda").steps[0] == {"_local_scalar_dense": 1}
    depths = shop.result("recommend beam full", "cuda").depths
    planted = {"copy from the GPU": 1, "_local_scalar_dense": 1}
    # Above the shortest ID nothing is finished.
    assert planted in depths
    assert all(depth in ({"copy from the GPU": 1}, planted) for depth in depths)


def test_soft_ids_of_bf16_enter_prompts_of_fp32() -> None:
    """Under CUDA's autocast `index_copy` gets what it is given, where the CPU's makes it one type."""
    tokens_BS = torch.tensor([[1, 2, 3]], device=GPU)
    splice = Splice([0], [1], torch.tensor([1]), torch.tensor([0]))
    with torch.autocast("cuda", torch.bfloat16):
        soft_ND = torch.ones(1, 4, device=GPU) @ torch.eye(4, device=GPU)
        assert soft_ND.dtype is torch.bfloat16
        found = prompt_embeddings(tokens_BS, torch.zeros(5, 4, device=GPU), splice, soft_ND)
        with pytest.raises(RuntimeError, match="same dtype"):
            torch.zeros(3, 4, device=GPU).index_copy(0, torch.tensor([1], device=GPU), soft_ND)
    assert found.dtype is torch.float32
    assert found[0, :, 0].tolist() == [0.0, 1.0, 0.0]


def test_values_get_there_without_a_wait() -> None:
    there = to_device(np.arange(3), GPU)
    assert stand_in.take_waits() == {}
    assert there.is_cuda
    assert there.tolist() == [0, 1, 2]
    torch.arange(3).to(GPU)
    assert stand_in.take_waits() == {"copy from the GPU": 1, "copy to the GPU": 1}


def test_what_cuda_refuses_is_refused() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device=GPU) + torch.ones(2)
    with pytest.raises(TypeError, match="cuda"):
        torch.ones(2, device=GPU).numpy()
    assert (torch.ones(2, device=GPU) + torch.tensor(1)).tolist() == [2, 2]  # a number of the CPU's is taken


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda x: bool(x.any()), "_local_scalar_dense"),
        (lambda x: x.cpu(), "copy from the GPU"),
        (lambda x: x[x > 1], "nonzero"),
        (lambda x: torch.unique(x), "_unique2"),
        (lambda x: x.masked_select(x > 1), "masked_select"),
        (lambda x: x.index_put_((x > 1,), x[:2]), "index by a mask"),
        (lambda x: torch.cuda.synchronize(), "synchronize"),
    ],
)
def test_each_way_to_wait_is_counted(ask: Any, why: str) -> None:
    x = torch.arange(4.0, device=GPU)
    ask(x)
    assert stand_in.take_waits() == {why: 1}


def test_a_training_leaves_the_random_numbers_of_both_devices() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2), torch.rand(2, device=GPU).cpu()
    torch.manual_seed(3)
    with forked_rng(torch.device("cuda", 0)):
        torch.manual_seed(5)
        torch.rand(7), torch.rand(7, device=GPU)
    assert torch.equal(torch.rand(2), expected[0])
    assert torch.equal(torch.rand(2, device=GPU).cpu(), expected[1])


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With dropout, whose numbers are the GPU's: they depend on the seed, the epoch and the batch alone."""
    words = [*shop.words("train-rec full", "cuda", "fp32", tmp_path / "out"), "--dropout", "0.3"]
    assert run([*words, "-o", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3, signal.SIGUSR1)
        assert run(words) == 128 + signal.SIGUSR1
    assert run(words) == 0
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for name, weight in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(weight, expected[name])


@pytest.mark.parametrize("name", ["recommend beam full", "recommend sasrec"])
def test_with_little_memory_fewer_histories_are_taken_at_a_time(
    shop: Shop, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    rankers = _batches(name)
    inner = getattr(*rankers)

    def noted(*arguments: Any) -> Any:
        sizes.append(len(arguments[1]))
        if len(arguments[1]) > 2:
            with stand_in.little_memory(0):
                return inner(*arguments)
        return inner(*arguments)

    monkeypatch.setattr(*rankers, noted)
    words = shop.words(name, "cuda", "fp32", tmp_path / "recs.jsonl")
    assert run([*words, "--batch-size", "8"]) == 0
    assert sizes[:3] == [8, 4, 2]
    assert_same(tmp_path / "recs.jsonl", shop.result(name).output)


@pytest.mark.parametrize("name", ["recommend beam full", "recommend sasrec"])
def test_no_memory_for_one_history_is_told(
    shop: Shop, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rankers = _batches(name)
    inner = getattr(*rankers)

    def no_room(*arguments: Any) -> Any:
        with stand_in.little_memory(0):
            return inner(*arguments)

    monkeypatch.setattr(*rankers, no_room)
    assert run(shop.words(name, "cuda", "fp32", tmp_path / "recs.jsonl")) == 1
    assert "memory" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "recs.jsonl").exists()


def _batches(name: str) -> tuple[Any, str]:
    """The function that answers some histories at once."""
    from idgr.decoding.beam import BeamSearch
    from idgr.item_models import ranking

    return (ranking, "_rank") if "sasrec" in name else (BeamSearch, "_batch")


def test_with_little_memory_a_training_splits_its_batches(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = shop.words("train-rec trie", "cuda", "fp32", tmp_path / "out")
    words[words.index("--accumulate") + 1] = "1"
    assert run(words) == 0
    whole = load_file(tmp_path / "out" / "model.safetensors")
    step, first = trainer.accumulate_gradients, True

    def tight(training: Any, group: Any) -> Any:
        nonlocal first
        if first:
            first, training.task = False, _too_much_for(training.task, 2)
        return step(training, group)

    monkeypatch.setattr(trainer, "accumulate_gradients", tight)
    assert run([*words, "--overwrite"]) == 0
    assert "out of memory, so batches are split into 2 from now on" in capfd.readouterr().err
    for name, weight in load_file(tmp_path / "out" / "model.safetensors").items():
        torch.testing.assert_close(weight, whole[name], rtol=1e-3, atol=2e-4)

    first = True
    monkeypatch.setattr(trainer, "accumulate_gradients", lambda *arguments: _no_room(step, *arguments))
    assert run([*words, "--overwrite", "--seed", "2"]) == 1
    assert "memory" in capfd.readouterr().err.splitlines()[-1]


def _too_much_for(task: Any, most: int) -> Any:
    from dataclasses import replace

    def loss_of(batch: Any, epoch: int) -> Any:
        if len(batch) <= most:
            return task.loss_of(batch, epoch)
        with stand_in.little_memory(0):
            return task.loss_of(batch, epoch)

    return replace(task, loss_of=loss_of)


def _no_room(step: Any, training: Any, group: Any) -> Any:
    with stand_in.little_memory(0):
        return step(training, group)


@pytest.mark.parametrize(
    "words",
    [
        "decode --ids {shop}/ids.jsonl --histories {shop}/valid.jsonl --shape nano --users 2 --batch-size 2 --beams 3 "
        "-k 3 --compile",
        "train {shop} --ids {shop}/ids.jsonl --batches 6 --batch-size 2 --compile",
    ],
)
def test_bench(shop: Shop, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders run in this process, as no other one has the device."""
    from idgr.bench import decode, processes, train_recommender

    def measure_here(make: Any, *arguments: Any) -> processes.Measurement:
        return processes.Measurement(make()(*arguments), 1.0, 1.0, 1.0)

    for module in (decode, train_recommender):
        monkeypatch.setattr(module, "measure", measure_here)
    monkeypatch.setattr(trainer, "_CHECK_STEPS", 2)
    given = words.format(shop=shop.folder).split()
    assert run(["bench", *given, "--repeats", "1", "--device", "cuda", "-o", str(tmp_path / "found.jsonl")]) == 0
    found = rows_of(tmp_path / "found.jsonl")
    assert [row["contender"] for row in found if "compiled" in row["contender"]]
    if given[0] == "decode":
        assert {row["device"] for row in found} == {"stand-in"}
        assert {row["same_lists_as_transformers"] for row in found if "idgr, full" in row["contender"]} == {1.0}
