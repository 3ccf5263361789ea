"""`idgr alternate`: generator and recommender trained in turns, as a chain of single commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idgr.cli.recommender_defaults import Paper, defaults
from idgr.cli.train_rec import train_rec
from idgr.errors import IdgrError, UsageError, check_utf8
from idgr.formats.claims import check_apart, final_place
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import STDOUT
from idgr.formats.lock import hold
from idgr.formats.replacing import remove
from idgr.formats.run_info import RUN_FILE, RunInfo, differences, read_run
from idgr.generator.options import PAPER_LR
from idgr.options import MOST_INT
from idgr.progress import log
from idgr.stages import gen_ids, train_gen

if TYPE_CHECKING:
    from idgr.alternation.rounds import Alternation, Phase

COMMANDS: dict[str, Callable[..., object]] = {
    "train-gen": lambda **given: train_gen.run(train_gen.Options(**given)),
    "gen-ids": lambda **given: gen_ids.run(gen_ids.Options(**given)),
    "train-rec": train_rec,
}
FIRST_ARGUMENT = {"train-gen": "train", "gen-ids": "items", "train-rec": "train"}


def alternate(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder that `idgr prep` wrote.")],
    gen: Annotated[str, typer.Option("--gen", help="The ID generator to begin from.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the run, taken up where it stopped.")],
    rec: Annotated[
        str, typer.Option("--rec", help="The recommender to begin from: a preset, a folder or a hub model.")
    ] = "nano",
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds",
            max=MOST_INT,
            help="Rounds of generator, new IDs, recommender; with rec-first, round 1 trains the recommender alone "
            "(a single round of id-only: both).",
        ),
    ] = 3,
    mode: Annotated[str, typer.Option("--mode", help="alternate, rec-only or id-only.")] = "alternate",
    order: Annotated[
        str | None,
        typer.Option("--order", help="gen-first or rec-first (default: rec-first for a preset, else gen-first)."),
    ] = None,
    gen_epochs: Annotated[int, typer.Option("--gen-epochs", max=MOST_INT, help="Epochs of the generator a round.")] = 1,
    gen_lr: Annotated[float | None, typer.Option("--gen-lr", help="Its learning rate; that of train-gen.")] = None,
    gen_batch_size: Annotated[int, typer.Option("--gen-batch-size", max=MOST_INT, help="Its instances a batch.")] = 12,
    gen_epoch_instances: Annotated[
        int,
        typer.Option("--gen-epoch-instances", max=MOST_INT, help="Instances drawn for each of its epochs; 0 for all."),
    ] = 0,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the generator's softmax.")] = 1.0,
    straight_through: Annotated[
        bool, typer.Option("--straight-through", help="Show hard IDs, with the gradient of the soft ones.")
    ] = False,
    anchor: Annotated[float, typer.Option("--anchor", help="Weight of staying close to a round's generator.")] = 0.0,
    rec_epochs: Annotated[
        int, typer.Option("--rec-epochs", max=MOST_INT, help="Epochs of the recommender a round.")
    ] = 10,
    rec_lr: Annotated[float, typer.Option("--rec-lr", help="Its learning rate.")] = 1e-3,
    rec_batch_size: Annotated[int, typer.Option("--rec-batch-size", max=MOST_INT, help="Its instances a batch.")] = 64,
    rec_epoch_instances: Annotated[
        int,
        typer.Option("--rec-epoch-instances", max=MOST_INT, help="Instances drawn for each of its epochs; 0 for all."),
    ] = 0,
    paper: Paper = False,
    objective: Annotated[
        str | None, typer.Option("--objective", help="The recommender's: trie, the default, or full.")
    ] = None,
    templates: Annotated[str | None, typer.Option("--templates", help="Prompt templates; else idgr's ten.")] = None,
    max_history: Annotated[
        int, typer.Option("--max-history", max=MOST_INT, help="Newest history items that are shown.")
    ] = 20,
    max_prompt_tokens: Annotated[
        int, typer.Option("--max-prompt-tokens", max=MOST_INT, help="Length of a prompt.")
    ] = 512,
    user_ids: Annotated[
        Literal["none", "history"], typer.Option("--user-ids", help="history: prompts begin with the user's ID.")
    ] = "none",
    history: Annotated[
        Literal["shown", "none"], typer.Option("--history", help="none: the user's ID stands for the history.")
    ] = "shown",
    max_text_tokens: Annotated[
        int, typer.Option("--max-text-tokens", max=MOST_INT, help="Texts are cut behind so many.")
    ] = 256,
    no_repeat_ngram: Annotated[
        int, typer.Option("--no-repeat-ngram", max=MOST_INT, help="As in gen-ids; 0 for no rule.")
    ] = 0,
    valid_users: Annotated[
        int, typer.Option("--valid-users", max=MOST_INT, help="Users to validate on; 0 for all.")
    ] = 2000,
    valid_beams: Annotated[
        int, typer.Option("--valid-beams", max=MOST_INT, help="Beams of the search on validation.")
    ] = 20,
    patience: Annotated[int, typer.Option("--patience", max=MOST_INT, help="As in train-rec; 0 for never.")] = 0,
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16.")] = "fp32",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[
        int, typer.Option("--seed", max=MOST_INT, help="Seed of the first round; each further one adds 1.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the single commands and do nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in place of going on.")] = False,
) -> None:
    """Train generator and recommender in turns; run again, it goes on where it stopped.

    Example: idgr alternate data/beauty/ --gen gen/ --rec nano --rounds 3 -o runs/beauty/
    """
    objective = objective or defaults("t5", paper=paper).objective
    gen_lr = PAPER_LR if paper and gen_lr is None else gen_lr
    given = dict(locals())
    if output == STDOUT:
        raise UsageError("-o - cannot hold a run", "give the name of a folder to -o")
    check_utf8("the place of a model", Path(output).absolute(), gen, rec)
    check_apart(output, [data, gen, rec, templates])
    from idgr.engine.distributed import n_processes

    if not dry_run and n_processes() > 1:
        raise UsageError(
            "alternate runs in one process", "start the single commands, which --dry-run prints, with several each"
        )

    from idgr.alternation.rounds import Alternation, plan, rounds_in_words, run_phases, score_phase
    from idgr.formats.rec_folder import RecommenderFacts
    from idgr.generator.id_learning import check_one_vocabulary
    from idgr.models.backbone import CAUSAL_PRESETS, PRESETS, check_t5
    from idgr.models.tokenizer import load_tokenizer
    from idgr.prompts.templates import load_templates
    from idgr.recommender.options import RecommenderOptions

    if rec in CAUSAL_PRESETS:
        raise UsageError(f"--rec {rec}, which is causal", f"give --rec {' or '.join(PRESETS)}: alternate takes a T5")
    folder = Path(output)
    scoring: dict[str, Any] = {"valid_users": valid_users, "valid_beams": valid_beams}
    prompts: dict[str, Any] = {
        "objective": objective,
        "max_history": max_history,
        "max_prompt_tokens": max_prompt_tokens,
    }
    prompts |= {"templates": templates}
    both: dict[str, Any] = {"precision": precision, "device": device}
    gen_options: dict[str, Any] = {"epochs": gen_epochs, "lr": gen_lr, "batch_size": gen_batch_size}
    gen_options |= {"epoch_instances": gen_epoch_instances, "max_text_tokens": max_text_tokens, **both}
    gen_options |= {"temperature": temperature, "straight_through": straight_through, "anchor": anchor}
    rec_options: dict[str, Any] = {
        "epochs": rec_epochs,
        "lr": rec_lr,
        "batch_size": rec_batch_size,
        "patience": patience,
    }
    rec_options |= {"epoch_instances": rec_epoch_instances, **scoring, **both}
    what = Alternation(
        Path(data),
        gen,
        rec,
        rounds,
        mode,
        order,
        gen_options=gen_options,
        ids_options={"max_text_tokens": max_text_tokens, "no_repeat_ngram": no_repeat_ngram, "device": device},
        rec_options=rec_options,
        prompt_options=prompts,
        user_ids=user_ids,
        history=history,
        seed=seed,
    )
    phases = plan(folder, what)
    rounds_do = rounds_in_words(phases)
    if mode == "alternate" and not any(phase.command == "train-gen" for phase in phases):
        log("alternate: a single round from an untrained recommender trains no generator; --rounds 2 does")
    if dry_run:
        for number, words in rounds_do.items():
            print(f"# round {number}: {words}")
            for phase in phases:
                if phase.round == number and phase.command in COMMANDS:
                    print(_command_line(phase))
        return

    scored_by = RecommenderOptions(
        objective=objective, valid_users=valid_users, valid_beams=valid_beams, patience=patience
    )
    untrained = RecommenderFacts(objective, load_templates(templates), max_history, max_prompt_tokens, "")
    for name in ("items", "train", "valid"):
        if not (Path(data) / f"{name}.jsonl").is_file():
            raise IdgrError(f"has no {name}.jsonl", "give a folder that `idgr prep` wrote", where=data)
    if rec not in PRESETS:
        for model in (gen, rec):
            check_t5(model, "alternate")
        check_one_vocabulary(load_tokenizer(gen), load_tokenizer(rec), gen, rec)
    inputs: dict[str, str | None] = {name: str(Path(data) / f"{name}.jsonl") for name in ("items", "train", "valid")}
    inputs |= {"gen": gen, "rec": rec if rec not in PRESETS else None, "templates": templates}
    refuse_held_out(inputs)
    left_out = {*inputs, "data", "output", "device", "paper", "dry_run", "overwrite"}
    options = {name: value for name, value in given.items() if name not in left_out} | {"rec": rec}
    info = RunInfo("alternate", options, {**inputs}, seed, outputs=[output])
    with _held(folder):
        check_t5(gen, "alternate")
        _claim(folder, info.provenance(), what, overwrite)
        log("alternate: " + "; ".join(f"round {number}: {words}" for number, words in rounds_do.items()))
        info.write(folder)  # before the work: a rerun can tell whether it is the same run
        run_phases(
            folder,
            phases,
            lambda phase: COMMANDS[phase.command](**phase.arguments, output=str(phase.output)),
            lambda phase: score_phase(phase, Path(inputs["valid"] or ""), scored_by, untrained, device),
        )
        info.write(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder."""
    with ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold(final_place(folder), folder))
        except OSError as fault:
            what = f"cannot be written ({fault.strerror or fault})"
            raise IdgrError(what, "choose another -o or free its disk", where=folder) from None
        yield


def _claim(folder: Path, now: dict[str, Any], what: Alternation, overwrite: bool) -> None:
    """Refuse a folder that is not this run's; with `overwrite`, empty one that is a run's.

    Raises:
        IdgrError: the folder holds something else, or a run that is not the same.
    """
    from idgr.alternation.folder import check_run

    # A run that was cut off before its first word may have left a hidden file.
    if not folder.exists() or (folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())):
        folder.mkdir(parents=True, exist_ok=True)
        return
    record = read_run(folder) if folder.is_dir() else {}
    if record.get("command") != "alternate":
        raise IdgrError("is not a run of `idgr alternate`", "give another folder to -o", where=folder)
    if overwrite:
        check_run(folder)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == RUN_FILE):  # last, what tells whose it is
            remove(path)
        return
    before = record.get("options", {})
    rounds = before.get("rounds", 0)
    if isinstance(rounds, int) and what.goes_on_from(rounds):
        before = {**before, "rounds": now["options"]["rounds"]}
    if found := differences({**record, "options": before}, now):
        todo = "give the same, another folder to -o, or --overwrite to begin anew"
        raise IdgrError(f"was {found}", todo, where=folder)


def _command_line(phase: Phase) -> str:
    """What a user would type for a phase."""
    words = ["idgr", phase.command, phase.arguments[FIRST_ARGUMENT[phase.command]]]
    for name, value in phase.arguments.items():
        if name == FIRST_ARGUMENT[phase.command] or value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    return shlex.join([*words, "-o", str(phase.output)])
