"""Training a causal recommender beside `transformers.Trainer`: same weights, batches, loss, precision and rate.

All minimise the mean cross-entropy of the targets' tokens with AdamW, clipping, warm-up and a linear schedule, without
dropout. The peer pads what its sampler draws, at random; as a contender of its own it is given idgr's batches in idgr's
order, and its losses must be idgr's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.bench.processes import Measurement, measure
from idgr.bench.trainers import (
    WARM_STEPS,
    Settings,
    Steps,
    drawn_places,
    now,
    options_of,
    train_ours,
    train_theirs,
)
from idgr.decoding.trie import Trie, build_trie
from idgr.engine.schedule import epoch_batches
from idgr.errors import IdgrError
from idgr.models.backbone import load_causal_backbone
from idgr.models.device import pick_device, uses_bf16
from idgr.models.freezing import freeze_layers
from idgr.models.llama import fit_item_slots, item_slots, keep_layers, pad_token, position_ids, usual_separator
from idgr.models.padding import IGNORED, pad_labels, padded
from idgr.models.separator import NEWLINE, separator_token
from idgr.models.tokenizer import id_tokens
from idgr.recommender.objectives import ranges, target_tokens
from idgr.recommender.sequences import Windows, make_windows, window_costs, window_loss

Ints = npt.NDArray[np.int64]

PEER = "transformers.Trainer"
SAME = "transformers.Trainer, idgr's batches"
OURS = "idgr train-rec"

# How far the losses of the first step, which all contenders take with the same weights, may lie apart, relatively.
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}
# The side of the square matrices whose product tells the machine's peak, and how often each turn makes it.
_SIDE, _PRODUCTS = 2048, 3


@dataclass(frozen=True, kw_only=True)
class CausalTask(Settings):
    """What every contender does: so many steps from the weights in `folder`; `ids` are by item number.

    Attributes:
        layers, freeze: as in `idgr train-rec`.
        separator: what stands between items; None for what the model knows.
    """

    folder: str
    ids: list[str]
    sequences: list[list[int]]
    max_history: int
    layers: int | None = None
    freeze: int | None = None
    separator: str | None = None


@dataclass(frozen=True)
class Done:
    """What a contender made of it.

    Attributes:
        seconds, cpu_seconds: for the steps after the first `WARM_STEPS`, by the clock and of all threads.
        tokens: read in all steps, without padding.
        losses: of each step, in nats a target token.
        flops: operations that the steps ask for; see `training_flops`.
        peak_flops: of the products of matrices, measured, a second of the processors; of the clock on a GPU.
        gpu_mib: the most memory of the GPU that was in use; 0 on a CPU.
    """

    seconds: float
    cpu_seconds: float
    tokens: int
    losses: list[float]
    flops: float
    peak_flops: float
    gpu_mib: float


def bench_causal(task: CausalTask, repeats: int) -> Iterator[dict[str, Any]]:
    """Let the contenders take turns, `repeats` times, each turn with a seed of its own; yield one record per contender.

    Yields:
        Tokens a second, padding not counted; the median of the paired ratios to the peer, by the clock and by time of
        the processors, which a busy machine disturbs less; the share of the measured peak rate of products of matrices
        (`mfu`, by time of the processors on a CPU); the mean loss of a step, and how far it lies from that of idgr, in
        the first step and at most, relatively.

    Raises:
        IdgrError: there are too few windows, or the contenders' losses of the first step are not the same.
    """
    task = replace(task, precision="bf16" if uses_bf16(task.precision, pick_device(task.device)) else "fp32")
    runs: dict[str, list[Measurement]] = {name: [] for name in CONTENDERS}
    for turn in range(repeats):
        for name, make in CONTENDERS.items():
            runs[name].append(measure(make, replace(task, seed=task.seed + turn)))
    ours, peer = ([run.result for run in runs[name]] for name in (OURS, PEER))
    apart = _apart([run.result.losses for run in runs[SAME]], [one.losses for one in ours])
    if apart[0] > TOLERANCE[task.precision]:
        what = f"the first losses of {SAME} and of idgr differ by {apart[0]:.1e} of them"
        raise IdgrError(what, "tell this as a fault of idgr, with the command", where=task.folder)
    peak = max(run.result.peak_flops for measured in runs.values() for run in measured)  # a busy machine tells less
    for name, measured in runs.items():
        done: list[Done] = [run.result for run in measured]
        pairs = list(zip(done, peer, strict=True))
        yield {
            "bench": "train",
            "contender": name,
            "model": task.folder,
            "layers": task.layers,
            "freeze": task.freeze,
            "steps": task.steps,
            "batch_size": task.batch_size,
            "tokens_per_s": round(median(_rate(one, task.steps) for one in done), 1),
            "ratio": round(median(_rate(one, task.steps) / _rate(other, task.steps) for one, other in pairs), 2),
            "cpu_ratio": round(median(other.cpu_seconds / one.cpu_seconds for one, other in pairs), 2),
            "mfu": round(median(_flops_rate(one, task) for one in done) / peak, 3),
            "peak_gflops": round(peak / 1e9, 1),
            "loss": round(float(np.mean([one.losses for one in done])), 4),
            "loss_apart": [float(f"{part:.1e}") for part in apart] if name == SAME else None,
            "peak_mib": round(max(run.peak_mib for run in measured)),
            "peak_gpu_mib": round(max(one.gpu_mib for one in done)),
            "precision": task.precision,
            "seconds": [round(one.seconds, 3) for one in done],
            "cpu_seconds": [round(one.cpu_seconds, 3) for one in done],
            "device": task.device,
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }


def _apart(theirs: list[list[float]], ours: list[list[float]]) -> tuple[float, float]:
    """How far losses of the first steps, and of any, differ at most, by that of ours."""
    share = np.abs(np.array(theirs) / np.array(ours) - 1)
    return float(share[:, 0].max()), float(share.max())


def _rate(done: Done, steps: int) -> float:
    """True tokens a second."""
    return done.tokens * (steps - WARM_STEPS) / steps / done.seconds


def _flops_rate(done: Done, task: CausalTask) -> float:
    """Operations a second of the processors, or of the clock on a GPU."""
    on_cpu = pick_device(task.device).type == "cpu"
    seconds = done.cpu_seconds if on_cpu else done.seconds
    return done.flops * (task.steps - WARM_STEPS) / task.steps / seconds


def training_flops(model: Any, tokens: int, targets: int) -> float:
    """Operations that training steps on so many tokens ask for, of which so many are targets.

    For each weight of a product of matrices and each token that meets it: 2 forwards, 2 for the gradient of its input,
    2 for its own gradient. So 6 for a weight that learns; 2 for one of a frozen layer, which has nothing below it that
    learns; 4 for a frozen head. Layers meet all tokens, the head only targets. Padding, attention scores, norms and
    looking up embeddings are not counted, so the share of the peak does not grow by wasting work.
    """
    layers = sum(
        weight.numel() * (6 if weight.requires_grad else 2)
        for layer in model.model.layers
        for weight in layer.parameters()
        if weight.ndim > 1
    )
    head = model.lm_head.weight
    return float(tokens * layers + targets * head.numel() * (6 if head.requires_grad else 4))


def measured_peak_flops(precision: str, device: torch.device) -> float:
    """Operations a second of the product of two large matrices, the best of some; see `Done.peak_flops`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(_SIDE, _SIDE, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(1 + _PRODUCTS):  # the first chooses kernels
        begin = now()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append([end - start for start, end in zip(begin, now(), strict=True)])
    return float(2 * _SIDE**3 / min(part[device.type == "cpu"] for part in seconds[1:]))


@dataclass(frozen=True)
class _Material:
    """A model and as many windows as the steps take.

    Attributes:
        costs: the tokens of each window, the separator that leads, if one does, with them.
        leads: whether one does.
    """

    model: Any
    trie: Trie
    windows: Windows
    costs: Ints
    leads: bool


def _material(task: CausalTask) -> _Material:
    """The model as it is trained, and windows drawn from the seed."""
    backbone = load_causal_backbone(task.folder)
    model, tokenizer = backbone.model, backbone.tokenizer
    separator = task.separator or usual_separator(model, tokenizer)
    tokens = id_tokens(tokenizer, task.ids)
    fit_item_slots(model, tokens, new=False, separator=separator)
    trie = build_trie(tokens, separator_token(tokenizer, separator))
    windows = make_windows(task.sequences, task.max_history)
    chosen = drawn_places(len(windows.begin), task)
    columns = (column[chosen] for column in (windows.begin, windows.first, windows.end, windows.sequence))
    windows = Windows(windows.items, *columns)
    if task.layers is not None:
        keep_layers(model, task.layers)
    if task.freeze is not None:
        freeze_layers(model, task.freeze)
    model = model.to(pick_device(task.device))
    return _Material(model, trie, windows, window_costs(windows, trie), separator != NEWLINE)


def _done(task: CausalTask, material: _Material, steps: Steps) -> Done:
    model, costs = material.model, material.costs
    tokens = int(costs.sum()) - (0 if material.leads else len(costs))
    lengths_I = (target_tokens(material.trie) != IGNORED).sum(axis=1)
    windows = material.windows
    places, _ = ranges(windows.first, windows.end - windows.first)
    targets = int(lengths_I[windows.items[places]].sum())
    flops = training_flops(model, tokens, targets)
    peak = measured_peak_flops(task.precision, model.device)
    return Done(steps.seconds, steps.cpu_seconds, tokens, steps.losses, flops, peak, steps.gpu_mib)


def _idgr() -> Callable[[CausalTask], Done]:
    return _train_ours


def _train_ours(task: CausalTask) -> Done:
    material = _material(task)
    model, windows = material.model, material.windows
    loss_of = window_loss(model, material.trie, windows, "full", leads=material.leads)
    steps = train_ours(model, material.costs, loss_of, task, options_of(task, dropout=0.0))
    return _done(task, material, steps)


def _peer() -> Callable[[CausalTask], Done]:
    return lambda task: _train_theirs(task, "random")


def _peer_same() -> Callable[[CausalTask], Done]:
    return lambda task: _train_theirs(task, "sequential")


def _train_theirs(task: CausalTask, sampling: str) -> Done:
    from transformers import Trainer, TrainingArguments

    material, options = _material(task), options_of(task, dropout=0.0)
    rows = peer_rows(material.windows, material.trie, item_slots(material.model), leads=material.leads)
    order = np.concatenate(epoch_batches(material.costs, 0, options)).tolist()
    pad = pad_token(material.model)

    def collate(batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        tokens_BS, mask_BS = padded([row["input_ids"] for row in batch], pad)
        places_BS = padded([row["position_ids"] for row in batch], 0)[0]
        found = {"input_ids": tokens_BS, "attention_mask": mask_BS, "position_ids": places_BS}
        return {name: torch.from_numpy(rows) for name, rows in found.items()} | {
            "labels": torch.from_numpy(pad_labels([row["labels"] for row in batch]))
        }

    steps = train_theirs(
        Trainer, TrainingArguments, material.model, [rows[i] for i in order], collate, task, options, sampling
    )
    return _done(task, material, steps)


def peer_rows(windows: Windows, trie: Trie, slots: int, *, leads: bool) -> list[dict[str, Any]]:
    """Windows as transformers' causal models learn from them: tokens, their places, and which of them are targets."""
    ids = [[token for token in row if token != IGNORED] for row in target_tokens(trie).tolist()]
    rows = []
    for begin, first, end in zip(*(part.tolist() for part in (windows.begin, windows.first, windows.end)), strict=True):
        shown, asked = ([token for item in part for token in ids[item]] for part in
                        (windows.items[begin:first].tolist(), windows.items[first:end].tolist()))  # fmt: skip
        lead = [trie.eos] if leads else []
        tokens = [*lead, *shown, *asked]
        labels = [IGNORED] * (len(lead) + len(shown)) + asked
        places = position_ids(np.array([tokens]), trie.eos, slots)[0].tolist()
        rows.append({"input_ids": tokens, "labels": labels, "position_ids": places})
    return rows


CONTENDERS: dict[str, Callable[[], Callable[[CausalTask], Done]]] = {PEER: _peer, SAME: _peer_same, OURS: _idgr}
