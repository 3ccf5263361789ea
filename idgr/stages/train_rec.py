"""`idgr train-rec`: train the recommender on histories told in textual IDs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from idgr.errors import UsageError
from idgr.formats.held_out import refuse_held_out
from idgr.options import MODEL, RUN, TRAINING, UNSET, Role, option
from idgr.recommender.defaults import defaults
from idgr.recommender.options import PROMPTS, Paper, PromptOptions, RecommenderOptions
from idgr.stages.auxiliary import AuxiliaryOptions, auxiliary_tasks, check_auxiliary, contrast, item_head
from idgr.stages.options import local_model, refuse_stream, run_info
from idgr.stages.recommender_training import (
    Ids,
    Prepared,
    earlier_trainings,
    forecast_recommender,
    read_inputs,
    read_old_ids,
    save_recommender,
)
from idgr.stages.training import SequenceTraining, run_training, say_if_unvalidated, say_what_is_kept

if TYPE_CHECKING:
    import torch

    from idgr.engine.run import TrainingRun
    from idgr.engine.task import TrainingTask
    from idgr.formats.rec_folder import RecommenderFacts
    from idgr.recommender.kept_states import KeepStates

_LEARNT = 16  # bytes of a weight that learns: itself, its gradient and AdamW's two means of it, in float32
PRESETS = {"t5": "nano", "causal": "nano-causal"}


@dataclass(frozen=True, kw_only=True)
class Options(SequenceTraining, RecommenderOptions, PromptOptions, AuxiliaryOptions):
    """Train a recommender that reads a history as textual IDs and writes the next item's ID.

    Example: idgr train-rec data/beauty/train.jsonl --ids ids.jsonl --valid data/beauty/valid.jsonl --tokenizer gen/
    -o rec/
    """

    ids: Ids
    arch: Literal["t5", "causal"] = option(
        "t5, or causal, a Llama that reads all prefixes at once; as --model is, else t5.", UNSET
    )
    model: str = option("Preset (nano, small; nano-causal), model folder, or name of a hub model.", UNSET)
    layers: int | None = option(
        "Keep only the first so many layers of a trained causal --model.", None, MODEL, at_least=1
    )
    tokenizer: str | None = option("Folder whose tokenizer a preset shares, such as GEN/.", None, role=Role.INPUT)
    separator: Literal["eos", "newline"] = option(
        "causal: what stands between items; newline, an ID a line, is what a pretrained model knows.", "eos", PROMPTS
    )
    old_ids: str | None = option(
        "ids.jsonl of the same items; each is named by its ID there or its own, at random.", None, role=Role.INPUT
    )
    paper: Paper = False
    vocab_size: int | None = option("Bound of the vocabulary that a preset learns.", None, MODEL, at_least=1)
    word_tokens: bool = option("Every word of the IDs becomes one token, such as the index word aar.", False, MODEL)
    item_slots: bool | None = option(
        "causal: items begin at fixed distances, which other programs cannot place; if not given, on for presets.",
        None,
        MODEL,
        flags=("--item-slots/--no-item-slots",),
    )
    causal_encoder: bool = option(
        "T5: what is read of an item depends on those before it alone, so that a history is read once for all its "
        "prefixes; templates' words behind it are left out.",
        False,
        MODEL,
    )
    lora: int | None = option(
        "Train low-rank updates of this rank and the rows of new tokens only; needs the extra `lora`.",
        None,
        MODEL,
        at_least=1,
    )
    freeze: int | None = option(
        "Leave the embeddings and the first so many layers of a trained --model (a T5's encoder) as they are.",
        None,
        MODEL,
        at_least=0,
    )
    keep_states: bool = option(
        "With --freeze: run the frozen layers once, and keep their states on disk till the training ends.", False, MODEL
    )
    activation_checkpointing: bool = option(
        "causal: run layers again for their gradient; less memory, more time.", False, RUN, role=Role.RUN
    )
    gen: str | None = option("For --user-ids: the ID generator.", None, PROMPTS, role=Role.INPUT)
    objective: Literal["full", "trie"] = UNSET
    epochs: int = option("Passes over the training instances: 10; causal 8.", UNSET, TRAINING, at_least=1)
    lr: float = option("Highest learning rate: 1e-3; causal 2e-3.", UNSET, TRAINING, above=0)
    batch_size: int = option(
        "Instances a batch: 64; causal as many sequences, with --causal-encoder 16 of them.",
        UNSET,
        TRAINING,
        at_least=1,
    )
    weight_decay: float = option("AdamW's weight decay: .01; causal .05.", UNSET, TRAINING, at_least=0)
    dropout: float | None = option(
        "Dropout; if not given, the model's own, with a causal one .2.", None, TRAINING, at_least=0, below=1
    )

    def __post_init__(self) -> None:
        arch = _arch(self.model) if self.arch is UNSET else self.arch
        settled = {"arch": arch, "model": PRESETS[arch], "near_items": self.near_items_settled()}
        settled |= defaults(arch, paper=self.paper, causal_encoder=self.causal_encoder)
        for name, value in settled.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()
        _check(self)

    @property
    def is_preset(self) -> bool:
        from idgr.models.backbone import is_preset

        return is_preset(self.model)


def run(options: Options) -> dict[str, Any] | None:
    """Train a recommender, or with `dry_run` tell what that would take.

    Returns:
        The record of the epoch that was kept, or the forecast; None where the output was finished before.
    """
    from idgr.formats.rec_folder import RecommenderFacts
    from idgr.formats.run_info import hash_input
    from idgr.models.device import pick_device
    from idgr.models.lora import check_lora
    from idgr.prompts.templates import load_templates

    if options.lora is not None:
        check_lora("--lora")
    with_users = options.user_ids != "none" and options.gen is not None
    facts = RecommenderFacts(
        options.objective,
        load_templates(options.templates) if options.arch == "t5" else [],
        options.max_history,
        options.max_prompt_tokens,
        "",
        user_ids=options.user_ids,
        user_gen=hash_input(str(options.gen))["sha256"] if with_users else None,
        history=options.history,
        arch=options.arch,
        separator=options.separator,
        causal_encoder=options.causal_encoder,
    )
    model = local_model(options.model)
    info = run_info("train-rec", options, text_vectors=options.encoder, model=model)
    refuse_held_out({name: path for name, path in info.inputs.items() if name != "model"})
    if options.dry_run:
        prepared = _prepare(options, facts, pick_device(options.device))
        told = forecast_recommender(
            prepared, options, options, lambda n_users: _task(prepared, replace(options, valid_users=n_users))
        )
        return told | _kept_states_forecast(prepared, options) if options.keep_states else told
    return run_training(
        info,
        options,
        lambda device: _prepare(options, facts, device),
        lambda prepared, running: _train(prepared, options, running),
        lambda prepared, folder, kept: save_recommender(prepared, facts, folder, kept, lora=options.lora is not None),
    )


def _arch(model: str | None) -> str:
    """The architecture of what --model names."""
    if model is None:
        return "t5"
    from idgr.models.backbone import arch_of

    return "causal" if arch_of(model) == "causal" else "t5"


def _check(options: Options) -> None:
    """Raise `UsageError` where options do not go together."""
    refuse_stream(options.output, "a model folder")
    if options.arch != "causal":
        for flag, value in (
            ("--reorder", options.reorder),
            ("--lora", options.lora),
            ("--separator newline", options.separator == "newline"),
            ("--layers", options.layers),
            ("--item-slots", options.item_slots is not None),
            ("--keep-states", options.keep_states),
            ("--activation-checkpointing", options.activation_checkpointing),
        ):
            if value:
                raise UsageError(f"{flag} is for --arch causal", "leave it out")
    elif options.templates is not None or options.user_ids != "none":
        raise UsageError("--arch causal has no prompts", "leave --templates and --user-ids out")
    if options.causal_encoder:
        if options.arch == "causal":
            raise UsageError("--causal-encoder is for --arch t5", "leave it out; a causal model reads so anyway")
        if options.user_ids != "none":
            what = f"--causal-encoder with --user-ids {options.user_ids}, which change with the history"
            raise UsageError(what, "leave one of them out")
    if options.item_slots and options.separator == "newline":
        raise UsageError("--item-slots with --separator newline, behind which there are none", "leave one of them out")
    if options.history == "none" and options.user_ids == "none":
        raise UsageError("--history none without --user-ids leaves prompts empty", "add --user-ids history")
    freeze = f"--freeze {options.freeze}"
    for flag, given in (("--lora", options.lora), ("--layers", options.layers), (freeze, options.freeze)):
        if given is not None and options.is_preset:
            what = f"{flag} with --model {options.model}, whose weights are random"
            raise UsageError(what, "give --model a trained model")
    _check_freeze(options)
    _check_keep_states(options)
    check_auxiliary(options, options.arch)


def _check_freeze(options: Options) -> None:
    """Raise `UsageError` where layers shall stay as they are that would be of no use so, or would anyway."""
    if options.freeze is None:
        return
    given = f"--freeze {options.freeze}"
    if options.lora is not None:
        raise UsageError(f"{given} with --lora, which leaves all layers as they are", "leave one of them out")
    if options.word_tokens:
        raise UsageError(f"{given} with --word-tokens, whose embeddings have to learn", "leave one of them out")


def _check_keep_states(options: Options) -> None:
    """Raise `UsageError` where the states behind frozen layers are not the same in every epoch, or there is but one."""
    if not options.keep_states:
        return
    if not options.freeze:
        raise UsageError("--keep-states without layers that stay as they are", "add --freeze 1, or more")
    if options.dropout:
        raise UsageError(f"--keep-states with --dropout {options.dropout}, anew in each epoch", "add --dropout 0")
    for flag, value in (
        ("--reorder, anew in each epoch", options.reorder),
        ("--tell-items, which learns below the frozen layers", options.tell_items),
        ("a contrast, which learns below the frozen layers", options.contrast_semantic or options.contrast_behavior),
        ("--compile, which takes all layers together", options.compile),
        ("--old-ids, which name items anew in each epoch", options.old_ids),
        ("--epochs 1, in which no states are read again", options.epochs == 1),
    ):
        if value:
            raise UsageError(f"--keep-states with {flag}", "leave one of them out")


def _prepare(options: Options, facts: RecommenderFacts, device: torch.device) -> Prepared:
    from idgr.engine.device import checkpoint_activations
    from idgr.formats.rec_folder import read_seen_tokens
    from idgr.models.backbone import resolve_model
    from idgr.models.freezing import freeze_layers
    from idgr.models.llama import fit_item_slots, item_slots, keep_layers
    from idgr.models.lora import add_lora
    from idgr.models.tokenizer import id_tokens
    from idgr.models.word_tokens import add_word_tokens
    from idgr.prompts.templates import template_words
    from idgr.recommender.prompts import either_renderer_of, user_ids_of

    inputs = read_inputs(options.train, options.ids, options.valid)
    _check_memory(options, device)
    tasks = auxiliary_tasks(options, inputs.keys)
    backbone = resolve_model(
        options.model,
        arch=options.arch,
        tokenizer=options.tokenizer,
        texts=lambda: [*inputs.texts, *template_words(facts.templates), *tasks.words()],
        vocab_size=options.vocab_size,
        seed=options.seed,
    )
    model, tokenizer = backbone.model, backbone.tokenizer
    if options.causal_encoder or getattr(model.config, "causal_encoder", False):
        model.config.causal_encoder = options.causal_encoder  # of a trained model it may have been another
    if options.layers is not None:
        keep_layers(model, options.layers)
    added: list[int] = []
    if options.word_tokens:
        added = add_word_tokens(backbone, inputs.texts, seed=options.seed, new=options.is_preset)
    items = None if options.reads_texts else options.items
    users = user_ids_of(facts, options.gen, items, inputs.keys, tokenizer, device)
    tokens = id_tokens(tokenizer, inputs.texts)
    old = None if options.old_ids is None else id_tokens(tokenizer, read_old_ids(options.old_ids, inputs.keys))
    if options.arch == "causal":
        new = options.is_preset and options.item_slots is not False
        fit_item_slots(model, [*tokens, *(old or [])], new=new, separator=options.separator)
        _check_item_slots(options, item_slots(model))
    if options.lora is not None:
        add_lora(model, options.lora, seed=options.seed, tokens=added)
    if options.freeze is not None:
        freeze_layers(model, options.freeze)
    if options.activation_checkpointing:
        checkpoint_activations(model)
    model.to(device)
    renderer = either_renderer_of(facts, tokenizer, tokens, users)
    return Prepared(
        inputs,
        backbone,
        renderer,
        tasks,
        contrast(options, model, inputs.keys, options.seed),
        item_head(options, model, inputs.keys, inputs.histories.sequences, tokens, renderer.end, options.seed),
        read_seen_tokens(options.model) or set(),
        [] if options.is_preset else earlier_trainings(options.model, inputs.known, facts),
        old,
    )


def _check_memory(options: Options, device: torch.device) -> None:
    """Raise `IdgrError` where the whole of a trained model has not the memory to learn, before it is loaded."""
    from idgr.models.memory import check_memory

    partly = options.freeze is not None or options.lora is not None or options.layers is not None
    if not options.is_preset and not partly and device.type == "cpu":
        check_memory(options.model, _LEARNT)


def _check_item_slots(options: Options, slots: int) -> None:
    """Raise `UsageError` where a trained model's places are not as asked for; weights know what they learnt."""
    if options.is_preset or options.item_slots is None or options.item_slots == bool(slots):
        return
    has = f"begins an item every {slots} places" if slots else "counts places through"
    flag = "--item-slots" if options.item_slots else "--no-item-slots"
    raise UsageError(f"{flag}, but {options.model} {has}", "leave it out, or train a new model from a preset")


def _task(prepared: Prepared, options: Options) -> TrainingTask:
    from idgr.recommender.training import recommender_task

    histories = prepared.inputs.histories
    return recommender_task(
        prepared.backbone,
        prepared.renderer,
        histories.sequences,
        histories.valid,
        options,
        options.seed,
        tasks=prepared.tasks,
        contrast=prepared.contrast,
        item_head=prepared.item_head,
        old_ids=prepared.old_ids,
    )


def _train(prepared: Prepared, options: Options, running: TrainingRun) -> dict[str, Any]:
    from idgr.recommender.training import train_recommender

    histories = prepared.inputs.histories
    say_if_unvalidated("train-rec", histories.valid)
    if options.keep_states and running.context.processes.size > 1:
        raise UsageError("--keep-states in several processes", "run one, or leave it out")
    kept = train_recommender(
        prepared.backbone,
        prepared.renderer,
        histories.sequences,
        histories.valid,
        options,
        options,
        running.on_epoch,
        names=histories.names,
        context=running.context,
        tasks=prepared.tasks,
        contrast=prepared.contrast,
        item_head=prepared.item_head,
        old_ids=prepared.old_ids,
        keep_states=_keep_states(prepared.backbone.model, options, running) if options.keep_states else None,
    )
    say_what_is_kept("train-rec", kept, options.epochs)
    return kept


def _kept_states_forecast(prepared: Prepared, options: Options) -> dict[str, Any]:
    """The disk that `keep_states` takes, in GiB; the seconds told beside it are those of the epoch that makes them."""
    from idgr.recommender.kept_states import states_size

    model = prepared.backbone.model
    tokens_N = _task(prepared, options).lengths - (options.separator == "newline")
    return {"states_gib": states_size(model, int(tokens_N.sum()), _states_type(options, model.device)) / 2**30}


def _states_type(options: Options, device: torch.device) -> torch.dtype:
    import torch

    from idgr.models.device import uses_bf16

    return torch.bfloat16 if uses_bf16(options.precision, device) else torch.float32


def _keep_states(model: Any, options: Options, running: TrainingRun) -> KeepStates:
    """What keeps the states in the folder of the training's checkpoints, which goes when it has ended."""
    from idgr.engine.checkpoint import checkpoint_folder
    from idgr.recommender.kept_states import keep_states

    dtype = _states_type(options, running.device)
    return partial(keep_states, model, options.freeze or 0, checkpoint_folder(options.output) / "states", dtype)
