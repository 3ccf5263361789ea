"""`idgr train-rec --freeze N --keep-states`: the frozen layers run once a window, and the training is the same."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from idgr.cli.main import run
from idgr.decoding.trie import Trie, build_trie
from idgr.engine.device import eager_attention
from idgr.engine.dropout import dropout_rate
from idgr.formats.run_info import hash_folder
from idgr.models.freezing import freeze_layers, split_layers
from idgr.models.llama import fit_item_slots
from idgr.models.tokenizer import id_tokens
from idgr.recommender import kept_states
from idgr.recommender.kept_states import KeptStates, keep_states
from idgr.recommender.sequences import Windows, make_windows, window_costs, window_loss

from .conftest import TEXTUAL_IDS
from .test_freeze import FROZEN, N_LAYERS, backbone, command
from .test_stage import forked, log_of, stop_after

KEPT = ("--freeze", str(FROZEN), "--dropout", "0", "--keep-states")


@pytest.fixture
def made() -> tuple[Any, Trie, Windows]:
    found = backbone("causal")
    model: Any = found.model.train()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    rows = id_tokens(found.tokenizer, TEXTUAL_IDS)
    fit_item_slots(model, rows, new=True)
    freeze_layers(model, FROZEN)
    return model, build_trie(rows, found.tokenizer.eos_token_id), make_windows([[0, 3, 1, 8, 2], [5, 4], [4, 4, 7]], 3)


def kept_in(folder: Path, model: Any, trie: Trie, windows: Windows, *, leads: bool = True) -> KeptStates:
    costs = window_costs(windows, trie) - (not leads)
    return keep_states(model, FROZEN, folder, torch.float32, costs, [windows.items])


@contextmanager
def rows_through(model: Any) -> Iterator[list[int]]:
    """How many windows have gone through each layer."""
    rows = [0] * N_LAYERS

    def count(layer: int, module: Any, given: Any) -> None:
        rows[layer] += len(given[0])

    hooks = [layer.register_forward_pre_hook(partial(count, n)) for n, layer in enumerate(model.model.layers)]
    yield rows
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("objective", ["full", "trie"])
def test_loss_and_gradient_are_those_without(made: Any, tmp_path: Path, objective: str, leads: bool) -> None:
    model, trie, windows = made
    plain = window_loss(model, trie, windows, objective, leads=leads)
    kept = kept_in(tmp_path / "states", model, trie, windows, leads=leads)
    ours = window_loss(model, trie, windows, objective, leads=leads, kept=kept)
    n = len(windows.begin)
    for batch in (np.array([n - 1, 0]), np.arange(n)):  # then some are there and some are not
        gradients = []
        for loss_of in (plain, ours):
            model.zero_grad(set_to_none=True)
            loss, _ = loss_of(batch, 0)
            loss.backward()
            gradients.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
        assert len(gradients[0]) > 8
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_the_parts_of_a_model_are_the_model(made: Any) -> None:
    model, _, _ = made
    tokens = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad(), eager_attention(model), dropout_rate(model, 0.0):
        for n in (1, N_LAYERS):
            lower, upper = split_layers(model, n)
            both = upper(inputs_embeds=lower(tokens)[0])[0]
            assert torch.equal(both, model.model(tokens)[0])


def test_a_file_goes_on_where_it_is_right(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, trie, windows = made
    everything = np.arange(len(windows.begin))

    def rows_of_frozen_layers(folder: Path, kept: KeptStates | None = None) -> int:
        kept = kept or kept_in(folder, model, trie, windows)
        with rows_through(model) as rows:
            window_loss(model, trie, windows, "trie", kept=kept)(everything, 0)
        assert rows[:FROZEN] == [rows[0]] * FROZEN
        assert rows[FROZEN:] == [len(everything)] * (N_LAYERS - FROZEN)
        return rows[0]

    folder = tmp_path / "states"
    first = kept_in(folder, model, trie, windows)
    assert [rows_of_frozen_layers(folder, first) for _ in range(2)] == [len(everything), 0]
    assert rows_of_frozen_layers(folder) == 0, "they are read anew"
    states = (folder / "states").read_bytes()
    (folder / "states").write_bytes(bytes([states[0] ^ 1]) + states[1:])
    assert rows_of_frozen_layers(folder) == 1, "a window whose states are damaged"
    assert (folder / "states").read_bytes() == states
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    assert rows_of_frozen_layers(folder) == len(everything), "made of other weights"
    assert rows_of_frozen_layers(folder) == 0

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_states.os, "posix_fallocate", full)
    with pytest.raises(kept_states.IdgrError, match=r"has no room for 0\.00 GiB of states \(No space left"):
        kept_in(tmp_path / "others", model, trie, windows)
    model.config.attention_dropout = 0.1
    with pytest.raises(kept_states.UsageError, match=r"--keep-states with an attention_dropout of 0\.1"):
        kept_in(tmp_path / "others", model, trie, windows)
    assert not (tmp_path / "others").exists()


@pytest.mark.parametrize("head", [(), ("--item-head", "1", "--item-head-dropout", "0")])
def test_the_epochs_of_a_training_are_the_same(
    data: Path, capfd: pytest.CaptureFixture[str], head: tuple[str, ...]
) -> None:
    assert run(command(data, "causal", *KEPT[:-1], *head, output="plain")) == 0
    assert run(command(data, "causal", *KEPT, *head)) == 0
    losses = [[record["loss"] for record in log_of(data / name)] for name in ("plain", "out")]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert "train-rec: keeps states of" in capfd.readouterr().err
    assert not list(data.glob(".*")), "the states are gone"


def test_stopped_it_goes_on_to_the_same_bytes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = command(data, "causal", *KEPT, "--precision", "bf16")
    assert run(given) == 0
    whole, log = hash_folder(data / "out"), log_of(data / "out")
    with monkeypatch.context() as patch:
        stop_after(patch, 5, signal.SIGTERM)
        assert forked(lambda: run([*given, "--overwrite"])) == 128 + signal.SIGTERM
    assert (data / ".out.checkpoint" / "states" / "made_of").is_file()
    for path in (data / "out").iterdir():
        path.unlink()
    monkeypatch.setattr(KeptStates, "_make", None)  # all windows went through the frozen layers before the stop
    assert run(given) == 0
    assert (hash_folder(data / "out"), log_of(data / "out")) == (whole, log)


def test_a_dry_run_tells_the_disk_that_states_take(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = command(data, "causal", *KEPT)
    assert run([*given, "--dry-run"]) == 0
    told = orjson.loads(capfd.readouterr().out)
    assert run(given) == 0
    said = re.search(r"keeps states of (\d+) tokens in float32, ", capfd.readouterr().err)
    assert said
    width = backbone("causal").model.config.hidden_size
    assert told["states_gib"] == int(said[1]) * width * 4 / 2**30


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ((), "--keep-states without layers that stay as they are; add --freeze 1, or more"),
        (("--freeze", "0"), "--keep-states without layers that stay as they are"),
        (("--freeze", "1"), "--keep-states with --dropout 0.2, anew in each epoch; add --dropout 0"),
        ((*KEPT, "--reorder", "1"), "--keep-states with --reorder, anew in each epoch; leave one of them out"),
        ((*KEPT, "--item-head", "1", "--tell-items"), "--keep-states with --tell-items, which learns below"),
        ((*KEPT, "--compile"), "--keep-states with --compile"),
        ((*KEPT, "--epochs", "1"), "--keep-states with --epochs 1, in which no states are read again"),
        ((*KEPT, "--lora", "2"), "--freeze 2 with --lora"),
        ((*KEPT, "--arch", "t5", "--model", "nano"), "--keep-states is for --arch causal"),
    ],
)
def test_where_states_are_not_the_same(
    data: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], hint: str
) -> None:
    assert run(command(data, "causal", "--keep-states", *options)) == 2
    assert hint in capfd.readouterr().err.splitlines()[-1]
    assert not (data / "out").exists()


def test_activation_checkpointing_changes_what_is_held_and_nothing_else(data: Path) -> None:
    held, found = [0, 0], []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held[len(found)] += tensor.numel()
        return tensor

    for options in ((), ("--activation-checkpointing",)):
        output = f"out{len(found)}"
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            assert run(command(data, "causal", "--freeze", "1", *options, output=output)) == 0  # with dropout
        weights = (data / output / "model.safetensors").read_bytes()
        found.append((weights, [record["loss"] for record in log_of(data / output)]))
    assert found[0] == found[1]
    assert held[1] < held[0] / 2
