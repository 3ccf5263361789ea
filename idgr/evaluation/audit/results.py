"""Checks of recommendations and metrics: right IDs for the model, the test set scored once, baselines beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from idgr.errors import IdgrError
from idgr.evaluation.audit.checks import FAIL, PASS, Check, skipped
from idgr.evaluation.audit.data import read_numbered
from idgr.evaluation.audit.id_texts import any_id
from idgr.evaluation.audit.provenance import ITEM_MODELS, Findings, Output
from idgr.formats.rec_folder import compare_ids, read_trained_ids
from idgr.formats.records import ids_fingerprint, is_per_user
from idgr.formats.run_info import read_run

BELONG = "IDs and model belong together"
SCORED = "the test set was scored at most once"
BASELINES = "baselines stand beside the result"


def result_checks(findings: Findings) -> list[Check]:
    """Checks of everything that was recommended or scored below the folder."""
    # A model of items is asked without IDs.
    asked = [
        recs for recs in findings.of("recommend") if recs.named("rec") is not None and recs.named("ids") is not None
    ]
    checks = [_asked_right(recs, findings) for recs in asked]
    checks += _pairs(findings)
    checks.append(_scored(findings))
    for metrics in findings.of("eval"):
        if not is_per_user(metrics.path):
            checks.append(_baselines(metrics.path))
    return checks + [_baselines(one.path / "metrics.json") for one in findings.of("zeroshot")]


def _asked_right(recs: Output, findings: Findings) -> Check:
    rec, ids = findings.find(recs, "rec"), findings.find(recs, "ids")
    if rec is None or ids is None:
        return skipped(BELONG, recs.path, "the recommender or the IDs that it was asked with are not here")
    return _belong(rec, ids, recs.path)


def _pairs(findings: Findings) -> list[Check]:
    """Folders that hold a recommender beside IDs, as the rounds of a run do."""
    checks = []
    # A recommender that `id-only` never trains again, or that was trained elsewhere, does not know the new IDs.
    id_only = [run.path for run in findings.of("alternate") if run.option("mode") == "id-only"]
    for model in findings.of("train-rec"):
        ids: Path | None = model.path.with_name("ids.jsonl")
        if model.path.name != "rec" and model.path.with_name("decision.json").is_file():
            ids = findings.find(model, "ids")  # what a round of `alternate --method select` tries is not what it leaves
        if ids is None or not ids.is_file():
            continue
        if any(run in model.path.parents for run in id_only):
            checks.append(skipped(BELONG, model.path, "--mode id-only trains no recommender on the new IDs, by intent"))
        else:
            checks.append(_belong(model.path, ids, model.path))
    return checks


def _belong(rec: Path, ids: Path, subject: Path) -> Check:
    told = read_run(rec).get("ids_fingerprint")
    if not isinstance(told, str):
        return skipped(BELONG, subject, f"{rec} does not tell the IDs that it was trained on")
    found = [one for _, one in read_numbered(ids, any_id)]
    if told != ids_fingerprint(found):
        trained = read_trained_ids(rec, told)
        changes = None if trained is None else compare_ids(trained, found)
        if changes is not None and changes.same and not changes.changed:
            grown = f"the {changes.same} items of {ids} that {rec} was trained on have their IDs of the training"
            return Check(BELONG, str(subject), PASS, f"{grown}; {changes.new} are new, {changes.gone} gone")
        return Check(BELONG, str(subject), FAIL, f"{rec} was trained on other IDs than {ids}")
    return Check(BELONG, str(subject), PASS, f"{rec} was trained on just the IDs of {ids}, by their fingerprint")


def _scored(findings: Findings) -> Check:
    """Whether no row of a results table has two scorings on test.jsonl; only what lies below the folder is seen."""
    if findings.data is None:
        return skipped(SCORED, findings.root, "the data set is not here; name it with --data")
    test = findings.data_digest("test")
    if test is None:
        return skipped(SCORED, findings.root, f"{findings.data} has no test.jsonl")
    made = {findings.digest(recs.path): recs for recs in findings.of("recommend", "blend")}
    # Scoring the same lists again chooses nothing.
    scored: dict[str, tuple[str, str]] = {}
    for metrics in findings.of("eval"):
        recs = metrics.digest("recs")
        lists = made.get(recs)
        # A baseline is no model of ours.
        if metrics.digest("truth") == test and (lists is None or lists.option("baseline") is None):
            scored.setdefault(recs or str(metrics.path), (_row(lists, findings), str(metrics.path)))
    for one in findings.of("zeroshot"):
        if one.digest("test") == test:
            scored.setdefault(str(one.path), ("zeroshot", str(one.path)))
    rows: dict[str, list[str]] = {}
    for row, path in scored.values():
        rows.setdefault(row, []).append(path)
    told = f"{len(scored)} times below {findings.root}"
    if len(rows) > 1:
        told += f", for {len(rows)} rivals"
    told += "; what was done elsewhere cannot be seen from here"
    for row, paths in rows.items():
        if len(paths) > 1:
            return Check(SCORED, str(findings.root), FAIL, f"{told}: {row} by {', '.join(sorted(paths)[:3])}")
    return Check(SCORED, str(findings.root), PASS, told)


def _row(lists: Output | None, findings: Findings) -> str:
    """What some recommendations are of: models that differ in architecture, kind of IDs or seed are rivals; models that
    differ in anything else, such as rounds, rates or beams, are choices, which validation has to make."""
    if lists is None:
        return "recommendations from elsewhere"
    if lists.command == "blend":
        return f"a blend, by {lists.named('weight') or lists.option('weight')}"
    model = _made(lists.digest("rec"), findings.of("train-rec", *ITEM_MODELS), findings)
    if model is None:
        return "a model from elsewhere"
    if model.command in ITEM_MODELS:
        return f"{ITEM_MODELS[model.command]}, seed {model.option('seed')}"
    source = _made(lists.digest("ids"), findings.of("gen-ids"), findings)
    kind = "generated" if source is None else str(source.option("scheme") or "textual")
    if source is not None and source.option("model") == "keyphrase" and kind == "textual":
        kind = "keyphrase"
    adapted = " and an adapter" if lists.named("adapter") else ""
    return f"{model.option('arch') or 't5'} with {kind} IDs{adapted}, seed {model.option('seed')}"


def _made(digest: str | None, outputs: list[Output], findings: Findings) -> Output | None:
    """The output that has these bytes."""
    return next((one for one in outputs if digest is not None and findings.digest(one.path) == digest), None)


def _baselines(path: Path) -> Check:
    if not path.is_file():
        return skipped(BASELINES, path, "the metrics are not here")
    try:
        metrics: Any = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        metrics = None
    if not isinstance(metrics, dict):
        raise IdgrError("is not a JSON object", "score the recommendations again", where=path)
    found = metrics.get("baselines")
    names = sorted(found) if isinstance(found, dict) else []
    missing = [name for name in ("popularity", "markov") if name not in names]
    if missing:
        return Check(BASELINES, str(path), FAIL, f"{' and '.join(missing)} missing; score without --no-baselines")
    cutoffs = [name for name in metrics if name.startswith("hr@")]
    figures = "both are there"
    if cutoffs and isinstance(found, dict):
        rows = {"ours": metrics, **{name: found[name] for name in names}}
        told = [f"{name} {row.get(cutoffs[-1])}" for name, row in rows.items() if isinstance(row, dict)]
        figures = f"{cutoffs[-1]}: {', '.join(told)}"
    return Check(BASELINES, str(path), PASS, figures)
