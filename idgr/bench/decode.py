"""How fast users are answered, beside `transformers`, on the same weights, IDs and users in one run."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from idgr.bench import decode_contenders as contenders
from idgr.bench import decode_ctranslate2, decode_onnxruntime
from idgr.bench.decode_contenders import Done, Task
from idgr.bench.processes import Measurement, measure
from idgr.bench.synthetic_ids import synthetic_ids
from idgr.decoding.beam import Ranking, SearchOptions
from idgr.decoding.trie import build_trie, save_trie
from idgr.errors import IdgrError, UsageError
from idgr.evaluation.metrics import hit_rate, ndcg, target_ranks
from idgr.formats.json_file import read_object
from idgr.formats.rec_folder import RecommenderFacts, read_item_head_weight
from idgr.models.backbone import (
    CAUSAL_PRESETS,
    PRESETS,
    Backbone,
    load_backbone,
    load_causal_backbone,
    new_backbone,
    new_causal_backbone,
    save_backbone,
)
from idgr.models.device import pick_device
from idgr.models.llama import fit_item_slots
from idgr.models.separator import separator_token
from idgr.models.tokenizer import encode, load_tokenizer, train_tokenizer
from idgr.progress import log
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import load_templates, template_words
from idgr.recommender.prompts import causal_renderer_of, facts_of, separated

PEER = "transformers"
PEER_BATCHES = (1, 4, 16)
# A GPU takes more at once.
PEER_BATCHES_ON_GPU = (*PEER_BATCHES, 64)
# A score may differ by so much between two ways of adding up the same numbers.
TOLERANCE = 1e-4
_CUTOFF = 10


@dataclass(frozen=True)
class DecodeBench:
    """What to measure, and how.

    Attributes:
        ids: the textual IDs.
        histories: of the users who are answered, as places in `ids`.
        targets: what each of them took next: None if not known, -1 if it has no ID.
        arch: "t5", or "causal" for a Llama.
        model: a folder, a recommender's or not; None makes one of random weights.
        separator: of a causal model; None for that of its training, or the usual one.
        tokenizer: of such weights; None learns one from the IDs.
        shape: the preset of such weights.
        options: of the search; beside a peer, `compile` adds contenders to those without it.
        batch_size: users that idgr answers at a time.
        repeats: how often each contender runs.
        device: auto, cpu or cuda.
        dtype: fp32 or bf16.
        seed: of random weights, made-up IDs and histories.
    """

    ids: list[str]
    histories: list[list[int]]
    targets: list[int | None]
    arch: str
    model: str | None
    separator: Literal["eos", "newline"] | None
    tokenizer: str | None
    shape: str
    options: SearchOptions
    batch_size: int
    repeats: int
    device: str
    dtype: str
    seed: int


Engine = Literal["ctranslate2", "onnxruntime"]
_ENGINES: dict[str, Any] = {"ctranslate2": decode_ctranslate2, "onnxruntime": decode_onnxruntime}

Contender = tuple[Callable[[], Callable[[Task], Done]], Task]


def bench_against_peer(
    bench: DecodeBench, *, one_by_one: bool = False, beside: Engine | None = None
) -> Iterator[dict[str, Any]]:
    """idgr beside `transformers`, constrained and not, in users per second.

    `share_in_passes` is which part of its time a search is in passes through the model, its normalisers among them,
    and `constraint_overhead` what all else takes beside them: tree, beams and scores.

    Args:
        one_by_one: one user at a time, for the time that each of them waits.
        beside: of a causal model, another engine without the tree as one more contender.

    Raises:
        IdgrError: that engine is missing, does not run so, or does not read the model.
    """
    if beside is not None:
        _ENGINES[beside].check_runs(pick_device(bench.device).type, bench.dtype)
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        task = replace(_task(bench, folder, None), one_by_one=one_by_one)
        plain = replace(task, options=replace(bench.options, compile=False))
        ours = replace(plain, batch_size=1) if one_by_one else plain
        peer = replace(plain, batch_size=1 if one_by_one else _best_batch(plain, contenders.transformers_constrained))
        engines: dict[str, Contender] = {}
        if beside is not None:
            engine = _ENGINES[beside]
            _check_plain_places(folder, beside)
            engine.convert(folder)
            size = 1 if one_by_one or engine.ONE_BY_ONE else _best_batch(plain, engine.unconstrained)
            engines[f"{beside}, unconstrained"] = (engine.unconstrained, replace(plain, batch_size=size))
        trie = replace(ours, options=replace(ours.options, normalize="trie"))
        compiled = {
            f"idgr, {normalize}, compiled": (
                contenders.idgr_constrained,
                replace(ours, options=replace(bench.options, normalize=normalize)),
            )
            for normalize in ("full", "trie")
            if bench.options.compile
        }
        runs = _take_turns(
            compiled
            | {
                PEER: (contenders.transformers_constrained, peer),
                "transformers, unconstrained": (contenders.transformers_free, peer),
                "idgr, full": (contenders.idgr_constrained, ours),
                "idgr, trie": (contenders.idgr_constrained, trie),
                "idgr, unconstrained": (contenders.idgr_free, ours),
            }
            | engines,
            bench.repeats,
        )
        batches = {PEER: peer.batch_size, "idgr": ours.batch_size}
        yield from _records(bench, runs, batches | {_who(name): task.batch_size for name, (_, task) in engines.items()})


def bench_catalogues(bench: DecodeBench, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """idgr alone on made-up catalogues of several sizes, with the ratio of the time per user to the smallest's."""
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        tasks = {}
        for size in sizes:
            Path(folder, str(size)).mkdir()
            tasks[size] = _task(bench, str(Path(folder, str(size))), size)
        runs = _take_turns(
            {f"idgr, {size} items": (contenders.idgr_constrained, task) for size, task in tasks.items()}, bench.repeats
        )
        first = runs[f"idgr, {sizes[0]} items"]
        for size in sizes:
            runs_of_size = runs[f"idgr, {size} items"]
            yield _record(bench, f"idgr, {size} items", runs_of_size) | {
                "items": size,
                "time_ratio_to_first": round(_time_ratio(runs_of_size, first), 3),
                "trie_build_s": round(tasks[size].build_seconds, 2),
                "trie_bytes_per_item": round(Path(tasks[size].trie_file).stat().st_size / size, 1),
            }


def bench_against_exact(bench: DecodeBench) -> Iterator[dict[str, Any]]:
    """What beam search loses against the proven best items, in hit rate and NDCG."""
    if None in bench.targets:
        raise IdgrError("no targets to score the lists with", "give valid.jsonl or test.jsonl with --histories")
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        task = _task(bench, folder, None)
        runs = {
            "exact": [measure(contenders.idgr_exact, task)],
            f"idgr, {bench.options.beams} beams": [measure(contenders.idgr_constrained, task)],
        }
        proven: list[Ranking] = runs["exact"][0].result.rankings
        for name, done in runs.items():
            found: list[Ranking] = done[0].result.rankings
            ranks = target_ranks([ranking.items for ranking in found], bench.targets)
            record = _record(bench, name, done) | {
                f"hr@{_CUTOFF}": round(hit_rate(ranks, _CUTOFF), 4),
                f"ndcg@{_CUTOFF}": round(ndcg(ranks, _CUTOFF), 4),
                "same_lists_as_exact": round(float(np.mean(_same(found, proven))), 4),
            }
            expansions = [ranking.expansions for ranking in found if ranking.expansions is not None]
            if expansions:
                record["expansions_per_user"] = round(sum(expansions) / len(expansions), 1)
            yield record


def bench_against_cpu(bench: DecodeBench) -> Iterator[dict[str, Any]]:
    """idgr on the CPU in fp32 and on the bench's device, under both softmaxes: whether the lists are the same."""
    on_cpu = replace(bench, device="cpu", dtype="fp32")
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        task = _task(bench, folder, None)
        for normalize in ("full", "trie"):
            here = replace(task, options=replace(bench.options, normalize=normalize))
            there = measure(contenders.idgr_constrained, replace(here, device="cpu", dtype="fp32"))
            yield _record(on_cpu, f"idgr, {normalize}, CPU", [there])
            done = measure(contenders.idgr_constrained, here)
            record = _record(bench, f"idgr, {normalize}", [done])
            yield record | _agreement(done.result.rankings, there.result.rankings, "cpu")


def _task(bench: DecodeBench, folder: str, n_items: int | None) -> Task:
    """Write the model and the tree into `folder`, and render the users' prompts.

    Args:
        n_items: so many made-up IDs with histories of them; None for those given.
    """
    backbone = _backbone(bench)
    tokenizer, facts = backbone.tokenizer, _facts(bench, backbone)
    save_backbone(backbone, folder)
    rows = encode(tokenizer, bench.ids)
    histories = bench.histories
    if n_items is not None:
        rows = synthetic_ids([row for row in rows if row], n_items, bench.seed)
        rng = np.random.default_rng(bench.seed)
        histories = [rng.integers(n_items, size=len(history)).tolist() for history in histories]
    started = time.perf_counter()
    trie = build_trie(rows, separator_token(tokenizer, facts.separator))
    build_seconds = time.perf_counter() - started
    trie_file = str(Path(folder, "ids.trie"))
    save_trie(trie, trie_file, "")
    renderer: PromptRenderer | HistoryRenderer
    if bench.arch == "causal":
        model: Any = backbone.model
        fit_item_slots(model, rows, new=False, separator=facts.separator)
        renderer = causal_renderer_of(facts, tokenizer, rows)
    else:
        renderer = PromptRenderer(tokenizer, facts.templates[:1], rows, facts.max_history, facts.max_prompt_tokens)
    return Task(
        folder=folder,
        causal=bench.arch == "causal",
        trie_file=trie_file,
        prompts=[renderer.render(history, 0).tokens for history in histories],
        excluded=[sorted(set(history)) for history in histories],
        options=bench.options,
        batch_size=bench.batch_size,
        device=bench.device,
        dtype=bench.dtype,
        build_seconds=build_seconds,
    )


def _facts(bench: DecodeBench, backbone: Backbone) -> RecommenderFacts:
    """How the model is asked: a causal one as `recommend --force` asks it, others as train-rec has it."""
    plain = RecommenderFacts("full", load_templates(), 20, 512, "", arch=bench.arch, separator=bench.separator or "eos")
    if bench.model is None or bench.arch != "causal":
        return plain
    if read_item_head_weight(bench.model) is not None:
        log(f"bench decode: the item head of {bench.model} is left out; all contenders search the language model alone")
    facts, trained = facts_of(bench.model, force=True)
    return separated(facts, bench.separator, backbone, bench.model, trained=trained)


def _backbone(bench: DecodeBench) -> Backbone:
    """The model that is given, or one of random weights; such a causal one counts its places through."""
    if bench.model is not None:
        return load_causal_backbone(bench.model) if bench.arch == "causal" else load_backbone(bench.model)
    causal = CAUSAL_PRESETS[bench.shape] if bench.arch == "causal" else None
    preset = causal or PRESETS[bench.shape]
    texts = bench.ids if causal else [*bench.ids, *template_words(load_templates())]
    words = load_tokenizer(bench.tokenizer) if bench.tokenizer else train_tokenizer(texts, preset.vocab_size)
    if causal:
        return new_causal_backbone(causal, words, bench.seed)
    return new_backbone(PRESETS[bench.shape], words, bench.seed)


def _check_plain_places(folder: str, engine: Engine) -> None:
    """Other engines count a sequence's places through."""
    if read_object(Path(folder, "config.json"), "take another model").get("item_slots"):
        what = f"--beside {engine} with a model that begins items at places of their own, which it counts through"
        raise UsageError(what, "leave it out, or take a model of plain places")


def _best_batch(task: Task, make: Callable[[], Callable[[Task], Done]]) -> int:
    """The batch size at which a contender answers a few users fastest."""
    sizes = PEER_BATCHES_ON_GPU if pick_device(task.device).type == "cuda" else PEER_BATCHES
    n_users = min(len(task.prompts), max(sizes))
    few = replace(task, prompts=task.prompts[:n_users], excluded=task.excluded[:n_users])
    seconds = {}
    for size in sizes:
        if size <= n_users:
            seconds[size] = sum(measure(make, replace(few, batch_size=size)).result.seconds)
    return min(seconds, key=lambda size: seconds[size])


def _take_turns(who: dict[str, Contender], repeats: int) -> dict[str, list[Measurement]]:
    runs: dict[str, list[Measurement]] = {name: [] for name in who}
    for _ in range(repeats):
        for name, (make, task) in who.items():
            runs[name].append(measure(make, task))
    return runs


def _records(
    bench: DecodeBench, runs: dict[str, list[Measurement]], batches: dict[str, int]
) -> Iterator[dict[str, Any]]:
    peer = runs[PEER]
    for name, done in runs.items():
        record = _record(bench, name, done) | {"batch_size": batches[_who(name)]}
        record["ratio"] = round(_time_ratio(peer, done), 2)
        record["cpu_ratio"] = round(_cpu_ratio(peer, done), 2)
        if name in ("idgr, full", "idgr, full, compiled"):
            record |= _agreement(done[0].result.rankings, peer[0].result.rankings)
        if name == "idgr, full":
            # From end to end, against a search that has no forced tokens to evaluate at once.
            record["time_ratio_to_unconstrained"] = round(_time_ratio(done, runs["idgr, unconstrained"]), 3)
        yield record


def _who(contender: str) -> str:
    return contender.split(",")[0]


def _time_ratio(done: list[Measurement], others: list[Measurement]) -> float:
    """The median over pairs of runs of the ratio of their seconds."""
    ratios = [sum(a.result.seconds) / sum(b.result.seconds) for a, b in zip(done, others, strict=True)]
    return float(median(ratios))


def _cpu_ratio(done: list[Measurement], others: list[Measurement]) -> float:
    """As `_time_ratio`, of the seconds that processors worked, which a busy machine disturbs least."""
    ratios = [a.result.cpu_seconds / b.result.cpu_seconds for a, b in zip(done, others, strict=True)]
    return float(median(ratios))


def _record(bench: DecodeBench, name: str, done: list[Measurement]) -> dict[str, Any]:
    users = len(bench.histories)
    results: list[Done] = [run.result for run in done]
    record: dict[str, Any] = {
        "bench": "decode",
        "contender": name,
        "users": users,
        "items": len(bench.ids),
        "users_per_s": round(median(users / sum(run.seconds) for run in results), 3),
        "peak_mib": round(max(run.peak_mib for run in done)),
        "device_mib": round(max(run.device_mib for run in results)),
        "seconds": [round(sum(run.seconds), 3) for run in results],
        "cpu_seconds": [round(run.cpu_seconds, 3) for run in results],
    }
    if results[0].share_in_passes:
        share = median(run.share_in_passes for run in results)
        record |= {"share_in_passes": round(share, 4), "constraint_overhead": round(1 / share - 1, 4)}
    if results[0].evaluated:
        record["tokens_per_user"] = round(results[0].evaluated / users, 1)
    if len(results[0].seconds) > 1:
        waits = 1000 * np.median([run.seconds for run in results], axis=0)
        record |= {f"p{q}_ms": round(float(np.percentile(waits, q)), 1) for q in (50, 95, 99)}
    return record | {
        "model": bench.model or f"random weights, {bench.shape}",
        "beams": bench.options.beams,
        "k": bench.options.k,
        "device": _device_name(bench.device),
        "dtype": bench.dtype,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _agreement(found: list[Ranking], wanted: list[Ranking], whose: str = PEER) -> dict[str, Any]:
    """How many users have the same list, how far scores lie apart, and whether the rest are ties within rounding."""
    same = _same(found, wanted)
    gaps = [
        float(np.abs(np.subtract(a.scores, b.scores)).max(initial=0.0)) if len(a.scores) == len(b.scores) else np.inf
        for a, b in zip(found, wanted, strict=True)
    ]
    return {
        f"same_lists_as_{whose}": round(sum(same) / len(same), 4),
        "largest_score_gap": float(f"{max(gaps):.2g}"),
        "others_within_rounding": all(gap <= TOLERANCE for gap, alike in zip(gaps, same, strict=True) if not alike),
    }


def _same(found: list[Ranking], wanted: list[Ranking]) -> list[bool]:
    return [a.items == b.items for a, b in zip(found, wanted, strict=True)]


def _device_name(device: str) -> str:
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return str(torch.cuda.get_device_name())
