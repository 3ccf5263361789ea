"""Scoring candidates for items' IDs, as `idgr alternate --method select` does, beside the plain way and an epoch.

The plain way takes an item's candidates one by one, builds the tree of all IDs anew and goes over the item's contexts
one at a time, by the forward pass of training. Its costs must be those of idgr.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from idgr.alternation.candidates import can_name, other_names
from idgr.alternation.scoring import Context, Scorer, draw_contexts, instance_marks
from idgr.alternation.selection import Selection
from idgr.bench.processes import measure
from idgr.bench.trainers import WARM_STEPS, Settings, drawn_places, now, options_of, train_ours
from idgr.decoding.trie import build_trie
from idgr.errors import IdgrError
from idgr.formats.rec_folder import RecommenderFacts
from idgr.formats.records import Item, ItemId
from idgr.ids.keyphrase import keyphrase_candidates
from idgr.models.backbone import PRESETS, Backbone, load_either, new_backbone, save_backbone
from idgr.models.device import pick_device
from idgr.models.llama import fit_item_slots, usual_separator
from idgr.models.tokenizer import id_tokens, load_tokenizer, train_tokenizer
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import load_templates, template_words
from idgr.recommender.defaults import defaults
from idgr.recommender.options import RecommenderOptions
from idgr.recommender.prompts import either_renderer_of
from idgr.recommender.sequences import window_loss
from idgr.recommender.training import instance_loss, make_instances, recommender_task, windows_of

PLAIN = "one context at a time, the tree built anew"
OURS = "idgr alternate --method select"
EPOCH = "an epoch of idgr train-rec"

# The plain way takes so many of the items.
FEW = 5
# How far two costs of a context may lie apart, in nats.
TOLERANCE = 1e-3
_PROMPT_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class SelectTask(Settings):
    """What every contender does.

    Attributes:
        folder: of the recommender.
        ids, names: the ID of each item and the candidates that are scored; none for most items.
        max_history: of a causal recommender; a T5 has that of `train-rec`.
        separator: between its items; None for what it knows.
    """

    folder: str
    ids: list[str]
    names: list[list[str]]
    sequences: list[list[int]]
    users: list[str]
    max_history: int
    separator: Literal["eos", "newline"] | None


@dataclass(frozen=True)
class Scored:
    """What a contender made of it: seconds by the clock and of the processors, and the costs of contexts [K + 1]."""

    seconds: float
    cpu_seconds: float
    n_items: int
    costs: list[npt.NDArray[np.float64]]


def candidates_of(backbone: Backbone, items: Sequence[Item], ids: Sequence[str], n: int, seed: int) -> list[list[str]]:
    """The candidates of n items that are drawn, words of their texts; none for all others."""
    drawn = set(np.random.default_rng(seed).permutation(len(items))[:n].tolist())
    known = [ItemId(item.item_id, text) for item, text in zip(items, ids, strict=True)]
    phrases = keyphrase_candidates([item.text for item in items])
    offers = {items[place].item_id: texts for place, texts in enumerate(phrases) if place in drawn}
    return other_names(known, offers, Selection().candidates, lambda texts: can_name(backbone, texts))


def bench_select(
    items: Sequence[Item],
    ids: list[str],
    sequences: list[list[int]],
    users: list[str],
    *,
    n_items: int,
    model: str | None,
    shape: str,
    tokenizer: str | None,
    repeats: int,
    seed: int,
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """Let the contenders take turns, `repeats` times; yield one record per contender.

    Args:
        n_items: so many items, drawn by the seed, are scored.
        model: a causal recommender's folder; None for a T5 of random weights, of the preset `shape`.
        more: the fields of `SelectTask`.

    Yields:
        Items a second, the median of the paired ratios to the plain way, and what part of an epoch the scoring of the
        whole catalogue takes, by the clock and by time of the processors; how far the costs lie apart, in nats.

    Raises:
        IdgrError: the contenders' costs are not the same.
    """
    with tempfile.TemporaryDirectory(prefix="idgr-bench-") as folder:
        if model is None:
            words = [*ids, *template_words(load_templates()), *(item.text for item in items)]
            vocabulary = load_tokenizer(tokenizer) if tokenizer else train_tokenizer(words, PRESETS[shape].vocab_size)
            save_backbone(new_backbone(PRESETS[shape], vocabulary, seed), folder)
        where = model or folder
        names = candidates_of(load_either(where), items, ids, n_items, seed)
        task = SelectTask(folder=where, ids=ids, names=names, sequences=sequences, users=users, seed=seed, **more)
        runs: dict[str, list[Scored]] = {name: [] for name in CONTENDERS}
        for _ in range(repeats):
            for name, make in CONTENDERS.items():
                runs[name].append(measure(make, task).result)
    apart = max(
        float(np.abs(one - other).max()) for one, other in zip(runs[PLAIN][0].costs, runs[OURS][0].costs, strict=False)
    )
    if apart > TOLERANCE:
        raise IdgrError(f"costs lie {apart:.1e} nats apart", "tell this as a fault of idgr, with the command")
    seconds = {name: np.array([[one.seconds, one.cpu_seconds] for one in done]) for name, done in runs.items()}
    for name, done in runs.items():
        found: dict[str, Any] = {}
        if name != EPOCH:
            rates, plain = (done[0].n_items / seconds[name], runs[PLAIN][0].n_items / seconds[PLAIN])
            ratio, epochs = (np.median(some, axis=0) for some in (rates / plain, len(ids) / rates / seconds[EPOCH]))
            found = {
                "items": done[0].n_items,
                "contexts": len(done[0].costs),
                "items_per_s": round(float(np.median(rates[:, 0])), 3),
                "ratio": round(float(ratio[0]), 1),
                "cpu_ratio": round(float(ratio[1]), 1),
                "epochs_for_all": round(float(epochs[0]), 2),
                "cpu_epochs_for_all": round(float(epochs[1]), 2),
                "apart": float(f"{apart:.1e}"),
            }
        yield {
            "bench": "train",
            "part": "select",
            "contender": name,
            "model": model or shape,
            **found,
            "seconds": [round(one.seconds, 2) for one in done],
            "cpu_seconds": [round(one.cpu_seconds, 2) for one in done],
            "device": task.device,
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
        }


@dataclass(frozen=True)
class _Material:
    """A recommender on its device, and what scores with it and asks it."""

    backbone: Backbone
    renderer: PromptRenderer | HistoryRenderer
    scorer: Scorer
    asked: list[Context]


def _material(task: SelectTask) -> _Material:
    backbone = load_either(task.folder)
    tokens = id_tokens(backbone.tokenizer, task.ids)
    templates, max_history, separator = load_templates(), defaults("t5", paper=False)["max_history"], "eos"
    if backbone.arch == "causal":
        separator = task.separator or usual_separator(backbone.model, backbone.tokenizer)
        fit_item_slots(backbone.model, tokens, new=False, separator=separator)
        templates, max_history = [], task.max_history
    facts = RecommenderFacts(
        "trie", templates, max_history, _PROMPT_TOKENS, "", arch=backbone.arch, separator=separator
    )
    renderer = either_renderer_of(facts, backbone.tokenizer, tokens, None)
    backbone.model.to(pick_device(task.device)).eval()
    instances = make_instances(task.sequences, max_history)
    marks_N = instance_marks(instances, task.users, task.sequences, task.seed)
    contexts = draw_contexts(instances, marks_N, len(task.ids), Selection().contexts)
    scorer = Scorer(backbone.model, renderer, instances, marks_N, "trie")
    rows = [id_tokens(backbone.tokenizer, names) if names else [] for names in task.names]
    return _Material(backbone, renderer, scorer, scorer.asked(rows, contexts))


def _idgr() -> Callable[[SelectTask], Scored]:
    return _score_ours


def _score_ours(task: SelectTask) -> Scored:
    made = _material(task)
    begin = now()
    costs = made.scorer.costs(made.asked)
    return _scored(begin, made.asked, costs)


def _scored(begin: tuple[float, float], asked: Sequence[Context], costs: list[npt.NDArray[np.float64]]) -> Scored:
    seconds, cpu_seconds = (end - start for start, end in zip(begin, now(), strict=True))
    return Scored(seconds, cpu_seconds, len({one.item for one in asked}), costs)


def _plain() -> Callable[[SelectTask], Scored]:
    return _score_plainly


def _score_plainly(task: SelectTask) -> Scored:
    made = _material(task)
    few = list(dict.fromkeys(one.item for one in made.asked))[:FEW]
    asked = [one for one in made.asked if one.item in few]
    costs = [np.zeros(len(one.names)) for one in asked]
    begin = now()
    for item in few:
        mine = [place for place, one in enumerate(asked) if one.item == item]
        for number, name in enumerate(asked[mine[0]].names):
            cost_of = plain_costs(made, item, name)
            for place in mine:
                costs[place][number] = cost_of(asked[place].instance)
    return _scored(begin, asked, costs)


def plain_costs(made: _Material, item: int, name: Sequence[int]) -> Callable[[int], float]:
    """What tells the cost of an instance where an item has another name, by the loss of training."""
    model: Any = made.backbone.model
    renderer, instances = made.renderer, made.scorer.instances
    ids = [*renderer.id_tokens[:item], list(name), *renderer.id_tokens[item + 1 :]]
    trie = build_trie(ids, renderer.end)
    anew = copy.copy(renderer)
    anew.id_tokens = ids
    if isinstance(anew, HistoryRenderer):
        loss_of = window_loss(model, trie, windows_of(instances, anew), "trie", leads=anew.leads)
    else:
        loss_of = instance_loss(model, anew, trie, instances, "trie", 0)

    def cost(instance: int) -> float:
        if isinstance(anew, PromptRenderer) and isinstance(renderer, PromptRenderer):
            template = int(made.scorer.templates_N[instance])
            anew.before, anew.after = [renderer.before[template]], [renderer.after[template]]
        with torch.no_grad():
            return loss_of(np.array([instance]), 0)[0].item()

    return cost


def _epoch() -> Callable[[SelectTask], Scored]:
    return _train


def _train(task: SelectTask) -> Scored:
    """The seconds of an epoch, by those of some steps."""
    made = _material(task)
    how = RecommenderOptions(objective="trie")
    whole = recommender_task(made.backbone, made.renderer, task.sequences, [], how, task.seed)
    chosen = drawn_places(len(whole.lengths), task)
    options = options_of(task, dropout=defaults(made.backbone.arch, paper=False)["dropout"])
    steps = train_ours(
        made.backbone.model,
        whole.lengths[chosen],
        lambda batch, epoch: whole.loss_of(chosen[batch], epoch),
        task,
        options,
    )
    times = len(whole.lengths) / task.batch_size / (task.steps - WARM_STEPS)
    return Scored(steps.seconds * times, steps.cpu_seconds * times, len(task.ids), [])


CONTENDERS: dict[str, Callable[[], Callable[[SelectTask], Scored]]] = {PLAIN: _plain, OURS: _idgr, EPOCH: _epoch}
