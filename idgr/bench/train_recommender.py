"""Training the recommender beside `transformers.Seq2SeqTrainer`: same weights, instances, precision, batch and rate.

Both see prompts and targets that were tokenized beforehand or are joined from token lists, and minimise the
cross-entropy of the target's tokens (IDGenRec, Eq. 6) with AdamW, clipping, warm-up and a linear schedule. The peer
pads what its sampler draws, at random or, as a contender of its own, grouped by length.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from idgr.bench.processes import Measurement, measure
from idgr.bench.trainers import WARM_STEPS, Settings, drawn_places, options_of, train_ours, train_theirs
from idgr.decoding.trie import build_trie
from idgr.engine.options import Precision
from idgr.models.backbone import PRESETS, Backbone, load_backbone, new_backbone, save_backbone
from idgr.models.device import pick_device, uses_bf16
from idgr.models.tokenizer import id_tokens, load_tokenizer, train_tokenizer
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import draw_templates, load_templates, template_words
from idgr.recommender.training import Instances, instance_loss, make_instances, prompt_costs

Ints = npt.NDArray[np.int64]

PEER = "transformers.Seq2SeqTrainer"
GROUPED = "transformers.Seq2SeqTrainer, grouped by length"
OURS = "idgr train-rec"
COMPILED = "idgr train-rec, compiled"

MAX_HISTORY = 20
# The loss curve is told as the mean over so many equal stretches of steps.
STRETCHES = 5

# Dense products of matrices a second, by the device's name and precision, from the makers' data sheets.
PEAK_FLOPS = {
    "H200": {"bf16": 989e12, "fp32": 67e12},
    "H100": {"bf16": 989e12, "fp32": 67e12},
    "A100": {"bf16": 312e12, "fp32": 19.5e12},
    "L40S": {"bf16": 362e12, "fp32": 91.6e12},
    "L4": {"bf16": 121e12, "fp32": 30.3e12},
    "RTX 4090": {"bf16": 165e12, "fp32": 82.6e12},
}


@dataclass(frozen=True, kw_only=True)
class Task(Settings):
    """What every contender does: so many steps from the weights in `folder`.

    `ids` are by item number, as `sequences` are.
    """

    folder: str
    ids: list[str]
    sequences: list[list[int]]
    compile: bool = False


@dataclass(frozen=True)
class Done:
    """What a contender made of it.

    Attributes:
        seconds: for the steps after the first `WARM_STEPS`.
        cpu_seconds: of all its threads, for the same steps; what a busy machine disturbs least.
        target_tokens: in all steps.
        prompt_tokens: in all steps, without padding and templates; 0 where they were not counted.
        losses: of each step, in nats a target token.
        gpu_mib: the most memory of the GPU that was in use; 0 on a CPU.
    """

    seconds: float
    cpu_seconds: float
    target_tokens: int
    prompt_tokens: int
    losses: list[float]
    gpu_mib: float


def bench_recommender(
    ids: Sequence[str],
    sequences: Sequence[Sequence[int]],
    *,
    shape: str,
    tokenizer: str | None,
    steps: int,
    batch_size: int,
    lr: float,
    repeats: int,
    precision: Precision,
    device: str,
    seed: int,
    compile: bool = False,
) -> Iterator[dict[str, Any]]:
    """Let the contenders take turns, `repeats` times, each turn with a seed of its own; yield one record per contender.

    Args:
        ids: the textual ID of each item.
        sequences: training sequences of item numbers.
        shape: the preset of the model, with random weights.
        tokenizer: its tokenizer; None learns one from the IDs.
        compile: whether idgr runs through `torch.compile` as well, as one more contender. Its rate is that of the
            second half of its steps, in which few sizes are left to compile for.

    Yields:
        Target tokens a second, the median of the paired ratios to the peer (by the clock, and by time of the
        processors, which a busy machine disturbs less), the loss curve and its spread over the
        turns, peak memory, and on a known GPU the share of its peak rate (MFU).
    """
    precision = "bf16" if uses_bf16(precision, pick_device(device)) else "fp32"
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        words = [*ids, *template_words(load_templates())]
        vocabulary = load_tokenizer(tokenizer) if tokenizer else train_tokenizer(words, PRESETS[shape].vocab_size)
        backbone = new_backbone(PRESETS[shape], vocabulary, seed)
        save_backbone(backbone, folder)
        first = Task(
            folder=folder, ids=list(ids), sequences=[list(row) for row in sequences], steps=steps,
            batch_size=batch_size, lr=lr, precision=precision, device=device, seed=seed,
        )  # fmt: skip
        drawn_instances(first)  # are there enough?
        contenders = CONTENDERS | ({COMPILED: _idgr} if compile else {})
        runs: dict[str, list[Measurement]] = {name: [] for name in contenders}
        for turn in range(repeats):
            for name, make in contenders.items():
                runs[name].append(measure(make, replace(first, seed=seed + turn, compile=name == COMPILED)))
        n_weights = sum(weight.numel() for weight in backbone.model.parameters())
        for name, measured in runs.items():
            done: list[Done] = [run.result for run in measured]
            peer: list[Done] = [run.result for run in runs[PEER]]
            curves = np.array([[part.mean() for part in np.array_split(one.losses, STRETCHES)] for one in done])
            rate = median(_rate(one, steps) for one in done)
            yield {
                "bench": "train",
                "contender": name,
                "steps": steps,
                "batch_size": batch_size,
                "parameters": n_weights,
                "vocabulary": len(vocabulary),
                "target_tokens_per_s": round(rate, 1),
                "instances_per_s": round(median(batch_size * (steps - WARM_STEPS) / one.seconds for one in done), 1),
                "ratio": round(
                    median(_rate(one, steps) / _rate(other, steps) for one, other in zip(done, peer, strict=True)), 2
                ),
                "cpu_ratio": round(
                    median(other.cpu_seconds / one.cpu_seconds for one, other in zip(done, peer, strict=True)), 2
                ),
                "loss_curve": curves.mean(0).round(3).tolist(),
                "loss_spread": (curves.max(0) - curves.min(0)).round(3).tolist(),
                "peak_mib": round(max(run.peak_mib for run in measured)),
                "peak_gpu_mib": round(max(one.gpu_mib for one in done)),
                "mfu": _mfu(backbone, runs[OURS][0].result, rate, precision, device),
                "precision": precision,
                "seconds": [round(one.seconds, 3) for one in done],
                "shape": shape,
                "device": device,
                "cpus": os.cpu_count(),
                "threads": torch.get_num_threads(),
            }


def _rate(done: Done, steps: int) -> float:
    """Target tokens a second."""
    return done.target_tokens * (steps - WARM_STEPS) / steps / done.seconds


def _mfu(backbone: Backbone, counted: Done, rate: float, precision: str, device: str) -> float | None:
    """The operations that the model asks for, by the peak rate of the GPU; None on a CPU or an unknown GPU."""
    if pick_device(device).type != "cuda":
        return None
    name = torch.cuda.get_device_name()
    peak = next((peaks[precision] for known, peaks in PEAK_FLOPS.items() if known in name), None)
    if peak is None:
        return None
    return round(flops_per_target_token(backbone, counted.prompt_tokens / counted.target_tokens) * rate / peak, 4)


def flops_per_target_token(backbone: Backbone, prompt_tokens: float) -> float:
    """Operations of a training step for each target token, which so many prompt tokens stand before.

    Six for every weight of a product of matrices and token (two forwards, four backwards); padding, attention scores
    and looking up embeddings are not counted, so MFU does not grow by wasting work.
    """
    model = backbone.model

    def matrices(stack: Any) -> int:
        named = stack.block.named_parameters()
        return sum(weight.numel() for name, weight in named if weight.ndim > 1 and "relative_attention" not in name)

    cross = sum(
        getattr(block.layer[1].EncDecAttention, name).weight.numel() for block in model.decoder.block for name in "kv"
    )
    decoder = matrices(model.decoder) - cross + model.lm_head.weight.numel()
    return float(6 * (prompt_tokens * (matrices(model.encoder) + cross) + decoder))


def drawn_instances(task: Task) -> Instances:
    """The instances that all contenders see once, drawn from the seed: as many as the steps take."""
    instances = make_instances(task.sequences, MAX_HISTORY)
    chosen = drawn_places(len(instances.end), task)
    return Instances(instances.items, instances.begin[chosen], instances.end[chosen])


def _renderer(backbone: Backbone, task: Task) -> PromptRenderer:
    return PromptRenderer(backbone.tokenizer, load_templates(), id_tokens(backbone.tokenizer, task.ids), MAX_HISTORY)


def _idgr() -> Callable[[Task], Done]:
    return _train_ours


def _train_ours(task: Task) -> Done:
    backbone = load_backbone(task.folder)
    device = pick_device(task.device)
    model = backbone.model.to(device)
    renderer, instances = _renderer(backbone, task), drawn_instances(task)
    trie = build_trie(renderer.id_tokens, backbone.tokenizer.eos_token_id)
    loss_of = instance_loss(model, renderer, trie, instances, "full", task.seed)
    options = options_of(task, compile=task.compile)
    costs = prompt_costs(instances, renderer)
    done = train_ours(model, costs, loss_of, task, options)
    return Done(done.seconds, done.cpu_seconds, done.terms, int(costs.sum()), done.losses, done.gpu_mib)


def _peer() -> Callable[[Task], Done]:
    return lambda task: _train_theirs(task, "random")


def _peer_grouped() -> Callable[[Task], Done]:
    return lambda task: _train_theirs(task, "group_by_length")


def _train_theirs(task: Task, sampling: str) -> Done:
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    backbone = load_backbone(task.folder)
    renderer, instances = _renderer(backbone, task), drawn_instances(task)
    templates = draw_templates(len(renderer.before), task.seed, 0, np.arange(len(instances.end))).tolist()
    histories = [
        instances.items[begin:end].tolist()
        for begin, end in zip(instances.begin.tolist(), instances.end.tolist(), strict=True)
    ]
    targets = instances.items[instances.end].tolist()
    eos = backbone.tokenizer.eos_token_id
    rows = [
        {"input_ids": prompt.tokens, "labels": [*renderer.id_tokens[target], eos]}
        for prompt, target in zip(renderer.render_all(histories, templates), targets, strict=True)
    ]
    done = train_theirs(
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        backbone.model,
        rows,
        DataCollatorForSeq2Seq(backbone.tokenizer),
        task,
        options_of(task),
        sampling,
    )
    tokens = sum(len(row["labels"]) for row in rows)
    return Done(done.seconds, done.cpu_seconds, tokens, 0, done.losses, done.gpu_mib)


CONTENDERS: dict[str, Callable[[], Callable[[Task], Done]]] = {PEER: _peer, GROUPED: _peer_grouped, OURS: _idgr}
