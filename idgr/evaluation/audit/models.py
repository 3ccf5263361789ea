"""Checks of trained models: what they were made from, and by what their weights were chosen."""

from __future__ import annotations

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import FAIL, PASS, Check, skipped
from idgr.evaluation.audit.provenance import ITEM_MODELS, Findings, Output
from idgr.formats.jsonl import read_jsonl
from idgr.formats.records import Query

TRAINED = "the model has read nothing held out"
CHOSEN = "the checkpoint was chosen on validation"
BEST = "the final round is the best on validation"
USER_IDS = "user IDs are made from the shown history alone"
_TRAINING = ("init-gen", "train-gen", "train-rec", "train-adapter", *ITEM_MODELS)
_CHOOSING = ("train-rec", "train-adapter", *ITEM_MODELS)  # by valid.jsonl


def model_checks(findings: Findings) -> list[Check]:
    """Checks of every model below the folder, and of the choice between the rounds of a run."""
    checks = []
    for model in findings.of(*_TRAINING):
        checks.append(_held_out(model, findings))
        if model.command in _CHOOSING:
            checks.append(_chosen(model, findings))
        if model.command == "train-rec":
            checks.append(_user_ids(model))
    return checks + [_best_round(run, findings) for run in findings.of("alternate")]


def _held_out(model: Output, findings: Findings) -> Check:
    """By hash: what went in is known, so it can be said that the test file, whatever its name, did not."""
    if findings.data is None:
        return skipped(TRAINED, model.path, "the data set is not here; name it with --data")
    held_out = {findings.data_digest("test"): "test.jsonl"}
    if model.command not in _CHOOSING:
        held_out[findings.data_digest("valid")] = "valid.jsonl"
    for role in model.roles:
        if (digest := model.digest(role)) is not None and digest in held_out:
            return Check(TRAINED, str(model.path), FAIL, f"--{role} was {held_out[digest]} of {findings.data}")
    train = model.digest("train")
    if model.command != "init-gen" and train != findings.data_digest("train"):
        return skipped(TRAINED, model.path, f"it was trained on another train.jsonl than that of {findings.data}")
    if model.command == "init-gen" and model.digest("items") != findings.data_digest("items"):
        return skipped(TRAINED, model.path, f"it was made from other items than those of {findings.data}")
    told = ", ".join(role for role in model.roles if role != "valid")
    return Check(
        TRAINED, str(model.path), PASS, f"by their hashes its inputs were {told} of {findings.data}, no held-out file"
    )


def _chosen(model: Output, findings: Findings) -> Check:
    digest = model.digest("valid")
    if model.named("valid") is None:
        return Check(CHOSEN, str(model.path), PASS, "nothing was chosen: without --valid the last epoch is kept")
    if digest is None:
        return skipped(CHOSEN, model.path, "--valid came through standard input, so what it held is not known")
    if findings.data is None:
        return skipped(CHOSEN, model.path, "the data set is not here; name it with --data")
    if digest == findings.data_digest("test"):
        return Check(CHOSEN, str(model.path), FAIL, f"--valid was test.jsonl of {findings.data}")
    if digest == findings.data_digest("valid"):
        return Check(CHOSEN, str(model.path), PASS, f"--valid was valid.jsonl of {findings.data}, by its hash")
    found = findings.find(model, "valid")
    if found is None:
        return skipped(CHOSEN, model.path, "--valid was another file than valid.jsonl, and is not here any more")
    targets = dict(_targets(found))
    same = sum(targets.get(user) == target for user, target in _targets(findings.data / "test.jsonl"))
    if same > len(targets) / 2:
        told = f"--valid was {found}, whose targets are test.jsonl's for {same:,} of {len(targets):,} users"
        return Check(CHOSEN, str(model.path), FAIL, told)
    return Check(
        CHOSEN, str(model.path), PASS, f"--valid was {found}; {same:,} of {len(targets):,} targets are test.jsonl's"
    )


def _targets(path: object) -> list[tuple[str, str | None]]:
    return [(query.user_id, query.target) for query in read_jsonl(str(path), Query.parse, allow_empty=True)]


def _user_ids(model: Output) -> Check:
    how = model.record.get("user_ids", "none")
    if how == "none":
        return Check(USER_IDS, str(model.path), PASS, "its prompts hold no user IDs")
    if how != "history":
        return skipped(USER_IDS, model.path, f"its run.json tells of user IDs {how!r}, which is not known")
    told = "its run.json says that each prompt's is made from the items shown; only `idgr audit --mutate` can prove it"
    return skipped(USER_IDS, model.path, told)


def _best_round(run: Output, findings: Findings) -> Check:
    """`RUN/final` must hold the round whose last line in `metrics.jsonl` has the highest NDCG@10."""
    lines, final = run.path / "metrics.jsonl", run.path / "final"
    if not lines.is_file() or not final.is_dir():
        return skipped(BEST, run.path, "the run is not finished: there is no final/ or no metrics.jsonl")
    try:
        last = {int(row["round"]): float(row["ndcg@10"]) for row in read_jsonl(lines, lambda row: row)}
    except (KeyError, TypeError, ValueError):
        raise IdgrError("holds a line without round and ndcg@10", "finish the run again", where=lines) from None
    best = max(last, key=lambda number: (last[number], -number))
    for name in ("gen", "rec", "ids.jsonl"):
        if findings.digest(final / name) != findings.digest(run.path / f"round-{best}" / name):
            told = f"final/{name} is not that of round {best}, which has the highest NDCG@10 on validation"
            return Check(BEST, str(run.path), FAIL, told)
    told = f"final/ is round {best} of {len(last)}, by its hashes; its NDCG@10 on validation is {last[best]:.4f}"
    return Check(BEST, str(run.path), PASS, told)
