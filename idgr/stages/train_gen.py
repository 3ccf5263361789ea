"""`idgr train-gen`: train the ID generator through the frozen recommender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from idgr.engine.options import DryRun
from idgr.errors import IdgrError, UsageError
from idgr.formats.held_out import refuse_held_out
from idgr.formats.rec_folder import RecommenderFacts, check_ids_known, read_recommender_facts
from idgr.formats.records import ItemId, read_ids, read_items, read_sequences
from idgr.generator.options import DEFAULT_LR, PAPER_LR, IdLearningOptions
from idgr.options import TRAINING, UNSET, Role, option
from idgr.stages.options import refuse_stream, run_info
from idgr.stages.training import Train, TrainingStage, forecast_task, run_training

if TYPE_CHECKING:
    import torch

    from idgr.engine.run import TrainingRun
    from idgr.models.backbone import Backbone
    from idgr.prompts.histories import HistoryRenderer
    from idgr.prompts.rendering import PromptRenderer


@dataclass(frozen=True, kw_only=True)
class Options(IdLearningOptions, TrainingStage):
    """Train the ID generator by what its IDs are worth to a recommender, which stays frozen; each a T5 or a Llama.

    Example: idgr train-gen train.jsonl --items items.jsonl --ids ids.jsonl --rec rec/ --gen gen/ -o gen2/
    """

    train: Train
    items: str = option("The items' texts, items.jsonl of `idgr prep`.", role=Role.INPUT)
    ids: str = option("The current IDs, ids.jsonl of `idgr gen-ids`.", role=Role.INPUT)
    rec: str = option("The recommender trained on these IDs; it stays as it is.", role=Role.INPUT)
    gen: str = option("The ID generator to begin from.", role=Role.INPUT)
    objective: Literal["full", "trie"] | None = option(
        "full or trie; as the recommender was trained, if not given.", None
    )
    templates: str | None = option(
        "Prompt templates; else those the recommender was trained with.", None, role=Role.INPUT
    )
    max_history: int | None = option("Newest history items shown; else as in its training.", None, at_least=1)
    max_prompt_tokens: int | None = option("Length of a prompt; else as in its training.", None)
    force: bool = option("Take a recommender that was trained on other IDs, or on none.", False)
    epochs: int = 1
    lr: float = UNSET
    paper: bool = option(
        f"The paper's learning rate, {PAPER_LR:g}, in place of {DEFAULT_LR:g}.", False, TRAINING, role=Role.RUN
    )
    batch_size: int = option("Instances a batch; of a causal recommender, sequences.", 12, TRAINING, at_least=1)
    dry_run: DryRun = False

    def __post_init__(self) -> None:
        if self.paper and self.lr not in (UNSET, PAPER_LR):
            raise UsageError("--paper and --lr both tell the learning rate", "leave one of them out")
        if self.lr is UNSET:
            object.__setattr__(self, "lr", PAPER_LR if self.paper else DEFAULT_LR)
        super().__post_init__()


@dataclass(frozen=True)
class _Prepared:
    """What is trained, through what, and on what.

    Attributes:
        names: the user of each sequence.
        sequences: items as numbers, oldest first.
        texts: of each item, by its number.
    """

    generator: Backbone
    recommender: Backbone
    renderer: PromptRenderer | HistoryRenderer
    objective: str
    names: list[str]
    sequences: list[list[int]]
    texts: list[str]


def run(options: Options) -> dict[str, Any] | None:
    """Train the ID generator through the frozen recommender, or with `dry_run` tell what that would take.

    Returns:
        The record of the last epoch, or the forecast; None where the output was finished before.

    Raises:
        IdgrError: the inputs are malformed or do not fit together, or the output is something else.
    """
    from idgr.models.backbone import TAUGHT, save_backbone
    from idgr.models.device import pick_device

    refuse_stream(options.output, "a model folder")
    info = run_info("train-gen", options)
    refuse_held_out(info.inputs)
    _check_models(options)

    def prepare(device: torch.device) -> _Prepared:
        return _prepare(options, device)

    def train(prepared: _Prepared, running: TrainingRun) -> dict[str, Any]:
        return _learn(prepared, options, running.on_epoch, context=running.context)

    def save(prepared: _Prepared, folder: Path, last: dict[str, Any]) -> dict[str, Any]:
        save_backbone(prepared.generator, folder)
        return {"last": last, **(TAUGHT if prepared.generator.arch == "causal" else {})}

    if options.dry_run:
        return _learn(prepare(pick_device(options.device)), options, lambda record: None, run=forecast_task)
    return run_training(info, options, prepare, train, save)


def _learn(prepared: _Prepared, options: Options, on_epoch: Callable[..., object], **how: Any) -> dict[str, Any]:
    from idgr.generator.id_learning import learn_ids

    return learn_ids(
        prepared.generator,
        prepared.recommender,
        prepared.renderer,
        prepared.texts,
        prepared.sequences,
        prepared.objective,
        options,
        options,
        on_epoch,
        names=prepared.names,
        **how,
    )


def _check_models(options: Options) -> None:
    """Raise an error where a model is none that can be trained here, or trained through, before any is loaded."""
    from idgr.models.backbone import arch_of, check_either, is_taught
    from idgr.recommender.item_head_file import refuse_told_items

    for model in (options.gen, options.rec):
        check_either(model)
    if arch_of(options.gen) == "causal" and not is_taught(options.gen):
        todo = "teach it first: `idgr init-gen --model`"
        raise IdgrError("is a Llama that was not taught to write IDs", todo, where=options.gen)
    if arch_of(options.rec) == "causal" and options.templates is not None:
        raise UsageError(f"--templates given, but {options.rec} is a Llama, which reads no prompts", "leave it out")
    refuse_told_items(options.rec, "give one trained without --tell-items, whose histories are IDs alone")


def _prepare(options: Options, device: torch.device) -> _Prepared:
    from idgr.generator.id_learning import check_one_vocabulary
    from idgr.models.backbone import load_either
    from idgr.models.tokenizer import id_tokens

    facts = _facts(options)
    if facts.history == "none":
        todo = "give a recommender of `idgr train-rec --history shown`"
        raise IdgrError("shows no item's ID, so none can be learnt through it", todo, where=options.rec)
    known = read_ids(options.ids)
    if not options.force:
        check_ids_known(facts, known, options.rec, options.ids)
    number = {record.item_id: i for i, record in enumerate(known)}
    histories = list(read_sequences(options.train, number))
    sequences = [[number[item] for item in row.items] for row in histories]
    if max(map(len, sequences)) < 2:
        raise IdgrError("no sequence has two items", "give longer training sequences", where=options.train)
    texts = _texts(known, options)
    generator, recommender = load_either(options.gen), load_either(options.rec)
    check_one_vocabulary(generator.tokenizer, recommender.tokenizer, options.gen, options.rec)
    rows = id_tokens(recommender.tokenizer, [record.id for record in known])
    renderer = _renderer(facts, recommender, rows, list(number), options, device)
    generator.model.to(device)
    recommender.model.to(device)
    names = [row.user_id for row in histories]
    return _Prepared(generator, recommender, renderer, facts.objective, names, sequences, texts)


def _renderer(
    facts: RecommenderFacts,
    recommender: Backbone,
    rows: list[list[int]],
    keys: list[str],
    options: Options,
    device: torch.device,
) -> PromptRenderer | HistoryRenderer:
    """What shows histories as in the recommender's training.

    Args:
        rows: the tokens of each item's ID.
        keys: the items in the order of their numbers.
    """
    from idgr.models.llama import fit_item_slots, usual_separator
    from idgr.recommender.prompts import causal_renderer_of, renderer_of, user_ids_of

    if recommender.arch == "causal":
        model: Any = recommender.model
        if not facts.ids_fingerprint:  # idgr has not trained it
            facts = replace(facts, separator=usual_separator(model, recommender.tokenizer))
        fit_item_slots(model, rows, new=False, separator=facts.separator)
        return causal_renderer_of(facts, recommender.tokenizer, rows)
    # A user's ID stays as the starting generator makes it: only the items' IDs are learnt.
    named = None
    if facts.user_ids != "none":
        named = user_ids_of(
            facts, options.gen, options.items, keys, recommender.tokenizer, device, strange=options.force
        )
    return renderer_of(facts, recommender.tokenizer, rows, named)


def _facts(options: Options) -> RecommenderFacts:
    """How the recommender was trained, but for what the options say otherwise."""
    from idgr.prompts.templates import load_templates

    wordings = load_templates(options.templates)
    untrained = RecommenderFacts("full", wordings, 20, 512, "") if options.force else None
    facts = read_recommender_facts(options.rec, untrained)
    asked: dict[str, Any] = {
        "objective": options.objective,
        "templates": None if options.templates is None else wordings,
        "max_history": options.max_history,
        "max_prompt_tokens": options.max_prompt_tokens,
    }
    return replace(facts, **{name: value for name, value in asked.items() if value is not None})


def _texts(known: list[ItemId], options: Options) -> list[str]:
    """The text of each item, in the order of the IDs."""
    text_of = {item.item_id: item.text for item in read_items(options.items)}
    for record in known:
        if record.item_id not in text_of:
            todo = f"give the items that {options.ids} was made for"
            raise IdgrError(f"has no item {record.item_id!r}", todo, where=options.items)
    return [text_of[record.item_id] for record in known]
