"""The one training loop: epochs of batches, AdamW, a running mean of the weights, checkpoints, several processes.

What an instance is, how it becomes tensors and what is measured after an epoch, its callers say. Everything random
depends on the seed, the epoch and the batch alone, so a training that was stopped anywhere ends, on the CPU, with the
same bytes as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from idgr.engine.checkpoint import CheckpointManager, StoppedError, copy_into
from idgr.engine.device import compiled, eager_attention, forked_rng
from idgr.engine.dropout import dropout_rate
from idgr.engine.options import TrainingOptions
from idgr.engine.schedule import epoch_batches
from idgr.engine.step import Step, Training, accumulate_gradients, check_finite, optimizer_step, report_steps
from idgr.engine.task import TrainableModel, TrainingContext, TrainingTask
from idgr.errors import IdgrError
from idgr.progress import log, progress

# Asking for the loss makes a GPU wait, so whether it is still a number is asked every so many steps there.
_CHECK_STEPS = 20


def run_epochs(
    model: TrainableModel,
    task: TrainingTask,
    options: TrainingOptions,
    context: TrainingContext | None = None,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Train `model` where it lies; at the end it has the weights of the best epoch, in evaluation mode.

    Args:
        context: where it runs; None for this process alone, without checkpoints.
        on_epoch: is given each epoch's record (epoch from 1, step that was its last, loss, instances, seconds,
            instances_per_second, and what `task` adds); also those from before the checkpoint that the training goes on
            from.

    Returns:
        The record of the epoch whose weights were kept.

    Raises:
        IdgrError: there are no instances, or the loss is not a number any more.
        StoppedError: SIGTERM, SIGUSR1 or SIGINT (Ctrl-C) came; a checkpoint was written.
    """
    if not len(task.lengths):
        raise IdgrError("no training instances", "give longer sequences or more of them")
    training = Training(model, task, options, context or TrainingContext())
    manager = training.context.manager
    with training_mode(model, options), manager.watching() if manager else nullcontext():
        try:
            _resume(training, on_epoch)
            while training.state.epoch < options.epochs and not training.state.over:
                model.train()
                _train_epoch(training)
                model.eval()
                _close_epoch(training, on_epoch)
        except StoppedError as stop:
            raise _saved(training, stop) from None
    state = training.state
    if training.kept or training.average:
        copy_into(training.learning, training.kept or training.average)
    return state.records[-1] if state.best is None else state.best


@contextmanager
def training_mode(model: TrainableModel, options: TrainingOptions) -> Iterator[None]:
    """The model's dropout, attention and compiling as training wants them, inside the block; random numbers its own."""
    rate = getattr(model.config, "dropout_rate", 0.0) if options.dropout is None else options.dropout
    with (
        forked_rng(model.device),
        eager_attention(model),
        # With a bound on a batch's tokens, the number of its rows depends on their width, so sizes are many.
        compiled(model, options.compile, graphs=not options.max_tokens_per_batch),
        dropout_rate(model, rate),
    ):
        yield


def _resume(training: Training, on_epoch: Callable[[dict[str, Any]], object] | None) -> None:
    """Go on from a checkpoint, if there is one."""
    manager, label = training.context.manager, training.task.label
    found = manager.read(training.learning) if manager else None
    steps = training.context.processes.all_gather([-1 if found is None else found.state["step"]])
    if len({step for (step,) in steps}) > 1:
        raise IdgrError(
            "the processes do not see the same checkpoints",
            "put the output on a disk that all nodes share",
            where=manager.folder if manager else None,
        )
    if found is None:
        return
    training.restore(found)
    state = training.state
    log(f"{label}: goes on in epoch {state.epoch + 1}, after step {state.step} of {training.steps[-1]}")
    for record in state.records:
        if on_epoch is not None:
            on_epoch(record)


def _saved(training: Training, stop: StoppedError) -> StoppedError:
    """Write a checkpoint because a signal asks to stop; what to raise then."""
    step, manager = training.state.step, training.context.manager
    training.model.eval()
    if manager is not None and training.context.processes.is_main:
        manager.write(training.snapshot())
    what = f"{training.task.label} {stop.what} after step {step}"
    return StoppedError(stop.number, what, "run the same command again to go on from there")


def _train_epoch(training: Training) -> None:
    """Take the steps of an epoch that are not yet taken."""
    state, options, manager, processes = (
        training.state,
        training.options,
        training.context.manager,
        training.context.processes,
    )
    device = training.model.device
    batches = epoch_batches(training.task.lengths, state.epoch, options)
    sizes = training.task.sizes
    state.instances = sum(len(batch) if sizes is None else int(sizes[batch].sum()) for batch in batches)
    groups = [batches[i : i + options.accumulate] for i in range(0, len(batches), options.accumulate)]
    empty = [0.0] * (1 + 2 * len(training.task.figures))
    sums = torch.tensor(state.sums or empty, dtype=torch.float64, device=device)
    label = f"{training.task.label} epoch {state.epoch + 1}/{options.epochs}"
    done_before = f" from step {state.group + 1}" if state.group else ""
    clock = time.monotonic() - state.seconds
    waiting: list[Step] = []
    for group in progress(groups[state.group :], label + done_before, unit="steps"):
        step = accumulate_gradients(training, group)
        waiting.append(step)
        if device.type == "cpu":  # here asking costs nothing, and the weights are still good
            check_finite(training, waiting)
        optimizer_step(training, step)
        sums += step.sums
        state.terms += step.terms
        state.group += 1
        state.step += 1
        state.seconds = time.monotonic() - clock
        # Several processes stop at one step; of one, the newest wish counts.
        stop = step.stop if processes.size > 1 or manager is None else manager.stop_signal
        save = manager is not None and manager.due and processes.is_main
        if save or stop or len(waiting) >= _CHECK_STEPS or device.type == "cpu" or state.group == len(groups):
            check_finite(training, waiting)
            report_steps(training, waiting)
            waiting = []
        if save or stop:
            state.sums = sums.tolist()
        if stop:
            raise StoppedError(stop)
        if save and manager is not None:
            _save_in_passing(training, manager)
    state.sums = sums.tolist()
    state.seconds = time.monotonic() - clock  # now that a GPU has done all that it was asked


def _save_in_passing(training: Training, manager: CheckpointManager) -> None:
    try:
        manager.write(training.snapshot())
    except IdgrError as fault:
        # The training goes on: it has lost nothing yet, and the disk may be freed before the next checkpoint.
        log(f"{training.task.label}: no checkpoint at step {training.state.step}: {fault}")


def _close_epoch(training: Training, on_epoch: Callable[[dict[str, Any]], object] | None) -> None:
    """Measure, tell the record, and keep the weights if they are the best."""
    state, task, options, manager = training.state, training.task, training.options, training.context.manager
    n = state.instances
    loss, *figures = state.sums
    record: dict[str, Any] = {
        "epoch": state.epoch + 1,
        "step": state.step,
        "loss": loss / state.terms,
        "instances": n,
        "seconds": round(state.seconds, 3),
        "instances_per_second": round(n / state.seconds, 1),
    }
    means = [total / weight if weight else None for total, weight in zip(figures[::2], figures[1::2], strict=True)]
    record |= dict(zip(task.figures, means, strict=True))
    with _averaged(training):
        if task.measure is not None:
            with manager.interruptible() if manager else nullcontext():
                record |= task.measure()
        if task.best_by and (state.best is None or record[task.best_by] > state.best[task.best_by]):
            state.best = record
            training.kept = {name: weight.detach().clone() for name, weight in training.learning.items()}
    if on_epoch is not None:
        on_epoch(record)
    log(f"{task.label}: {_describe(record, options)}")
    state.records.append(record)
    state.over = bool(task.patience and state.best and record["epoch"] - state.best["epoch"] >= task.patience)
    state.epoch, state.group, state.sums, state.terms, state.seconds = state.epoch + 1, 0, [], 0, 0.0


@contextmanager
def _averaged(training: Training) -> Iterator[None]:
    """With the running mean in place of the weights, if there is one."""
    if not training.average:
        yield
        return
    own = {name: weight.detach().clone() for name, weight in training.learning.items()}
    copy_into(training.learning, training.average)
    try:
        yield
    finally:
        copy_into(training.learning, own)


def _describe(record: dict[str, Any], options: TrainingOptions) -> str:
    known = ("epoch", "step", "loss", "instances", "seconds", "instances_per_second")
    extra = "".join(
        f", {name} {value:.4f}" for name, value in record.items() if name not in known and value is not None
    )
    return (
        f"epoch {record['epoch']}/{options.epochs}, loss {record['loss']:.4f}{extra}, "
        f"{record['seconds']:.1f} s, {record['instances_per_second']:.0f} instances/s"
    )
