"""How fast IDs are generated, beside Algorithm 1 item by item, on the same weights and texts.

The peer does what the paper's code does: for every attempt it encodes the item again and searches with it alone,
with the library's own forward pass and cache, beams as rows of a batch, a group after the other.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from idgr.bench.processes import Measurement, measure
from idgr.corpus.demo import DemoOptions, metadata
from idgr.corpus.text import plain_text
from idgr.formats.records import Item
from idgr.ids.generation import generate_ids
from idgr.ids.options import GenerationOptions
from idgr.ids.schedule import Limits
from idgr.ids.spelling import can_spell, clean_id, fold
from idgr.models.backbone import PRESETS, Backbone, load_backbone, new_backbone, save_backbone
from idgr.models.device import pick_device
from idgr.models.tokenizer import decode, encode, load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

PEER = "item by item"
OURS = "idgr"


@dataclass(frozen=True)
class Task:
    """What every contender does: IDs for `items` with the generator in `folder`."""

    folder: str
    items: list[Item]
    options: GenerationOptions
    device: str


@dataclass(frozen=True)
class Done:
    """What a contender made of it; the time is that of making IDs, with the model loaded and once warmed up."""

    ids: list[str]
    attempts: int
    seconds: float
    cpu_seconds: float
    device_mib: float


def bench_gen_ids(
    items: list[Item],
    *,
    model: str | None,
    tokenizer: str | None,
    shape: str,
    options: GenerationOptions,
    repeats: int,
    device: str,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Let the contenders take turns, `repeats` times; yield one record per contender.

    Args:
        model: the generator's folder; None makes one of random weights that read what they are shown.
        tokenizer: the tokenizer of such a generator; None learns one from the items.
        shape: the preset of such a generator.

    Yields:
        Median items per second, the median of the paired ratios to the peer, and the largest peak memory in MiB.
    """
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        if model is None:
            texts = [item.text for item in items]
            vocabulary = load_tokenizer(tokenizer) if tokenizer else train_tokenizer(texts, PRESETS[shape].vocab_size)
            backbone = new_backbone(PRESETS[shape], vocabulary, seed)
            make_talkative(backbone.model)
            save_backbone(backbone, folder)
        task = Task(model or folder, items, options, device)
        runs: dict[str, list[Measurement]] = {name: [] for name in CONTENDERS}
        for _ in range(repeats):
            for name, make in CONTENDERS.items():
                runs[name].append(measure(make, task))
    peer = runs[PEER]
    for name, measured in runs.items():
        done: list[Done] = [run.result for run in measured]
        pairs = zip(done, (run.result for run in peer), strict=True)
        yield {
            "bench": "gen-ids",
            "contender": name,
            "items": len(items),
            "items_per_s": round(median(len(items) / run.seconds for run in done), 2),
            "ratio": round(median(theirs.seconds / ours.seconds for ours, theirs in pairs), 2),
            "attempts_per_item": round(done[0].attempts / len(items), 3),
            "same_ids": sum(a == b for a, b in zip(done[0].ids, peer[0].result.ids, strict=True)) / len(items),
            "peak_mib": round(max(run.peak_mib for run in measured)),
            "device_mib": round(max(run.device_mib for run in done)),
            "seconds": [round(run.seconds, 3) for run in done],
            "cpu_seconds": [round(run.cpu_seconds, 3) for run in done],
            "model": model or f"random weights, {shape}",
            "device": _device_name(device),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }


def demo_items(n_items: int, seed: int) -> list[Item]:
    """The first items of a demo shop, as `prep` would write them."""
    shop = metadata(DemoOptions(n_items=max(20, n_items), seed=seed))
    return [Item(str(record["item_id"]), plain_text(record)) for record in shop[:n_items]]


@torch.no_grad()
def make_talkative(model: T5ForConditionalGeneration) -> None:
    """Scale random weights so that what is generated depends on the item, as it does with a trained generator.

    T5's own initial weights repeat the newest token: its embedding outweighs all that the layers add.
    """
    model.shared.weight *= 0.02
    model.decoder.final_layer_norm.weight *= 40.0
    for block in model.decoder.block:
        block.layer[0].SelfAttention.o.weight *= 3.0
        block.layer[1].EncDecAttention.q.weight *= 3.0
        block.layer[1].EncDecAttention.o.weight *= 4.0


def _load(task: Task) -> Backbone:
    backbone = load_backbone(task.folder)
    return Backbone(backbone.model.to(pick_device(task.device)).eval(), backbone.tokenizer)


def _timed(task: Task, backbone: Backbone, run: Callable[[list[Item]], tuple[list[str], int]]) -> Done:
    on_gpu = backbone.model.device.type == "cuda"
    run(task.items[:2])
    started, worked = time.perf_counter(), time.process_time()
    ids, attempts = run(task.items)
    if on_gpu:
        torch.cuda.synchronize()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    device_mib = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0
    return Done(ids, attempts, seconds, cpu_seconds, device_mib)


def _idgr() -> Callable[[Task], Done]:
    def run(task: Task) -> Done:
        backbone = _load(task)

        def make(items: list[Item]) -> tuple[list[str], int]:
            made = generate_ids(items, lambda: backbone, backbone.tokenizer, task.options)
            return [record.id for record in made.ids], made.n_searches

        return _timed(task, backbone, make)

    return run


def _item_by_item() -> Callable[[Task], Done]:
    def run(task: Task) -> Done:
        backbone = _load(task)
        return _timed(task, backbone, lambda items: plain_algorithm_1(backbone, items, task.options))

    return run


CONTENDERS: dict[str, Callable[[], Callable[[Task], Done]]] = {PEER: _item_by_item, OURS: _idgr}


def plain_algorithm_1(backbone: Backbone, items: Sequence[Item], options: GenerationOptions) -> tuple[list[str], int]:
    """Algorithm 1 as it is written, an item and an attempt at a time; an empty ID where no attempt gives one.

    Returns:
        The IDs, and how many attempts were made.
    """
    tokenizer = backbone.tokenizer
    taken: set[str] = set()
    ids, attempts = [], 0
    for item in items:
        (row,) = encode(tokenizer, [item.text], max_tokens=options.max_text_tokens - 1)
        chosen = ""
        for attempt in range(1, options.n_attempts + 1):
            attempts += 1
            found = plain_search(backbone.model, [*row, tokenizer.eos_token_id], options.limits(attempt), options)
            texts = [text for text in map(clean_id, decode(tokenizer, found)) if text and fold(text) not in taken]
            spelled = [text for text, right in zip(texts, can_spell(tokenizer, texts), strict=True) if right]
            if spelled:
                chosen = spelled[0]
                taken.add(fold(chosen))
                break
        ids.append(chosen)
    return ids, attempts


@torch.inference_mode()
def plain_search(
    model: T5ForConditionalGeneration, row: list[int], limits: Limits, options: GenerationOptions
) -> list[list[int]]:
    """Diverse beam search with groups of one beam, the way transformers 4.46 went about it."""
    from transformers import DynamicCache, EncoderDecoderCache
    from transformers.modeling_outputs import BaseModelOutput

    device, groups, config = model.device, options.groups, model.config
    states = model.encoder(input_ids=torch.tensor([row], device=device)).last_hidden_state
    encoded = BaseModelOutput(last_hidden_state=states.repeat_interleave(groups, dim=0))
    mask = torch.ones((groups, len(row)), dtype=torch.long, device=device)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    newest = torch.full((groups, 1), config.decoder_start_token_id, device=device)
    scores = torch.zeros(groups, device=device)
    found: list[list[int]] = [[] for _ in range(groups)]
    open_groups = set(range(groups))
    for step in range(limits.max_tokens - 1):
        logits = model(
            encoder_outputs=encoded,
            attention_mask=mask,
            decoder_input_ids=newest,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        used = torch.full((groups,), config.pad_token_id, device=device)
        for group in range(groups):
            if group not in open_groups:
                continue
            logp = logits[group].log_softmax(-1)
            if group:
                logp = logp - limits.penalty * torch.bincount(used[:group], minlength=len(logp))
            if step + 1 < limits.min_tokens:
                logp[config.eos_token_id] = -torch.inf
            best = (logp + scores[group]).topk(2)
            first, second = best.indices.tolist()
            ends = first == config.eos_token_id
            used[group] = second if ends else first
            scores[group] = best.values[int(ends)]
            if ends:
                open_groups.remove(group)
            else:
                found[group].append(first)
        if not open_groups:
            break
        newest = used[:, None]
    return found


def _device_name(device: str) -> str:
    picked = pick_device(device)
    return torch.cuda.get_device_name(picked) if picked.type == "cuda" else "cpu"
