"""The same steps by idgr's loop and by a trainer of transformers, with the time of those behind the first few."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.engine.options import Precision, TrainingOptions
from idgr.engine.task import TrainableModel, TrainingContext, TrainingTask
from idgr.engine.trainer import run_epochs
from idgr.errors import IdgrError, UsageError
from idgr.models.device import pick_device, uses_bf16

Ints = npt.NDArray[np.int64]
Times = tuple[float, float]

# The first steps make buffers and choose kernels; they are not timed.
WARM_STEPS = 2
WARMUP = 0.05


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What both are told: how many steps, and how they are taken."""

    steps: int
    batch_size: int
    lr: float
    precision: Precision
    device: str
    seed: int


@dataclass(frozen=True)
class Steps:
    """How steps went.

    Attributes:
        seconds, cpu_seconds: for those after the first `WARM_STEPS`, by the clock and of all threads of the processors;
            a busy machine disturbs the latter least.
        losses: of each, the mean over the terms.
        terms: in the losses of all, such as target tokens; 0 where they were not counted.
        gpu_mib: the most memory of the GPU that was in use; 0 on a CPU.
    """

    seconds: float
    cpu_seconds: float
    losses: list[float]
    terms: int
    gpu_mib: float


def now() -> Times:
    """Seconds on the wall clock, and of the processors."""
    return perf_counter(), process_time()


def _peak_gpu_mib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def drawn_places(n: int, settings: Settings) -> Ints:
    """As many of n instances as the steps take, drawn from the seed, ascending.

    Raises:
        IdgrError: there are fewer.
    """
    wanted = settings.steps * settings.batch_size
    if wanted > n:
        raise IdgrError(f"there are {n} training instances, not the {wanted} of all steps", "give fewer --batches")
    return np.sort(np.random.default_rng(settings.seed).permutation(n)[:wanted])


def options_of(settings: Settings, **more: Any) -> TrainingOptions:
    """How idgr's loop takes the steps."""
    return TrainingOptions(
        epochs=1,
        lr=settings.lr,
        batch_size=settings.batch_size,
        precision=settings.precision,
        warmup=WARMUP,
        seed=settings.seed,
        **more,
    )


def train_ours(
    model: TrainableModel,
    costs: Ints,
    loss_of: Callable[[Ints, int], tuple[Tensor, int]],
    settings: Settings,
    options: TrainingOptions,
) -> Steps:
    """By `idgr.engine`.

    Args:
        costs, loss_of: those of `TrainingTask`, of as many instances as the steps take.
    """
    terms = 0

    def counted(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        nonlocal terms
        loss, n_terms = loss_of(batch, epoch)
        terms += n_terms
        return loss, n_terms

    losses: list[float] = []
    times: dict[int, Times] = {}

    def on_steps(records: list[dict[str, float]]) -> None:
        losses.extend(record["loss"] for record in records)
        times[len(losses)] = now()

    steps = settings.steps
    run_epochs(model, TrainingTask("bench", costs, counted), options, TrainingContext(on_steps=on_steps))
    warm = steps // 2 if options.compile else WARM_STEPS
    first = min((step for step in times if warm <= step < steps), default=0)
    if not first:  # on a GPU steps are told some at a time
        raise UsageError(f"--batches {steps} are too few for this device to tell their time", "give --batches 60")
    seconds, cpu_seconds = (
        (end - begin) * (steps - WARM_STEPS) / (steps - first)
        for begin, end in zip(times[first], times[steps], strict=True)
    )
    return Steps(seconds, cpu_seconds, losses, terms, _peak_gpu_mib(model.device))


def train_theirs(
    trainer: type[Any],
    arguments: type[Any],
    model: TrainableModel,
    rows: Sequence[dict[str, Any]],
    collate: Callable[..., Any],
    settings: Settings,
    options: TrainingOptions,
    sampling: str,
) -> Steps:
    """By a trainer of transformers.

    Args:
        trainer, arguments: its class, and that of its arguments.
        rows: the instances; `collate` makes a batch of some.
        sampling: one of transformers' `train_sampling_strategy`.
    """
    from transformers.trainer_callback import PrinterCallback, TrainerCallback

    device, steps = pick_device(settings.device), settings.steps
    losses: list[Tensor] = []
    times: list[Times] = []

    class Recording(trainer):  # type: ignore[misc] # transformers is not typed
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            loss = super().compute_loss(*given, **named)
            losses.append(loss.detach())
            return loss

    class Clock(TrainerCallback):  # type: ignore[misc] # transformers is not typed
        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step in (WARM_STEPS, steps):
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times.append(now())

    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        given = arguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=options.lr,
            lr_scheduler_type=options.schedule,
            warmup_steps=round(options.warmup * steps),
            weight_decay=options.weight_decay,
            adam_epsilon=1e-6,
            max_grad_norm=options.clip,
            bf16=uses_bf16(settings.precision, device),
            use_cpu=device.type == "cpu",
            train_sampling_strategy=sampling,
            seed=settings.seed,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        theirs = Recording(model=model, args=given, train_dataset=rows, data_collator=collate, callbacks=[Clock()])
        theirs.remove_callback(PrinterCallback)  # it would write to standard output
        theirs.train()
    seconds, cpu_seconds = (end - begin for begin, end in zip(*times, strict=True))
    return Steps(seconds, cpu_seconds, torch.stack(losses).tolist(), 0, _peak_gpu_mib(device))
