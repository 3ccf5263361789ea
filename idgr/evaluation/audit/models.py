"""Checks of what is trained, counted or chosen: what it was made from, and by what it was chosen.

Models below a folder may be made of others elsewhere; those are followed by their records and checked too.
"""

from __future__ import annotations

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import FAIL, PASS, Check, skipped
from idgr.evaluation.audit.held_out import chosen_on, trained_on
from idgr.evaluation.audit.provenance import ITEM_MODELS, Findings, Output
from idgr.formats.jsonl import read_jsonl

TRAINED = "the model has read nothing held out"
COUNTED = "baselines have read nothing held out"
CHOSEN = "the checkpoint was chosen on validation"
WEIGHT = "the weight was chosen on validation"
BEST = "the final round is the best on validation"
USER_IDS = "user IDs are made from the shown history alone"
_CHOOSING = ("train-rec", "train-adapter", "alternate", *ITEM_MODELS)  # by valid.jsonl
_TRAINING = ("init-gen", "train-gen", *_CHOOSING)
_COUNTING = ("recommend", "eval", "zeroshot")  # popularity and Markov


def model_checks(findings: Findings) -> list[Check]:
    """Checks of all that was trained or chosen, here or for what is here, and of the rounds of a run."""
    sources = findings.sources_of(findings.outputs)
    checks = []
    for one in (*findings.outputs, *sources):
        if one.command in _TRAINING:
            checks += _held_out(one, findings)
        if one.command in _CHOOSING:
            checks += _chosen(one, findings)
        if one.command in _COUNTING and one.named("train") is not None:
            checks.append(Check(COUNTED, str(one.path), *trained_on(one, findings)))
        if one.command == "blend":
            checks.append(_weight(one, findings))
        if one.command == "train-rec":
            checks.append(_user_ids(one))
    # IDs below the folder have a check of their own, which makes them again.
    checks += [Check(TRAINED, str(ids.path), *trained_on(ids, findings)) for ids in sources
               if ids.command == "gen-ids" and ids.named("train") is not None]  # fmt: skip
    return checks + [_best_round(run, findings) for run in findings.of("alternate")]


def _held_out(model: Output, findings: Findings) -> list[Check]:
    """By hash, and by content where no record knows the hash: so no held-out file goes in, whatever its name.

    A model of several data sets has a check for each.
    """
    if findings.data is None:
        return [skipped(TRAINED, model.path, "the data set is not here; name it with --data")]
    choosing = model.roles_of("valid") if model.command in _CHOOSING else []
    for role in model.roles:
        part = findings.data_part(model.digest(role))
        if part == "test" or (part == "valid" and role not in choosing):
            return [Check(TRAINED, str(model.path), FAIL, f"--{role} was {part}.jsonl of {findings.data}")]
    if model.command == "init-gen" and findings.data_part(model.digest("items")) != "items":
        return [skipped(TRAINED, model.path, f"it was made from other items than those of {findings.data}")]
    read = [(PASS, "")]
    if model.command != "init-gen":
        read = [trained_on(model, findings, role) for role in model.roles_of("train")]
    inputs = ", ".join(role for role in model.roles if role not in model.roles_of("valid"))
    checks = []
    for verdict, told in read:
        if verdict == PASS:
            told = f"{told}; " * bool(told) + f"by their hashes its inputs ({inputs}) were no held-out file"
        checks.append(Check(TRAINED, str(model.path), verdict, told))
    return checks


def _chosen(model: Output, findings: Findings) -> list[Check]:
    """A check for each data set of the model."""
    roles = model.roles_of("valid")
    if model.named(roles[0]) is None:
        told = "nothing was chosen: without --valid the last epoch is kept"
        return [Check(CHOSEN, str(model.path), PASS, told)]
    return [Check(CHOSEN, str(model.path), *chosen_on(model, findings, role)) for role in roles]


def _weight(blend: Output, findings: Findings) -> Check:
    """Of the file with a weight, and of lists that were blended by it."""
    chooser = blend
    if blend.named("truth") is None:
        if blend.named("weight") is None:
            told = f"the weight {blend.option('weight')} was given, and how it was found is not known"
            return skipped(WEIGHT, blend.path, told)
        made = findings.sources_of([blend])
        digest = blend.digest("weight")
        found = [one for one in made if one.command == "blend" and findings.digest(one.path) == digest]
        if not found or found[0].named("truth") is None:
            return skipped(WEIGHT, blend.path, f"no record of {blend.named('weight')} tells how it was chosen")
        chooser = found[0]
    verdict, told = chosen_on(chooser, findings, "truth")
    for lists in findings.sources_of([chooser]):
        asked = findings.data_part(lists.digest("histories"))
        if verdict != FAIL and lists.command == "recommend" and asked == "test":
            verdict, told = FAIL, f"the lists that it was chosen on, {lists.path}, are of test.jsonl of {findings.data}"
    return Check(WEIGHT, str(blend.path), verdict, told)


def _user_ids(model: Output) -> Check:
    how = model.record.get("user_ids", "none")  # a fact that later stages read; older records have no such option
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
