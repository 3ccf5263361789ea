"""The one training loop: epochs, batches of similar length, AdamW, a schedule, precision, device, a log line an epoch.

Knows how to lower a loss. What an instance is, how it becomes tensors and what is measured after an epoch, its
callers say. Everything random depends on the seed, the epoch and the step alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.errors import IdgrError, UsageError
from idgr.progress import log, progress
from idgr.training.dropout import dropout_rate

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

Ints = npt.NDArray[np.int64]

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("fp32", "bf16", "auto")

# Batches are made of instances of similar length, among so many batches' worth of shuffled instances.
_BUCKET_BATCHES = 50
# Asking for the loss makes a GPU wait, so whether it is still a number is asked every so many steps.
_CHECK_STEPS = 20


@dataclass(frozen=True)
class LoopOptions:
    """How to train; the names are those on the command line.

    Attributes:
        epochs: passes over the instances.
        lr: the highest learning rate.
        batch_size: instances a batch.
        accumulate: batches whose gradients are summed into one step.
        schedule: what follows the warm-up: down to 0 in a line or a half cosine, or constant.
        warmup: the share of all steps in which the rate rises from 0.
        weight_decay: AdamW's, on matrices only.
        clip: the largest norm of a gradient.
        dropout: the share of activations dropped; None for the model's own.
        precision: fp32; bf16 for products of matrices, with weights kept in fp32; auto is bf16 where the device
            multiplies it in hardware, else fp32.
        epoch_instances: how many instances, drawn afresh, make an epoch; 0 for all.
        seed: of order, draws and dropout.
    """

    epochs: int = 10
    lr: float = 1e-3
    batch_size: int = 64
    accumulate: int = 1
    schedule: str = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float | None = None
    precision: str = "fp32"
    epoch_instances: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}", "give a number of at least 1")
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"--{name} {getattr(self, name)}", "give a number above 0")
        for name in ("warmup", "dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"--{name} {value}", "give a share from 0 to below 1")
        for name in ("weight_decay", "epoch_instances", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}", "give a number of at least 0")
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UsageError(f"--{name} {getattr(self, name)}", f"choose {' or '.join(known)}")


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU if there is one, else the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"--device {name} is not to be had here", "choose auto or cpu") from None
    return device


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether products of matrices are made in bf16 (see `LoopOptions.precision`)."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def learning_rate(step: int, steps: int, options: LoopOptions) -> float:
    """The rate of a step, from 0, of so many in all: a linear warm-up, then the schedule."""
    warmup = round(options.warmup * steps)
    if step < warmup:
        return options.lr * (step + 1) / (warmup + 1)
    left = (steps - step) / max(1, steps - warmup)
    if options.schedule == "linear":
        return options.lr * left
    if options.schedule == "cosine":
        return options.lr * (1 - math.cos(math.pi * left)) / 2
    return options.lr


def epoch_batches(lengths: Ints, epoch: int, options: LoopOptions) -> list[Ints]:
    """The batches of an epoch, as instance numbers: shuffled, then of similar length, then shuffled again.

    Args:
        lengths: what an instance of a batch costs, such as its number of tokens.
    """
    random = np.random.default_rng([options.seed, epoch])
    order = random.permutation(len(lengths))
    if options.epoch_instances:
        order = order[: options.epoch_instances]
    stretch = options.batch_size * _BUCKET_BATCHES
    batches = []
    for begin in range(0, len(order), stretch):
        chunk = order[begin : begin + stretch]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[i : i + options.batch_size] for i in range(0, len(chunk), options.batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def run_epochs(
    model: T5ForConditionalGeneration,
    lengths: Ints,
    loss_of: Callable[[Ints, int], tuple[Tensor, int]],
    options: LoopOptions,
    *,
    label: str,
    after_epoch: Callable[[dict[str, Any]], bool] | None = None,
) -> None:
    """Train `model` where it lies.

    Args:
        lengths: [N] what each instance costs; instances of similar length share a batch.
        loss_of: given instance numbers and the epoch, from 0, the summed loss (with a gradient) and the number of
            terms in the sum. A step follows the mean over all terms of its batches.
        label: the name of the work, for progress and messages.
        after_epoch: given the epoch's record (epoch from 1, loss, instances, seconds, instances_per_second), with the
            model in evaluation mode; it may add to the record, and ends the training by returning True.

    Raises:
        IdgrError: there are no instances, or the loss is not a number any more.
    """
    if not len(lengths):
        raise IdgrError("no training instances", "give longer sequences or more of them")
    per_epoch = len(epoch_batches(lengths, 0, options))
    steps_per_epoch = math.ceil(per_epoch / options.accumulate)
    optimizer = _adamw(model, options)
    rate = model.config.dropout_rate if options.dropout is None else options.dropout
    with _own_random_numbers(model.device), _quick_attention(model), dropout_rate(model, rate):
        for epoch in range(options.epochs):
            model.train()
            record = _train_epoch(model, optimizer, lengths, loss_of, options, epoch, steps_per_epoch, label)
            model.eval()
            stop = after_epoch(record) if after_epoch is not None else False
            log(f"{label}: {_describe(record, options)}")
            if stop:
                break


def _train_epoch(
    model: T5ForConditionalGeneration,
    optimizer: torch.optim.AdamW,
    lengths: Ints,
    loss_of: Callable[[Ints, int], tuple[Tensor, int]],
    options: LoopOptions,
    epoch: int,
    steps_per_epoch: int,
    label: str,
) -> dict[str, Any]:
    started = time.monotonic()
    batches = epoch_batches(lengths, epoch, options)
    bf16 = uses_bf16(options.precision, model.device)
    total = torch.zeros((), dtype=torch.float64, device=model.device)
    terms = group_terms = 0
    shown = progress(batches, f"{label} epoch {epoch + 1}/{options.epochs}", unit="batches")
    for number, batch in enumerate(shown):
        # A seed for each batch: what is dropped depends on nothing that went before.
        torch.manual_seed(int(np.random.SeedSequence([options.seed, epoch, number]).generate_state(1, np.uint64)[0]))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            loss, n_terms = loss_of(batch, epoch)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
        terms += n_terms
        group_terms += n_terms
        last = number == len(batches) - 1
        if last or number % options.accumulate == options.accumulate - 1:
            step = number // options.accumulate
            rate = learning_rate(epoch * steps_per_epoch + step, options.epochs * steps_per_epoch, options)
            _step(model, optimizer, rate, group_terms, options.clip)
            group_terms = 0
        if (last or number % _CHECK_STEPS == 0) and not math.isfinite(total.item()):
            raise IdgrError(
                f"{label}: the loss is not a number any more (epoch {epoch + 1}, batch {number + 1})",
                "take a smaller --lr, or --precision fp32",
            )
    seconds = time.monotonic() - started
    n_instances = sum(map(len, batches))
    return {
        "epoch": epoch + 1,
        "loss": total.item() / terms,
        "instances": n_instances,
        "seconds": round(seconds, 3),
        "instances_per_second": round(n_instances / seconds, 1),
    }


def _adamw(model: T5ForConditionalGeneration, options: LoopOptions) -> torch.optim.AdamW:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=options.lr, eps=1e-6, fused=True)


def _step(
    model: T5ForConditionalGeneration, optimizer: torch.optim.AdamW, rate: float, n_terms: int, clip: float
) -> None:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    torch._foreach_div_(gradients, float(n_terms))
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Leave the random numbers of the rest of the program as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def _quick_attention(model: T5ForConditionalGeneration) -> Iterator[None]:
    """On a CPU, attention by plain products: training in bf16 is a quarter quicker than with PyTorch's fused kernel."""
    if model.device.type != "cpu":
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _describe(record: dict[str, Any], options: LoopOptions) -> str:
    known = ("epoch", "loss", "instances", "seconds", "instances_per_second")
    extra = "".join(
        f", {name} {value:.4f}" for name, value in record.items() if name not in known and value is not None
    )
    return (
        f"epoch {record['epoch']}/{options.epochs}, loss {record['loss']:.4f}{extra}, "
        f"{record['seconds']:.1f} s, {record['instances_per_second']:.0f} instances/s"
    )
