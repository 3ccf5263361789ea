"""The loop: what a batch is, what a step follows, what repeats, and what stops it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idgr.engine import schedule
from idgr.engine.options import TrainingOptions
from idgr.engine.schedule import epoch_batches, first_steps, learning_rate
from idgr.engine.task import TrainingContext, TrainingTask
from idgr.engine.trainer import run_epochs
from idgr.errors import IdgrError, UsageError
from idgr.generator.training import pair_loss
from idgr.models.backbone import Backbone
from idgr.models.device import pick_device, uses_bf16

ROWS = [[5 + n % 7, 20 + n, 9, 1] for n in range(12)]


def train(backbone: Backbone, **options: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []

    def loss_of(batch: npt.NDArray[np.int64], epoch: int) -> tuple[Tensor, int]:
        rows = [ROWS[i] for i in batch]
        return pair_loss(backbone.model, rows, rows)

    run_epochs(
        backbone.model,
        TrainingTask("test", np.full(len(ROWS), 4), loss_of),
        TrainingOptions(**options),
        on_epoch=records.append,
    )
    return records


def weights(backbone: Backbone) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in backbone.model.parameters()]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 99), min_size=1, max_size=300),
    batch_size=st.integers(1, 9),
    epoch=st.integers(0, 5),
    share=st.integers(0, 400),
)
def test_an_epoch_shows_each_instance_once(lengths: list[int], batch_size: int, epoch: int, share: int) -> None:
    options = TrainingOptions(batch_size=batch_size, epoch_instances=share, seed=3)
    batches = epoch_batches(np.array(lengths), epoch, options)
    shown = np.concatenate(batches)
    assert len(set(shown.tolist())) == len(shown) == min(share or len(lengths), len(lengths))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    again = epoch_batches(np.array(lengths), epoch, options)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


def test_batches_hold_similar_lengths_and_change_with_epoch_and_seed() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 4000)
    batches = epoch_batches(lengths, 0, TrainingOptions(batch_size=32))
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded < 1.1 * lengths.sum()
    first = np.concatenate(batches).tolist()
    assert np.concatenate(epoch_batches(lengths, 1, TrainingOptions(batch_size=32))).tolist() != first
    assert np.concatenate(epoch_batches(lengths, 0, TrainingOptions(batch_size=32, seed=1))).tolist() != first


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 99), min_size=1, max_size=300),
    budget=st.integers(1, 500),
    accumulate=st.integers(1, 3),
)
def test_a_bound_on_tokens_is_kept_and_steps_are_counted(lengths: list[int], budget: int, accumulate: int) -> None:
    costs = np.array(lengths)
    options = TrainingOptions(epochs=3, batch_size=16, max_tokens_per_batch=budget, accumulate=accumulate)
    steps = 0
    for epoch in range(3):
        assert first_steps(costs, options)[epoch] == steps
        batches = epoch_batches(costs, epoch, options)
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        assert all(len(batch) <= 16 for batch in batches)
        assert all(len(batch) == 1 or len(batch) * costs[batch].max() <= budget for batch in batches)
        steps += -(-len(batches) // accumulate)
    assert first_steps(costs, options)[-1] == steps


def test_the_rate_rises_and_falls() -> None:
    options = TrainingOptions(lr=0.5, warmup=0.1)
    rates = [learning_rate(step, 100, options) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] > 0
    assert rates[10] == 0.5
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.5 / 90)
    half = learning_rate(55, 100, TrainingOptions(lr=0.5, warmup=0.1, schedule="cosine"))
    assert half == pytest.approx(0.25)
    assert learning_rate(99, 100, TrainingOptions(lr=0.5, schedule="constant")) == 0.5


def test_training_lowers_the_loss_and_repeats_bit_for_bit(small: Backbone) -> None:
    start = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    first = train(small, epochs=6, batch_size=4, lr=1e-2)
    learnt = weights(small)
    small.model.load_state_dict(start)
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    second = train(small, epochs=6, batch_size=4, lr=1e-2)

    assert torch.equal(torch.random.get_rng_state(), state), "the program's own random numbers were touched"
    assert all(torch.equal(one, other) for one, other in zip(weights(small), learnt, strict=True))
    assert [record["loss"] for record in second] == [record["loss"] for record in first]
    assert first[-1]["loss"] < 0.9 * first[0]["loss"]
    assert [record["epoch"] for record in first] == [1, 2, 3, 4, 5, 6]
    assert all(record["instances"] == len(ROWS) for record in first)


def test_two_accumulated_batches_are_one_of_twice_the_size(small: Backbone) -> None:
    start = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    train(small, epochs=1, batch_size=12, dropout=0.0, schedule="constant", warmup=0.0)
    whole = weights(small)
    small.model.load_state_dict(start)
    train(small, epochs=1, batch_size=5, accumulate=3, dropout=0.0, schedule="constant", warmup=0.0)
    for one, other in zip(weights(small), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)


def test_bf16_keeps_the_weights_in_fp32_and_learns(small: Backbone) -> None:
    records = train(small, epochs=6, batch_size=4, lr=1e-2, precision="bf16")
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    assert {parameter.dtype for parameter in small.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_batches_that_the_memory_does_not_hold_are_split(
    small: Backbone, accumulate: int, capfd: pytest.CaptureFixture[str]
) -> None:
    start = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    plain = {"epochs": 2, "batch_size": 4, "accumulate": accumulate, "dropout": 0.0, "schedule": "constant"}
    records = train(small, **plain)
    whole = weights(small)
    small.model.load_state_dict(start)
    refused: list[int] = []

    def loss_of(batch: npt.NDArray[np.int64], epoch: int) -> tuple[Tensor, int]:
        rows = [ROWS[i] for i in batch]
        loss, terms = pair_loss(small.model, rows, rows)
        if len(batch) > 1:
            refused.append(len(batch))
            loss.backward()  # the memory runs out when some of the gradient is there already
            raise torch.OutOfMemoryError
        return loss, terms

    split = run_epochs(small.model, TrainingTask("test", np.full(len(ROWS), 4), loss_of), TrainingOptions(**plain))
    assert refused == [4, 2]
    assert "out of memory, so batches are split into 4 from now on" in capfd.readouterr().err
    assert split["loss"] == pytest.approx(records[-1]["loss"], rel=1e-5)
    for one, other in zip(weights(small), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)


def test_a_single_instance_that_the_memory_does_not_hold_is_a_fault(small: Backbone) -> None:
    def loss_of(batch: npt.NDArray[np.int64], epoch: int) -> tuple[Tensor, int]:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        run_epochs(small.model, TrainingTask("test", np.full(len(ROWS), 4), loss_of), TrainingOptions(batch_size=4))


def test_the_running_mean_is_measured_and_kept(small: Backbone) -> None:
    seen: list[Tensor] = []
    measured: list[Tensor] = []

    def loss_of(batch: npt.NDArray[np.int64], epoch: int) -> tuple[Tensor, int]:
        seen.append(small.model.shared.weight.detach().clone())
        return pair_loss(small.model, ROWS, ROWS)

    def measure() -> dict[str, float]:
        measured.append(small.model.shared.weight.detach().clone())
        return {}

    work = TrainingTask("test", np.array([4, 4, 4]), loss_of, measure=measure)
    run_epochs(small.model, work, TrainingOptions(epochs=2, batch_size=1, lr=1e-2, ema=0.2))
    mean = seen[0]
    for step, weight in enumerate(seen[1:]):
        left = min(0.2, (1 + step) / (10 + step))
        mean = left * mean + (1 - left) * weight
        if step == 2:
            torch.testing.assert_close(measured[0], mean)
            assert not torch.equal(seen[3], measured[0]), "training goes on from the weights, not from their mean"
    assert torch.equal(small.model.shared.weight, measured[1])


def test_compiled_parts_are_used_and_put_back(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes minutes, so a stand-in for the compiler notes what it is given and leaves it as it is."""
    given: list[torch.nn.Module] = []
    compile_now = torch.nn.Module.compile

    def noted(module: torch.nn.Module, **options: Any) -> None:
        assert options == {"dynamic": True}
        given.append(module)
        compile_now(module, backend="eager", disable=True)

    monkeypatch.setattr(torch.nn.Module, "compile", noted)
    widths: list[int] = []
    ask = small.model.encoder.forward

    def measured(*given: Any, **named: Any) -> Any:
        widths.append(named["input_ids"].shape[1])
        return ask(*given, **named)

    monkeypatch.setattr(small.model.encoder, "forward", measured)
    train(small, epochs=1, batch_size=4, compile=True)
    assert set(widths) == {8}
    assert given == [small.model.encoder, small.model.decoder]
    assert small.model.encoder._compiled_call_impl is None


def test_rows_filled_up_to_buckets_train_the_same(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDGR_COMPILE_BACKEND", "none")
    filled = Backbone(deepcopy(small.model), small.tokenizer)
    records = train(small, epochs=2, batch_size=5, dropout=0.0)
    assert [one["loss"] for one in train(filled, epochs=2, batch_size=5, dropout=0.0, compile=True)] == pytest.approx(
        [one["loss"] for one in records], rel=1e-5
    )
    for ours, theirs in zip(weights(filled), weights(small), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_those_who_follow_are_told_every_step(small: Backbone) -> None:
    told: list[dict[str, float]] = []
    work = TrainingTask("test", np.full(len(ROWS), 4), lambda batch, epoch: pair_loss(small.model, ROWS, ROWS))
    run_epochs(small.model, work, TrainingOptions(epochs=2, batch_size=4), TrainingContext(on_steps=told.extend))
    assert [record["step"] for record in told] == [1, 2, 3, 4, 5, 6]
    assert told[-1]["loss"] < told[0]["loss"]
    assert all(record["grad_norm"] > 0 and record["lr"] > 0 for record in told)


def test_frozen_weights_stay_as_they_are(small: Backbone) -> None:
    small.model.encoder.requires_grad_(False)
    frozen = [parameter.clone() for parameter in small.model.encoder.parameters()]
    train(small, epochs=1, batch_size=4)
    assert all(map(torch.equal, small.model.encoder.parameters(), frozen))


def test_the_models_own_attention_is_back_afterwards(small: Backbone) -> None:
    before = small.model.config._attn_implementation
    train(small, epochs=1, batch_size=4)
    assert small.model.config._attn_implementation == before
    assert small.model.decoder.config._attn_implementation == before


def test_a_loss_that_is_no_number_stops_the_training(small: Backbone) -> None:
    with torch.no_grad():
        small.model.shared.weight[20] = torch.nan
    with pytest.raises(IdgrError, match=r"the loss is not a number any more \(epoch 1, step \d+\); take a smaller"):
        train(small, epochs=3, batch_size=4)


def test_without_instances_there_is_nothing_to_learn(small: Backbone) -> None:
    def loss_of(batch: npt.NDArray[np.int64], epoch: int) -> tuple[Tensor, int]:
        pytest.fail("there is no batch")

    with pytest.raises(IdgrError, match="no training instances"):
        run_epochs(small.model, TrainingTask("test", np.array([], dtype=np.int64), loss_of), TrainingOptions())


def test_the_best_epochs_weights_are_kept_and_patience_ends(small: Backbone) -> None:
    scores = iter([0.1, 0.3, 0.3, 0.2, 0.9])
    seen: list[Tensor] = []

    def loss_of(batch: npt.NDArray[np.int64], epoch: int) -> tuple[Tensor, int]:
        return pair_loss(small.model, ROWS, ROWS)

    def measure() -> dict[str, float]:
        assert not small.model.training
        seen.append(small.model.shared.weight.detach().clone())
        return {"score": next(scores)}

    work = TrainingTask("test", np.array([4]), loss_of, measure=measure, best_by="score", patience=2)
    best = run_epochs(small.model, work, TrainingOptions(epochs=9))
    assert (best["epoch"], best["score"], len(seen)) == (2, 0.3, 4)
    assert torch.equal(small.model.shared.weight, seen[1])
    assert not small.model.training


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("clip", -1.0),
        ("warmup", 1.0),
        ("ema", 1.0),
        ("max_tokens_per_batch", -1),
        ("dropout", 1.5),
        ("weight_decay", -0.1),
        ("epoch_instances", -1),
        ("seed", -1),
        ("schedule", "triangle"),
        ("precision", "fp8"),
    ],
)
def test_options_out_of_range_are_named_as_on_the_command_line(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^--{option.replace('_', '-')} "):
        TrainingOptions(**{option: value})


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("tpu9", "cuda:99"):
        with pytest.raises(UsageError, match="is not available"):
            pick_device(name)


@pytest.mark.parametrize(("features", "expected"), [({"avx512_bf16": True}, True), ({"avx512_f": True}, False)])
def test_precision_auto_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], expected: bool
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert uses_bf16("auto", cpu) is expected
    assert uses_bf16("bf16", cpu)
    assert not uses_bf16("fp32", cpu)


def test_a_bound_on_tokens_cuts_as_one_by_one_would() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        lengths = np.sort(random.integers(1, 60, size=int(random.integers(1, 300))))
        options = TrainingOptions(
            batch_size=int(random.integers(1, 20)), max_tokens_per_batch=int(random.integers(1, 400))
        )
        cuts = [0]
        for place, longest in enumerate(lengths.tolist()):
            n = place + 1 - cuts[-1]
            if n > options.batch_size or (n > 1 and n * longest > options.max_tokens_per_batch):
                cuts.append(place)
        assert schedule._cuts(lengths, options) == cuts
