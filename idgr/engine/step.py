"""A training's tensors and one step of it: the gradient of some batches, split where memory or processes ask for it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.engine.checkpoint import SIGNALS, Snapshot, copy_into
from idgr.engine.options import TrainingOptions
from idgr.engine.schedule import first_steps, learning_rate
from idgr.engine.task import TrainableModel, TrainingContext, TrainingTask
from idgr.errors import IdgrError
from idgr.models.compiling import compiled_step
from idgr.models.device import uses_bf16
from idgr.progress import log

Ints = npt.NDArray[np.int64]

_NAMES_SHOWN = 4


@dataclass
class State:
    """How far a training has come; as JSON in a checkpoint.

    Attributes:
        epoch: the epoch gone through now, from 0.
        group: the steps taken in it.
        step: the steps taken in all.
        sums: the loss, and the figures with their weights, summed over the epoch so far.
        terms: the number of terms in that loss.
        instances: the number of instances in the epoch.
        seconds: how long the epoch has taken so far.
        records: those of the epochs that are over.
        best: the record of the best of these.
        over: whether training has ended.
    """

    epoch: int = 0
    group: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    terms: int = 0
    instances: int = 0
    seconds: float = 0.0
    records: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    over: bool = False


class Training:
    """The tensors of a training beside its state; `average` only with `ema`, `kept` once an epoch is the best."""

    def __init__(
        self, model: TrainableModel, task: TrainingTask, options: TrainingOptions, context: TrainingContext
    ) -> None:
        self.model, self.task, self.options, self.context = model, task, options, context
        self.bf16 = uses_bf16(options.precision, model.device)
        self.state = State()
        self.steps = first_steps(task.lengths, options)
        # Weights that do not learn follow from the inputs, and are in no checkpoint.
        self.learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.optimizer = _adamw(list(self.learning.values()), options)
        self.average = {name: weight.detach().clone() for name, weight in self.learning.items()} if options.ema else {}
        self.kept: dict[str, Tensor] = {}
        self.pieces = 1  # into how many a batch is split, so that the memory lasts

    def snapshot(self) -> Snapshot:
        moments = {
            f"{key}.{name}": value
            for name, weight in self.learning.items()
            for key, value in self.optimizer.state[weight].items()
        }
        groups = {"weights": self.learning, "optimizer": moments, "average": self.average, "kept": self.kept}
        return Snapshot(asdict(self.state), {name: tensors for name, tensors in groups.items() if tensors})

    def restore(self, snapshot: Snapshot) -> None:
        known = {field.name for field in fields(State)}
        self.state = State(**{name: value for name, value in snapshot.state.items() if name in known})
        copy_into(self.learning, snapshot.tensors["weights"])
        if self.average:
            copy_into(self.average, snapshot.tensors["average"])
        # Clones lie where PyTorch puts them: products of matrices may round by how their arguments are aligned.
        device = self.model.device
        self.kept = {name: tensor.to(device).clone() for name, tensor in snapshot.tensors.get("kept", {}).items()}
        for name, tensor in snapshot.tensors.get("optimizer", {}).items():
            key, _, weight = name.partition(".")
            self.optimizer.state[self.learning[weight]][key] = tensor.to(device).clone()


@dataclass
class Step:
    """A step of the optimizer.

    Attributes:
        number: from 0, through all epochs.
        batches: what it follows from.
        sums: [1 + 2 F] the summed loss, and the work's figures with their weights, of all processes together.
        terms: the number of terms in that loss.
        stop: the signal that has asked any process to stop, or 0.
        rate: the learning rate.
        norm: of the mean gradient, before clipping; None until the step is taken.
    """

    number: int
    batches: list[Ints]
    sums: Tensor
    terms: int
    stop: int
    rate: float
    norm: Tensor | None = None


def accumulate_gradients(training: Training, group: list[Ints]) -> Step:
    """Leave the gradient of the summed loss of a step's batches in the weights that learn.

    A batch that the memory does not hold is split, and the step begun anew.
    """
    state, options, manager = training.state, training.options, training.context.manager
    while True:
        try:
            with compiled_step(training.model.device) if options.compile else nullcontext():
                sums, terms = _backward(training, group, state.group * options.accumulate)
            break
        except torch.OutOfMemoryError:
            if training.pieces >= max(map(len, group)):
                raise
        training.model.zero_grad(set_to_none=True)
        training.pieces *= 2
        if training.model.device.type == "cuda":
            torch.cuda.empty_cache()
        log(f"{training.task.label}: out of memory, so batches are split into {training.pieces} from now on")
    found = _add_up(training, sums, terms, manager.stop_signal if manager else 0)
    return Step(state.step, group, *found, rate=learning_rate(state.step, training.steps[-1], options))


def _backward(training: Training, group: list[Ints], first: int) -> tuple[Tensor, int]:
    """This process's share of the loss and its gradient, batch by batch."""
    state, options, task, processes = training.state, training.options, training.task, training.context.processes
    device = training.model.device
    sums = torch.zeros(1 + 2 * len(task.figures), dtype=torch.float64, device=device)
    terms = 0
    for number, batch in enumerate(group, first):
        # A seed for each batch: what is dropped depends on nothing that went before.
        entropy = [options.seed, state.epoch, number, *([processes.rank] if processes.rank else [])]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
        mine = batch[processes.share(len(batch))]
        for piece in np.array_split(mine, training.pieces):
            if not len(piece):
                continue
            with torch.autocast(device.type, torch.bfloat16, enabled=training.bf16):
                loss, n_terms = task.loss_of(piece, state.epoch)
            loss.backward()  # type: ignore[no-untyped-call]
            sums[0] += loss.detach()
            for place, figure in zip(range(1, len(sums), 2), task.figures.values(), strict=True):
                sums[place : place + 2] += figure()
            terms += n_terms
    return sums, terms


def _add_up(training: Training, sums: Tensor, terms: int, stop_signal: int) -> tuple[Tensor, int, int]:
    """The sums, terms, wish to stop and gradients of all processes, in each of them, in one exchange."""
    processes, weights = training.context.processes, list(training.learning.values())
    if processes.size == 1:
        return sums, terms, stop_signal
    # A weight that no process's loss depends on shall get no gradient, which is not the same as one of 0.
    has = [float(weight.grad is not None) for weight in weights]
    head = torch.tensor([terms, *(stop_signal == number for number in SIGNALS), *has], dtype=torch.float32)
    parts = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    sizes = [len(sums), len(head), *(weight.numel() for weight in weights)]
    flat = processes.all_reduce(torch.cat([sums.float(), head.to(sums.device), *(part.flatten() for part in parts)]))
    sums, head, *parts = flat.split(sizes)  # type: ignore[no-untyped-call]
    n_terms, *flags = head.tolist()
    for weight, part, some in zip(weights, parts, flags[len(SIGNALS) :], strict=True):
        weight.grad = part.view_as(weight) if some else None
    stop = next((number for number, wanted in zip(SIGNALS, flags, strict=False) if wanted), 0)
    return sums.double(), round(n_terms), stop


def check_finite(training: Training, steps: list[Step]) -> None:
    """Raise `IdgrError`, with the step and the names of its instances, where a loss or gradient is no number any more.

    This makes a GPU wait until the steps are done.
    """
    for step, (loss, norm) in zip(steps, _figures(steps), strict=True):
        if math.isfinite(loss) and math.isfinite(norm):
            continue
        task, manager = training.task, training.context.manager
        names = list(dict.fromkeys(task.names(np.concatenate(step.batches)))) if task.names else []
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        whose = f"; {', '.join(names[:_NAMES_SHOWN])}{more}" if names else ""
        raise IdgrError(
            f"{task.label}: the {'gradient' if math.isfinite(loss) else 'loss'} is not a number any more "
            f"(epoch {training.state.epoch + 1}, step {step.number + 1}{whose})",
            "take a smaller --lr, or --precision fp32" + (f"; {manager.survivor()}" if manager else ""),
        )


def _figures(steps: list[Step]) -> list[list[float]]:
    """The summed loss of each step and the norm of its gradient (0 before it is taken), asked for together."""
    none = torch.zeros_like(steps[0].sums[0])
    pairs = [torch.stack([step.sums[0], none if step.norm is None else step.norm.double()]) for step in steps]
    found: list[list[float]] = torch.stack(pairs).tolist()
    return found


def report_steps(training: Training, steps: list[Step]) -> None:
    """Tell those who follow the steps of the training, if anyone does."""
    if training.context.on_steps is None or not training.context.processes.is_main:
        return
    training.context.on_steps(
        [
            {"step": step.number + 1, "loss": loss / step.terms, "lr": step.rate, "grad_norm": norm}
            for step, (loss, norm) in zip(steps, _figures(steps), strict=True)
        ]
    )


def _adamw(weights: list[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=options.lr, eps=1e-6, fused=True)


def optimizer_step(training: Training, step: Step) -> None:
    """Take a step along the mean gradient, which is left empty."""
    found = [weight.grad for weight in training.learning.values() if weight.grad is not None]
    torch._foreach_div_(found, float(step.terms))
    step.norm = torch.nn.utils.clip_grad_norm_(training.learning.values(), training.options.clip)
    for group in training.optimizer.param_groups:
        group["lr"] = step.rate
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    if training.average:
        left = min(training.options.ema, (1 + step.number) / (10 + step.number))
        with torch.no_grad():
            torch._foreach_lerp_(list(training.average.values()), list(training.learning.values()), 1 - left)
