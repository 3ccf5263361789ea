"""Alternate training (IDGenRec, section 2.5): generator and recommender in turns, as a plan of single commands.

A run is a list of phases, each a command with its arguments and one output; it is finished once that output is there,
whole and made from the inputs as they are now. So a run that was cut off goes on where it stopped, and gives what the
single commands would.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from idgr.alternation.folder import check_model
from idgr.decoding.trie import build_trie
from idgr.engine.checkpoint import checkpoint_folder, read_origin
from idgr.errors import UsageError
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import replace_file, replace_folder, write_json, write_jsonl
from idgr.formats.lock import hold
from idgr.formats.rec_folder import RecommenderFacts, read_recommender_facts
from idgr.formats.records import read_ids, read_queries
from idgr.formats.replacing import discard, is_leftover, remove
from idgr.formats.run_info import RUN_FILE, RunInfo, hash_input, hash_output, read_run
from idgr.ids.diff import changed_share
from idgr.models.backbone import is_preset, load_either, save_backbone
from idgr.models.device import pick_device
from idgr.models.tokenizer import id_tokens
from idgr.progress import log
from idgr.recommender.options import RecommenderOptions, ValidationOptions
from idgr.recommender.prompts import either_renderer_of, user_ids_of
from idgr.recommender.training import draw_users, validation

MODES = ("alternate", "rec-only", "id-only")
ORDERS = ("gen-first", "rec-first")

METRICS = "metrics.json"
_SCORED = "scored"  # in a line of a round's metrics.json: of which models and files it tells


@dataclass(frozen=True)
class Alternation:
    """What alternates; the names are those on the command line.

    Attributes:
        data: a prepared folder with items.jsonl, train.jsonl and valid.jsonl.
        gen: the ID generator to begin from, a folder or hub name; None where IDs are chosen without one.
        rec: the recommender to begin from: a preset, a folder or a hub name.
        rounds: how many. A round trains the generator, makes the IDs anew, and trains the recommender on them; where
            the recommender comes first (see `order`), round 1 trains it alone, on the first generator's IDs. With
            "id-only" that is all that a recommender learns; a single round then trains the generator after it.
        mode: both in turns, or one of them alone (the paper's Table 5).
        order: whether the first round trains the generator before the recommender; None for what suits `rec`: through
            a recommender with random weights a generator would learn noise, so with a preset it comes second.
        gen_options: options of `train-gen`, `ids_options` of `gen-ids`, `rec_options` of `train-rec`.
        prompt_options: of both training commands, while the recommender cannot tell its own.
        user_ids: "history" for prompts with the user's ID, or "none".
        history: "shown", or "none" for the user's ID alone.
        seed: of the first round; each further round adds 1.

    Raises:
        UsageError: a value is out of range, or the order does not suit the recommender.
    """

    data: Path
    gen: str | None
    rec: str
    rounds: int = 3
    mode: str = "alternate"
    order: str | None = None
    gen_options: dict[str, Any] = field(default_factory=dict)
    ids_options: dict[str, Any] = field(default_factory=dict)
    rec_options: dict[str, Any] = field(default_factory=dict)
    prompt_options: dict[str, Any] = field(default_factory=dict)
    user_ids: str = "none"
    history: str = "shown"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"--rounds {self.rounds}", "give a number of at least 1")
        for name, value, known in (("mode", self.mode, MODES), ("order", self.order, (None, *ORDERS))):
            if value not in known:
                raise UsageError(f"--{name} {value}", f"choose {', '.join(filter(None, known))}")
        if self.history == "none" and (self.user_ids == "none" or self.mode != "rec-only"):
            raise UsageError(
                "--history none shows no item's ID, so only the recommender can learn, and from user IDs",
                "give --mode rec-only --user-ids history",
            )
        if self.order == "gen-first" and is_preset(self.rec):
            raise UsageError(
                f"--order gen-first with --rec {self.rec}, through whose random weights nothing is learnt",
                "take --order rec-first, or give a trained recommender to --rec",
            )

    @property
    def gen_first(self) -> bool:
        return not is_preset(self.rec) if self.order is None else self.order == "gen-first"

    def turns(self, number: int) -> tuple[str, ...]:
        """Which of "gen" and "rec" a round trains, in their order."""
        if self.mode == "rec-only":
            return ("rec",)
        if number > 1 or self.gen_first:
            return ("gen",) if self.mode == "id-only" else ("gen", "rec")
        # A recommender that is not trained at all cannot be scored, nor learnt through.
        return ("rec", "gen") if self.mode == "id-only" and self.rounds == 1 else ("rec",)

    def goes_on_from(self, rounds: int) -> bool:
        """Whether a run of so many rounds, else the same, is the beginning of this one."""
        if not 1 <= rounds <= self.rounds:
            return False
        return replace(self, rounds=rounds).turns(1) == self.turns(1)


@dataclass(frozen=True)
class Phase:
    """A command of idgr, or `keep` for a copy of what a round does not change, or `validate`.

    Where IDs are chosen (`idgr.alternation.selection`) also what is done there, and `settle` for a copy of what a round
    has made or of what was before it, as it was decided.

    Attributes:
        round: from 1; 0 for what comes before the first round.
        command: its name on the command line.
        arguments: by the names of the command's parameters.
        output: the file or folder it makes.
    """

    round: int
    command: str
    arguments: dict[str, Any]
    output: Path


def plan(run: Path, what: Alternation) -> list[Phase]:
    """The phases of a run in their order; every round's folder gets a generator, IDs and a recommender.

    Commands read what commands wrote, not the copies, so that without the copies they are a chain of their own.
    """
    data = what.data
    items, train, valid = (str(data / name) for name in ("items.jsonl", "train.jsonl", "valid.jsonl"))
    phases: list[Phase] = []
    gen, rec = str(what.gen), what.rec

    def add(number: int, command: str, output: Path, **arguments: Any) -> str:
        phases.append(Phase(number, command, arguments, output))
        return str(output)

    def generate(number: int, output: Path, model: str) -> str:
        return add(number, "gen-ids", output, items=items, model=model, **what.ids_options)

    def train_gen(number: int, folder: Path, seed: int) -> tuple[str, str]:
        # The first recommender may know no IDs at all, and that of `id-only` never gets to know the new ones.
        strange = number == 1 or what.mode == "id-only"
        own = {"force": True, **(what.prompt_options if number == 1 else {})} if strange else {}
        new = add(
            number, "train-gen", folder / "gen",
            train=train, items=items, ids=ids, rec=rec, gen=gen, seed=seed, **what.gen_options, **own,
        )  # fmt: skip
        return new, generate(number, folder / "ids.jsonl", new)

    def train_rec(number: int, folder: Path, seed: int) -> str:
        own = {**what.rec_options, **what.prompt_options, "user_ids": what.user_ids, "history": what.history}
        own |= {"tokenizer": gen} if is_preset(rec) else {}
        own |= {"gen": gen, "items": items} if what.user_ids != "none" else {}
        return add(
            number, "train-rec", folder / "rec",
            train=train, ids=ids, valid=valid, model=rec, seed=seed, **own,
        )  # fmt: skip

    ids = generate(0, run / "round-0" / "ids.jsonl", gen)
    for number in range(1, what.rounds + 1):
        folder, seed = run / f"round-{number}", what.seed + number - 1
        turns = what.turns(number)
        if "gen" not in turns:
            add(number, "keep", folder / "gen", source=gen)
            add(number, "keep", folder / "ids.jsonl", source=ids)
        for turn in turns:
            before = ids
            if turn == "gen":
                gen, ids = train_gen(number, folder, seed)
            else:
                rec = train_rec(number, folder, seed)
            state = {"gen": gen, "rec": rec, "ids": ids, "items": items}
            trained = gen if turn == "gen" else rec
            add(number, "validate", folder / METRICS, phase=turn, before=before, trained=trained, **state)
        if "rec" not in turns:
            add(number, "keep", folder / "rec", source=rec)
    return phases


def rounds_in_words(phases: Iterable[Phase]) -> dict[int, str]:
    """By its number, what a round does, such as "train-gen, gen-ids, train-rec"; round 0 makes the first IDs."""
    commands: dict[int, list[str]] = {}
    for phase in phases:
        if phase.command not in ("keep", "settle", "validate"):
            commands.setdefault(phase.round, []).append(phase.command)
    return {number: ", ".join(names) for number, names in commands.items()}


def is_done(phase: Phase) -> bool:
    """Whether the phase's output is there, whole, and made from the inputs as they are now."""
    if phase.command == "validate":
        line = _read_scores(phase.output).get(phase.arguments["phase"], {})
        return bool(line.get(_SCORED) == _scored(phase))
    record = read_run(phase.output)
    if not record:
        return False
    if phase.command in ("keep", "settle"):
        return _same(_source(phase), phase.output)
    return _same_inputs(phase, record.get("inputs", {})) and hash_output(phase.output) == record.get("outputs")


def clear(phase: Phase) -> None:
    """Take away what would keep a phase from being done: an output made otherwise, checkpoints of other inputs.

    Raises:
        IdgrError: the output holds what its record does not list.
    """
    if phase.output.is_dir():
        check_model(phase.output)
        discard(phase.output)
    checkpoints = checkpoint_folder(phase.output)
    origin = read_origin(checkpoints)
    if origin is not None and not _same_inputs(phase, origin["inputs"]):
        shutil.rmtree(checkpoints)


def _same_inputs(phase: Phase, inputs: dict[str, Any]) -> bool:
    """Whether the inputs that a record tells of are those of the phase, as they are now."""
    for role, entry in inputs.items():
        name = phase.arguments.get(role.replace("-", "_"))
        if role.startswith("candidates "):  # the files of --assign
            name = phase.arguments["assign"][int(role.split()[1]) - 1]
        if name is None or hash_input(name)["sha256"] != entry["sha256"]:
            return False
    return True


def _source(phase: Phase) -> str:
    """What a phase copies."""
    if phase.command == "keep":
        return str(phase.arguments["source"])
    accepted = read_object(Path(phase.arguments["decision"]), "run it again").get("accepted")
    return str(phase.arguments["accepted" if accepted is True else "undone"])


def keep(source: str, output: Path) -> None:
    """Copy a model folder, or a file with its record; a model on the hub is loaded and saved."""
    if Path(source).is_file():
        for ending in (f".{RUN_FILE}", ""):  # the record first: a copy that is there has it
            if Path(f"{source}{ending}").is_file():
                with replace_file(f"{output}{ending}") as stream:
                    stream.write(Path(f"{source}{ending}").read_bytes())
        if not Path(f"{source}.{RUN_FILE}").is_file():
            RunInfo("keep", {}, {"source": source}).write(output)
        return
    with replace_folder(output) as folder:
        if Path(source).is_dir():
            shutil.copytree(source, folder, dirs_exist_ok=True)
        else:
            save_backbone(load_either(source), folder)
        if not (folder / RUN_FILE).is_file():
            RunInfo("keep", {}, {"source": source}).write(output, folder)


def score_phase(
    phase: Phase, valid: Path, options: ValidationOptions, untrained: RecommenderFacts, device: str
) -> dict[str, Any]:
    """A line of `metrics.jsonl`: what a phase's training ended with, and what recommender and IDs are worth after it.

    Args:
        valid: valid.jsonl; the test set is not looked at.
        options: how many users are scored and with how many beams.
        untrained: how a recommender is asked that cannot tell how it was trained.
    """
    rec, ids_file = phase.arguments["rec"], phase.arguments["ids"]
    facts = read_recommender_facts(rec, untrained)
    known = read_ids(ids_file)
    number = {record.item_id: i for i, record in enumerate(known)}
    queries = list(read_queries(valid, number, need_target=True))
    users = [queries[place] for place in draw_users(len(queries), options.valid_users)]
    backbone = load_either(rec)
    backbone.model.to(pick_device(device)).eval()
    rows = id_tokens(backbone.tokenizer, [record.id for record in known])
    gen, items, where = phase.arguments["gen"], phase.arguments["items"], backbone.model.device
    named = (
        user_ids_of(facts, gen, items, list(number), backbone.tokenizer, where, strange=True)
        if facts.user_ids != "none"
        else None
    )
    renderer = either_renderer_of(facts, backbone.tokenizer, rows, named)
    trie = build_trie(rows, renderer.end)
    pairs = [([number[item] for item in query.history], number[str(query.target)]) for query in users]
    how = RecommenderOptions(
        objective=facts.objective, valid_users=options.valid_users, valid_beams=options.valid_beams
    )
    scores = validation(backbone.model, renderer, trie, pairs, how)()

    trained, summary = read_run(phase.arguments["trained"]), _object(read_run(ids_file).get("summary"))
    return {
        "round": phase.round,
        "phase": phase.arguments["phase"],
        "loss": _object(trained.get("kept") or trained.get("last")).get("loss"),
        "n_users": len(users),
        **scores,
        "ids_changed": changed_share(read_ids(phase.arguments["before"]), known),
        "ids_second_attempt": summary.get("second_attempts"),
        "ids_longer": summary.get("longer"),
    }


def _object(found: Any) -> dict[str, Any]:
    """A part of a record, which a model that idgr has not trained lacks."""
    return found if isinstance(found, dict) else {}


def run_phases(
    run: Path, phases: Iterable[Phase], perform: Callable[[Phase], object], score: Callable[[Phase], dict[str, Any]]
) -> None:
    """Go through the phases, passing over what is done, then copy the best round to `final`.

    The best round is the one with the highest NDCG@10 on validation at its end; of equal ones the earliest.

    Args:
        perform: runs a command of idgr.
        score: gives the figures of a `validate` phase.
    """
    for path in [*run.glob(".*"), *run.glob("*/.*")]:
        if is_leftover(path):  # a run that was cut off left it; nothing of it was finished
            remove(path)
    for leftover in [*run.glob(".*.lock"), *run.glob("*/.*.lock")]:
        with hold(leftover.with_name(leftover.name.removeprefix(".").removesuffix(".lock"))):
            pass  # taken and given up, it is gone; one that another process holds stops us
    lines: dict[int, list[dict[str, Any]]] = {}
    for phase in phases:
        if is_done(phase):
            log(f"alternate: round {phase.round}, {phase.command} {phase.output.name}: done before")
        elif phase.command == "validate":
            line = score(phase) | {_SCORED: _scored(phase)}
            write_json(phase.output, {**_read_scores(phase.output), phase.arguments["phase"]: line})
        else:
            log(f"alternate: round {phase.round}, {phase.command} {phase.output.name}")
            clear(phase)
            keep(_source(phase), phase.output) if phase.command in ("keep", "settle") else perform(phase)
        if phase.command == "validate":
            lines[phase.round] = list(read_metrics(phase.output).values())
            write_jsonl(run / "metrics.jsonl", (line for rows in lines.values() for line in rows))
    best = max(lines, key=lambda number: (lines[number][-1]["ndcg@10"], -number))
    for name in ("gen", "rec", "ids.jsonl"):
        source, output = run / f"round-{best}" / name, run / "final" / name
        if source.exists() and not _same(str(source), output):  # where IDs are chosen, there may be no generator
            keep(str(source), output)
    write_json(run / "final" / METRICS, lines[best][-1])
    log(f"alternate: the best of {len(lines)} rounds on validation is round {best}")


def read_metrics(path: Path) -> dict[str, Any]:
    """The line of `metrics.jsonl` for each phase scored so far, by its name, from a round's metrics.json."""
    return {
        name: {key: value for key, value in line.items() if key != _SCORED} for name, line in _read_scores(path).items()
    }


def _read_scores(path: Path) -> dict[str, dict[str, Any]]:
    """A round's metrics.json. What it does not hold, or not as idgr writes it, is scored again."""
    try:
        record = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    if not isinstance(record, dict):
        return {}
    return {name: line for name, line in record.items() if _is_line(line)}


def _is_line(found: Any) -> bool:
    score = found.get("ndcg@10") if isinstance(found, dict) else None
    return isinstance(score, float) and 0 <= score <= 1


def _scored(phase: Phase) -> dict[str, Any]:
    """The hashes of what a `validate` phase scores, as they are now."""
    names = ("rec", "ids", "gen", "items", "before", "trained")
    given = {name: phase.arguments[name] for name in names if phase.arguments[name] is not None}
    return {name: hash_input(path)["sha256"] for name, path in given.items()}


def _same(source: str, output: Path) -> bool:
    """Whether a copy is there and whole; a model on the hub is taken not to have changed."""
    if not (Path(source).exists() and output.exists()):
        return output.exists()
    return bool(hash_input(source)["sha256"] == hash_input(output)["sha256"])
