"""What it saves, in training the ID generator, that a batch's distinct items pass through it once.

The peer runs the generator once per history slot, as often as a batch shows an item. Both do the generator's share of a
training step: forward to the soft prompts, and backward from a gradient on them; in batches as training makes them,
with the generator's dropout off so that both can be seen to give the same gradient.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idgr.bench.processes import Measurement, measure
from idgr.engine.options import TrainingOptions
from idgr.engine.schedule import epoch_batches
from idgr.formats.records import Item
from idgr.generator.id_learning import SoftPrompts, in_stretches, stretches
from idgr.generator.options import IdLearningOptions
from idgr.ids.keyphrase import keyphrase_ids
from idgr.ids.spelling import can_spell
from idgr.models.backbone import PRESETS, Backbone, load_backbone, new_backbone, save_backbone
from idgr.models.device import pick_device
from idgr.models.padding import pad_rows
from idgr.models.tokenizer import id_tokens, load_tokenizer, train_tokenizer
from idgr.prompts.rendering import Prompt, PromptRenderer
from idgr.prompts.templates import load_templates, template_words
from idgr.recommender.training import make_instances, prompt_costs

PEER = "generator, once per history slot"
OURS = "generator, once per item"


@dataclass(frozen=True)
class Task:
    """What every contender does: soft prompts for `batches` of histories, and their gradient to the generator.

    `texts` and `ids` are by item number, as the histories of `batches` are.
    """

    folder: str
    texts: list[str]
    ids: list[str]
    batches: list[list[list[int]]]
    device: str


@dataclass(frozen=True)
class Done:
    """What a contender made of it: the time for all batches, and the norm of the last batch's gradient."""

    seconds: float
    gradient: float


def bench_generator(
    items: Sequence[Item],
    sequences: Sequence[Sequence[int]],
    *,
    shape: str,
    tokenizer: str | None,
    n_batches: int,
    batch_size: int,
    repeats: int,
    device: str,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Let the contenders take turns, `repeats` times; yield one record per contender.

    Args:
        sequences: training sequences of item numbers.
        shape: the preset of generator and embeddings, with random weights.
        tokenizer: theirs; None learns one from the items.
        n_batches: how many batches, the first ones of an epoch.

    Yields:
        History slots and distinct items a batch, median slots served per second, and the median of the paired ratios
        to the peer.
    """
    texts = [item.text for item in items]
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        words = [*texts, *template_words(load_templates())]
        vocabulary = load_tokenizer(tokenizer) if tokenizer else train_tokenizer(words, PRESETS[shape].vocab_size)
        ids = keyphrase_ids(texts, can_spell=lambda found: can_spell(vocabulary, found))
        backbone = new_backbone(PRESETS[shape], vocabulary, seed)
        save_backbone(backbone, folder)
        renderer = _renderer(backbone, ids)
        instances = make_instances(sequences, renderer.max_history)
        begins = stretches(instances)
        loop = in_stretches(TrainingOptions(batch_size=batch_size, seed=seed), begins)
        costs = np.add.reduceat(prompt_costs(instances, renderer), begins[:-1])
        batches = [
            [
                instances.items[instances.begin[one] : instances.end[one]].tolist()
                for stretch in batch
                for one in range(begins[stretch], begins[stretch + 1])
            ]
            for batch in epoch_batches(costs, 0, loop)[:n_batches]
        ]
        task = Task(folder, texts, ids, batches, device)
        runs: dict[str, list[Measurement]] = {name: [] for name in CONTENDERS}
        for _ in range(repeats):
            for name, make in CONTENDERS.items():
                runs[name].append(measure(make, task))
    slots = sum(len(history) for batch in batches for history in batch)
    distinct = sum(len({item for history in batch for item in history}) for batch in batches)
    for name, measured in runs.items():
        done: list[Done] = [run.result for run in measured]
        theirs: list[Done] = [run.result for run in runs[PEER]]
        yield {
            "bench": "train",
            "contender": name,
            "batches": len(batches),
            "slots_per_batch": round(slots / len(batches), 1),
            "items_per_batch": round(distinct / len(batches), 1),
            "slots_per_s": round(median(slots / one.seconds for one in done), 1),
            "ratio": round(median(peer.seconds / one.seconds for one, peer in zip(done, theirs, strict=True)), 2),
            "gradient_norm": done[0].gradient,
            "peak_mib": round(max(run.peak_mib for run in measured)),
            "seconds": [round(one.seconds, 3) for one in done],
            "shape": shape,
            "device": device,
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }


def _renderer(backbone: Backbone, ids: list[str]) -> PromptRenderer:
    return PromptRenderer(backbone.tokenizer, load_templates(), id_tokens(backbone.tokenizer, ids))


def _timed(task: Task, once_per_item: bool) -> Done:
    backbone = load_backbone(task.folder)
    model = backbone.model.to(pick_device(task.device)).eval()
    renderer = _renderer(backbone, task.ids)
    soft = SoftPrompts(backbone, model, renderer.id_tokens, task.texts, IdLearningOptions())
    texts, ids = soft.texts, soft.ids
    seconds = gradient = 0.0
    for number, batch in enumerate([task.batches[0], *task.batches]):
        prompts = [renderer.render(history, 0) for history in batch]
        tokens_BS, _ = pad_rows([prompt.tokens for prompt in prompts], model.config.pad_token_id, model.device)
        if not once_per_item:
            slots = [item for prompt in prompts for item, _, _ in prompt.spans]
            soft.texts, soft.ids = [texts[item] for item in slots], [ids[item] for item in slots]
            prompts = _numbered_by_slot(prompts)
        started = perf_counter()
        read_BSD = soft.embed(prompts, tokens_BS)
        torch.autograd.backward(read_BSD, _upstream(read_BSD))
        if read_BSD.is_cuda:
            torch.cuda.synchronize()
        if number:  # the first batch is gone through twice: once to warm up
            seconds += perf_counter() - started
        squares = [parameter.grad.square().sum() for parameter in model.parameters() if parameter.grad is not None]
        gradient = float(torch.stack(squares).sum().sqrt())
        model.zero_grad(set_to_none=True)
    return Done(seconds, gradient)


def _numbered_by_slot(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts with a number of its own for every place where an item stands."""
    slot = count()
    return [Prompt(prompt.tokens, [(next(slot), start, end) for _, start, end in prompt.spans]) for prompt in prompts]


def _upstream(read_BSD: Tensor) -> Tensor:
    """A gradient as a recommender might send it: the same for every contender."""
    return torch.randn(read_BSD.shape, generator=torch.Generator().manual_seed(0)).to(read_BSD.device)


def _once_per_item() -> Callable[[Task], Done]:
    return lambda task: _timed(task, once_per_item=True)


def _once_per_slot() -> Callable[[Task], Done]:
    return lambda task: _timed(task, once_per_item=False)


CONTENDERS: dict[str, Callable[[], Callable[[Task], Done]]] = {PEER: _once_per_slot, OURS: _once_per_item}
