"""`idgr alternate`: generator and recommender trained in turns, as a chain of single stages."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from idgr.engine.options import Precision
from idgr.errors import IdgrError, UsageError, check_utf8
from idgr.formats.claims import check_apart
from idgr.formats.held_out import refuse_held_out
from idgr.formats.run_info import RunInfo
from idgr.generator.options import DEFAULT_LR, PAPER_LR
from idgr.ids.schemes.options import SchemeOptions
from idgr.options import (
    RUN,
    TRAINING,
    UNSET,
    Device,
    Forwarded,
    Role,
    Seed,
    StageOptions,
    argument,
    option,
    option_fields,
    output_option,
)
from idgr.progress import log
from idgr.recommender.defaults import defaults
from idgr.recommender.options import Paper, PromptOptions, ValidationOptions
from idgr.stages import gen_ids, init_gen, train_gen, train_rec
from idgr.stages.choosing import RANDOM, SOFT, ChoosingOptions, check_recommender, remembered
from idgr.stages.options import refuse_stream, run_info

if TYPE_CHECKING:
    from idgr.alternation.phases import Alternation, Phase

STAGES: dict[str, ModuleType] = {
    "train-gen": train_gen, "gen-ids": gen_ids, "train-rec": train_rec, "init-gen": init_gen,
}  # fmt: skip
PARTS = ("items", "train", "valid")

# What this stage settles itself: paths, and what both trainings have in common.
_PATHS = frozenset({"train", "items", "ids", "old_ids", "valid", "rec", "gen", "output", "templates"})
_SHARED = frozenset(
    {
        *("objective", "max_history", "max_prompt_tokens", "max_text_tokens", "own_words"),
        *("precision", "device", "seed", "old_ids"),
    }
)
_RUN = frozenset({"overwrite", "dry_run", "force", "paper", "skip_finished"})
_SETTLED = _PATHS | _SHARED | _RUN


def _names(options: type[StageOptions]) -> frozenset[str]:
    return frozenset(one.name for one in option_fields(options))


@dataclass(frozen=True, kw_only=True)
class Options(ValidationOptions, PromptOptions, ChoosingOptions):
    """Train generator and recommender in turns; run again, it goes on where it stopped.

    Every option of the single stages is there too: --gen.lr, --rec.ema, --ids.beams and so on.

    Example: idgr alternate data/beauty/ --gen gen/ --rec nano --rounds 3 -o runs/beauty/
    """

    data: str = argument("A folder that `idgr prep` wrote.", "DATA")
    gen: str | None = option("The ID generator to begin from; select needs none with --ids.", None, role=Role.INPUT)
    output: str = output_option("Folder for the run, taken up where it stopped.")
    rec: str = option("The recommender to begin from: a preset, a folder or a hub model, T5 or causal.", "nano")
    rounds: int = option(
        "Rounds of generator, new IDs, recommender; with rec-first, round 1 trains the recommender alone.",
        3,
        at_least=1,
    )
    mode: Literal["alternate", "rec-only", "id-only"] = option("Both in turns, or one of them alone.", "alternate")
    order: Literal["gen-first", "rec-first"] | None = option(
        "Which one the first round trains first (default: rec-first for a preset, else gen-first).", None
    )
    paper: Paper = False
    objective: Literal["full", "trie"] = option("The recommender's: trie, the default, or full.", UNSET, TRAINING)
    max_history: int = UNSET
    max_text_tokens: int = option("Texts are cut behind so many.", 256, TRAINING, at_least=2)
    own_words: bool = option("With --gen: IDs of the words of an item's own text alone.", False, TRAINING)
    precision: Precision = "fp32"
    device: Device = "auto"
    seed: Seed = 0
    dry_run: bool = option("Print the single commands and do nothing.", False, RUN, role=Role.RUN)
    overwrite: bool = option("Begin anew in place of going on.", False, RUN, role=Role.RUN)
    processes: int = option(
        "Processes of each training, on this machine; as many as there are GPUs.", 1, RUN, role=Role.RUN, at_least=1
    )
    gen_options: Annotated[
        Mapping[str, Any],
        Forwarded(
            "Of train-gen.",
            of=train_gen.Options,
            prefix="gen",
            panel="The generator's training",
            left_out=_SETTLED,
        ),
    ] = field(default_factory=dict)
    ids_options: Annotated[
        Mapping[str, Any],
        Forwarded(
            "Of gen-ids.",
            of=gen_ids.Options,
            prefix="ids",
            panel="Making IDs",
            left_out=_SETTLED
            | _names(SchemeOptions)
            | {"model", "neighbours", "rec_tokenizer", "shard", "assign", "train", "keep"},
        ),
    ] = field(default_factory=dict)
    rec_options: Annotated[
        Mapping[str, Any],
        Forwarded(
            "Of train-rec.",
            of=train_rec.Options,
            prefix="rec",
            panel="The recommender's training",
            left_out=_SETTLED
            | {"arch", "model", "tokenizer", "lora", "reorder", "layers", "freeze"}
            | _names(PromptOptions)
            | _names(train_rec.AuxiliaryOptions)
            | _names(ValidationOptions),
        ),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from idgr.models.backbone import arch_of

        arch = "causal" if arch_of(self.rec) == "causal" else "t5"
        if arch == "causal" and self.templates is not None:
            raise UsageError(f"--templates with --rec {self.rec}, which reads no prompts", "leave it out")
        settled = defaults(arch, paper=self.paper)
        for name in ("objective", "max_history"):
            if getattr(self, name) is UNSET:
                object.__setattr__(self, name, settled[name])
        if self.paper and self.method == SOFT and "lr" not in self.gen_options:
            object.__setattr__(self, "gen_options", {**self.gen_options, "lr": PAPER_LR})
        super().__post_init__()
        if self.method == SOFT and self.gen is None:
            raise UsageError("--gen is missing", "give the ID generator to begin from")
        if self.own_words and self.gen is None:
            raise UsageError("--own-words without --gen", "give a generator, or leave it out")
        self.check_method(self.gen, self.gen_options, self.ids_options)
        shared = ["vocab_size"] * (self.gen is not None) + ["word_tokens"] * (self.method == SOFT)
        for name in shared:
            if name in self.rec_options:
                what = f"--rec.{name.replace('_', '-')}, but the recommender has the vocabulary of --gen"
                raise UsageError(what, "leave it out")
        if self.method != SOFT and (self.mode, self.user_ids) != ("alternate", "none"):
            other = f"--user-ids {self.user_ids}" if self.mode == "alternate" else f"--mode {self.mode}"
            raise UsageError(f"--method {self.method} with {other}", "leave that out")


def run(options: Options) -> list[str]:
    """Train in turns.

    Returns:
        With `dry_run` the single commands, a line each, with a comment before those of a round; else nothing.
    """
    refuse_stream(options.output, "a run")
    check_utf8("the place of a model", Path(options.output).absolute(), options.gen or "", options.rec)
    check_apart(options.output, [options.data, options.gen, options.rec, options.templates, options.ids])
    _check_surroundings(options)
    from idgr.alternation.folder import claim, held
    from idgr.alternation.phases import rounds_in_words
    from idgr.alternation.rounds import run_phases, score_phase, table
    from idgr.alternation.selection import table as selection_table

    folder, what = Path(options.output), _alternation(options)
    phases = _phases(folder, what, options)
    rounds = rounds_in_words(phases)
    if options.mode == "alternate" and not any(phase.command in ("train-gen", "select") for phase in phases):
        does = "trains no generator" if options.method == SOFT else "chooses no IDs"
        log(f"alternate: a single round from an untrained recommender {does}; --rounds 2 does")
    if options.dry_run:
        return _commands(phases, rounds)
    info = _check_inputs(options)
    valid, untrained = Path(options.data) / "valid.jsonl", _untrained(options)
    with held(folder):
        claim(folder, info.provenance(), what, options.overwrite)
        log("alternate: " + "; ".join(f"round {number}: {words}" for number, words in rounds.items()))
        info.write(folder)  # before the work: a rerun can tell whether it is the same run
        run_phases(
            folder,
            phases,
            lambda phase: _perform(phase, options.processes),
            lambda phase: score_phase(phase, valid, options, untrained, options.device),
        )
        info.write(folder)
        lines = table(folder) if options.method == SOFT else selection_table(folder, options.rounds)
        for line in lines:
            log(f"alternate: {line}")
    return []


def _phases(folder: Path, what: Alternation, options: Options) -> list[Phase]:
    if options.method == SOFT:
        from idgr.alternation.phases import plan

        return plan(folder, what)
    from idgr.alternation.selection import Selection, plan_selection

    how = Selection(**options.choosing(), at_random=options.method == RANDOM)
    return plan_selection(folder, what, how, options.device)


def _perform(phase: Phase, n_processes: int) -> None:
    if phase.command not in STAGES:
        from idgr.alternation.selection_steps import perform

        perform(phase)
        return
    if n_processes > 1 and phase.command.startswith("train-"):
        _train_together(phase, n_processes)
        return
    stage = STAGES[phase.command]
    stage.run(stage.Options(**phase.arguments, output=str(phase.output)))


def _train_together(phase: Phase, n_processes: int) -> None:
    """Train as several processes, which this one waits for.

    Raises:
        StoppedError: a signal asked to stop; a checkpoint was written.
        IdgrError: the training ended otherwise than well; its processes have told why.
    """
    from idgr.engine.checkpoint import SIGNALS, StoppedError
    from idgr.engine.launch import launch

    code = launch(n_processes, shlex.split(_command_line(phase))[1:])
    if code - 128 in SIGNALS:
        raise StoppedError(code - 128, todo="run it again to go on")
    if code:
        raise IdgrError(f"{phase.command} ended with code {code}", "see what it said above", where=phase.output)


def _check_surroundings(options: Options) -> None:
    from idgr.engine.distributed import n_processes

    if not options.dry_run and n_processes() > 1:
        todo = "start one with --processes N, which starts so many for each training"
        raise UsageError("alternate runs in one process", todo)


def _alternation(options: Options) -> Alternation:
    from idgr.alternation.phases import Alternation
    from idgr.models.backbone import CAUSAL_PRESETS

    both = {"precision": options.precision, "device": options.device}
    texts, words = {"max_text_tokens": options.max_text_tokens}, {"own_words": options.own_words}
    validation = {name: getattr(options, name) for name in ("valid_users", "valid_beams", "patience")}
    prompts = ("objective", "max_history", "max_prompt_tokens", "templates")
    taught = {"epochs": 1, "lr": DEFAULT_LR, "anchor": 0.1, "held_out": 0.0}  # the IDs that were chosen
    teaching: dict[str, Any] = words if options.method == SOFT else taught
    # New IDs may be longer than any before.
    places = {"item_slots": False} if options.method == SOFT and options.rec in CAUSAL_PRESETS else {}
    return Alternation(
        Path(options.data),
        options.gen,
        options.rec,
        options.rounds,
        options.mode,
        options.order,
        gen_options={**teaching, **options.gen_options, **texts, **both},
        ids_options={**options.ids_options, **texts, **words, "device": options.device},
        rec_options={**places, **remembered(options.rec), **options.rec_options, **validation, **both},
        prompt_options={name: getattr(options, name) for name in prompts},
        user_ids=options.user_ids,
        history=options.history,
        seed=options.seed,
    )


def _untrained(options: Options) -> Any:
    """How a recommender is asked that cannot tell how it was trained."""
    from idgr.formats.rec_folder import RecommenderFacts
    from idgr.prompts.templates import load_templates

    templates = load_templates(options.templates)
    return RecommenderFacts(options.objective, templates, options.max_history, options.max_prompt_tokens, "")


def _check_inputs(options: Options) -> RunInfo:
    """The record of the run, once what it reads is known to be there and to fit together."""
    from idgr.generator.id_learning import check_one_vocabulary
    from idgr.models.backbone import check_t5, is_preset
    from idgr.models.tokenizer import load_tokenizer

    files = {name: str(Path(options.data) / f"{name}.jsonl") for name in PARTS}
    for name, path in files.items():
        if not Path(path).is_file():
            raise IdgrError(f"has no {name}.jsonl", "give a folder that `idgr prep` wrote", where=options.data)
    rec = None if is_preset(options.rec) else options.rec
    info = run_info("alternate", options, **files, data=None, rec=rec)
    refuse_held_out(info.inputs)
    if options.gen is not None:
        check_t5(options.gen, "alternate")
    rec_options = options.rec_options
    check_recommender(options.rec, options.method, rec_options, paper=options.paper, user_ids=options.user_ids)
    if rec is not None and options.gen is not None and options.method == SOFT:
        check_one_vocabulary(load_tokenizer(options.gen), load_tokenizer(rec), options.gen, rec)
    if rec is not None and options.method != SOFT:
        _tell_held_out_known(rec, info)
    return info


def _tell_held_out_known(rec: str, info: RunInfo) -> None:
    """Warn where a recommender has learnt the targets that its rounds are judged by."""
    from idgr.formats.run_info import read_run

    train = info.provenance()["inputs"]["train"]["sha256"]
    if read_run(rec).get("inputs", {}).get("train", {}).get("sha256") == train:
        log(
            f"alternate: warning: {rec} was trained on the targets that are held out, so rounds are undone that pay; "
            "begin with --rec of a preset"
        )


def _commands(phases: list[Phase], rounds: dict[int, str]) -> list[str]:
    """What a user would type for each phase."""
    lines = []
    for number, words in rounds.items():
        lines.append(f"# round {number}: {words}")
        for phase in phases:
            if phase.round == number and phase.command in STAGES:
                lines.append(_command_line(phase))
            elif phase.round == number and phase.command in words:  # done by alternate itself
                lines.append(f"# {phase.command}: {phase.output}")
    return lines


def _command_line(phase: Phase) -> str:
    positional, words = [], []
    for one in option_fields(STAGES[phase.command].Options):
        value = phase.arguments.get(one.name)
        if one.option.positional:
            positional.append(str(value))
        elif isinstance(value, list):
            words += [word for each in value for word in (one.flag, str(each))]
        elif isinstance(value, bool):
            words += filter(None, [one.flag if value else one.negative_flag])
        elif value is not None:
            words += [one.flag, str(value)]
    return shlex.join(["idgr", phase.command, *positional, *words, "-o", str(phase.output)])
