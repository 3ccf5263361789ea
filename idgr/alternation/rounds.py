"""Goes through the phases of an alternate training, and scores its rounds.

A phase is finished once its output is there, whole and made from the inputs as they are now. So a run that was cut off
goes on where it stopped, and gives what the single commands would.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from idgr.alternation.folder import check_model
from idgr.alternation.phases import METRICS, Phase
from idgr.decoding.trie import build_trie
from idgr.engine.checkpoint import checkpoint_folder, read_origin
from idgr.formats.json_file import read_object
from idgr.formats.jsonl import read_jsonl, replace_file, replace_folder, write_json, write_jsonl
from idgr.formats.lock import hold
from idgr.formats.rec_folder import RecommenderFacts, read_recommender_facts
from idgr.formats.records import read_ids, read_queries
from idgr.formats.replacing import discard, is_leftover, remove
from idgr.formats.run_info import RUN_FILE, RunInfo, hash_input, hash_output, read_run
from idgr.ids.diff import changed_share
from idgr.models.backbone import load_either, save_backbone
from idgr.models.device import pick_device
from idgr.models.tokenizer import id_tokens
from idgr.progress import log
from idgr.recommender.options import RecommenderOptions, ValidationOptions
from idgr.recommender.prompts import either_renderer_of, user_ids_of
from idgr.recommender.training import draw_users, validation

_SCORED = "scored"  # in a line of a round's metrics.json: of which models and files it tells


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


def table(run: Path) -> list[str]:
    """A line for each round of a finished run: the IDs changed, and NDCG@10 on validation before and after it."""
    n_items = len(read_ids(run / "round-0" / "ids.jsonl"))
    by_round: dict[int, list[dict[str, Any]]] = {}
    for row in read_jsonl(run / "metrics.jsonl", dict):
        by_round.setdefault(row["round"], []).append(row)
    lines, before = [], ""
    for number, rows in by_round.items():
        share = max(row["ids_changed"] for row in rows)
        renamed = f"{rows[0]['ndcg@10']:.4f} with the new IDs, " if share and len(rows) > 1 else ""
        after = rows[-1]["ndcg@10"]
        lines.append(
            f"round {number}: {round(share * n_items)} of {n_items} IDs changed ({share:.1%}); NDCG@10 on validation "
            f"{before}{renamed}{after:.4f} after"
        )
        before = f"{after:.4f} before, "
    return lines


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
