"""The card of a model on the hub: a README.md whose front matter is the hub's YAML, made of the model's record.

The keys are those of https://huggingface.co/docs/hub/model-cards and the `model-index` of Papers with Code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idgr import __version__
from idgr.errors import IdgrError
from idgr.formats.json_file import read_object
from idgr.formats.run_info import read_run

_TASK, _TASK_NAME = "recommendation", "Sequential recommendation"
_FIGURE = re.compile(r"(hr|ndcg|mrr)@[1-9]\d*")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SPEED = ("seconds", "instances_per_second")  # which are the machine's
_METRICS_TODO = "give a file that `idgr eval` wrote, with its .run.json beside it"
_KINDS = {
    "train-rec": "A recommender that answers a user's history with the textual ID of the next item",
    "train-sasrec": "A SASRec: a Transformer that ranks items after a user's history",
    "train-two-tower": "A two-tower with DIN attention: vectors of users and of items",
    "train-text-ranker": "A ranker of texts: it ranks the items of any catalogue after a user's history by their texts",
    "init-gen": "An ID generator: it answers an item's text with a short textual ID",
    "train-gen": "An ID generator, trained together with a recommender: it answers an item's text with a textual ID",
}


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model on held-out users.

    Attributes:
        split: "test", "valid" or what else the file of the users is called.
        truth: the SHA-256 of that file; None where it is not known.
        figures: by name, such as ndcg@10; shares from 0 to 1.
        n_users: how many users there are; None where it is not known.
        baselines: figures of the same names by baseline.
    """

    split: str
    truth: str | None
    figures: dict[str, float]
    n_users: int | None = None
    baselines: Mapping[str, dict[str, float]] | None = None


def read_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """The figures that `idgr eval` wrote into a file.

    Raises:
        IdgrError: it is no such file, or was changed since.
    """
    found = read_object(path, _METRICS_TODO)
    record = read_run(path)
    figures, truth = _figures(found), record.get("inputs", {}).get("truth", {})
    if record.get("command") != "eval" or not figures or not truth:
        raise IdgrError("holds no metrics whose record tells where they come from", _METRICS_TODO, where=path)
    n_users, peers = found.get("n_users"), found.get("baselines")
    baselines = {name: _figures(told) for name, told in peers.items()} if isinstance(peers, dict) else {}
    users = n_users if isinstance(n_users, int) else None
    return Evaluation(Path(truth["path"]).stem, truth.get("sha256"), figures, users, baselines)


def kept_epoch(record: Mapping[str, Any]) -> Evaluation | None:
    """The figures of the epoch that a training kept, on its validation users; None where it had none."""
    kept = record.get("kept")
    figures = _figures(kept)
    if not figures:
        return None
    valid = record.get("inputs", {}).get("valid", {})
    return Evaluation("valid", valid.get("sha256"), figures)


def base_model_of(record: Mapping[str, Any]) -> str | None:
    """The name on the hub of the model that a training began with, where its record tells one."""
    model = record.get("options", {}).get("model")
    if not isinstance(model, str) or not _HUB_NAME.fullmatch(model):
        return None
    return None if record.get("inputs", {}).get("model", {}).get("sha256") else model


def model_card(
    name: str,
    record: Mapping[str, Any],
    license: str,
    evaluations: Sequence[Evaluation],
    *,
    data_name: str,
    base_model: str | None = None,
) -> str:
    """The text of a card.

    Args:
        name: of the model on the hub.
        record: its `run.json`, without places of the machine (`idgr.formats.published.without_places`).
        license: as the hub names it, such as "apache-2.0".
        evaluations: what is told of its accuracy.
        data_name: what the data set is called.
        base_model: the name on the hub of the model that it was made of.
    """
    command, arch = str(record["command"]), record.get("arch")
    kind = command.removeprefix("train-")
    about = "id-generator" if command.endswith("-gen") else "recommender"
    tags = ["idgr", "generative-recommendation" if command in ("train-rec", "init-gen", "train-gen") else kind, about]
    tags += [str(arch)] if arch else []
    lines = ["---", _front_matter(name, license, tags, evaluations, data_name, base_model), "---", "", f"# {name}", ""]
    lines += [f"{_KINDS[command]}, made with idgr {record.get('versions', {}).get('idgr', __version__)}.", ""]
    lines += ["## Use", "", "```sh", *_use(name, record), "```", ""]
    if evaluations:
        lines += ["## Results", ""]
        for one in evaluations:
            lines += [*_results(one), ""]
    lines += [*_training(record), ""]
    return "\n".join(lines)


def _front_matter(
    name: str,
    license: str,
    tags: list[str],
    evaluations: Sequence[Evaluation],
    data_name: str,
    base_model: str | None,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=_TASK,
            task_name=_TASK_NAME,
            dataset_type=re.sub(r"[^a-z0-9]+", "-", data_name.lower()).strip("-") or "data",
            dataset_name=data_name,
            dataset_split=one.split,
            dataset_args={"sha256": one.truth} if one.truth else None,
            metric_type=figure,
            metric_name=figure.upper(),
            metric_value=value,
        )
        for one in evaluations
        for figure, value in one.figures.items()
    ]
    card = ModelCardData(
        base_model=base_model,
        eval_results=results or None,
        library_name="idgr",
        license=license,
        model_name=name if results else None,
        tags=tags,
    )
    return str(card.to_yaml()).strip()


def _use(name: str, record: Mapping[str, Any]) -> list[str]:
    command, encoder = str(record["command"]), record.get("inputs", {}).get("text-vectors")
    if command.endswith("-gen"):
        return [f"idgr pull {name} -o gen/", "idgr gen-ids items.jsonl --model gen/ -o ids.jsonl"]
    catalogue = " --items items.jsonl" if command == "train-text-ranker" else ""
    if command == "train-sasrec" and encoder is not None:
        catalogue = f" --items items.jsonl --text-vectors {encoder['path']}/"
    return [f"idgr pull {name} -o rec/", f"idgr recommend histories.jsonl --rec rec/{catalogue} -k 10"]


def _results(one: Evaluation) -> list[str]:
    users = "" if one.n_users is None else f", {one.n_users:,} users"
    digest = "" if one.truth is None else f" (SHA-256 `{one.truth}`)"
    peers = {name: told for name, told in (one.baselines or {}).items() if told}
    rows = [
        [figure, *(f"{told[figure]:.4f}" if figure in told else "" for told in (one.figures, *peers.values()))]
        for figure in one.figures
    ]
    return [f"On `{one.split}`{users}{digest}:", "", *_table(["metric", "this model", *peers], rows)]


def _training(record: Mapping[str, Any]) -> list[str]:
    lines = ["## Training", "", f"`idgr {record['command']}`, seed {record.get('seed')}.", ""]
    kept = record.get("kept")
    if isinstance(kept, dict):
        figures = {
            name: value for name, value in kept.items() if isinstance(value, (int, float)) and name not in _SPEED
        }
        told = ", ".join(f"{name} {_number(value)}" for name, value in figures.items())
        lines += [f"Kept: {told}.", ""]
    inputs = [
        [role, f"`{entry['path']}`", f"`{entry['sha256']}`" if entry.get("sha256") else ""]
        for role, entry in record.get("inputs", {}).items()
    ]
    lines += [*_table(["read", "file", "SHA-256"], inputs), ""] if inputs else []
    options = [[f"`{name}`", f"`{value}`"] for name, value in record.get("options", {}).items() if value is not None]
    lines += [*_table(["option", "value"], options), ""] if options else []
    versions = record.get("versions")
    if isinstance(versions, dict):
        lines += ["Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."]
    return lines


def _figures(told: Any) -> dict[str, float]:
    """The metrics of accuracy among an object's values, in its order."""
    found = told.items() if isinstance(told, dict) else ()
    return {
        name: float(value)
        for name, value in found
        if _FIGURE.fullmatch(name) and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [list(head), ["---"] * len(head), *map(list, rows)]
    return ["| " + " | ".join(" ".join(one.split()).replace("|", "\\|") for one in row) + " |" for row in cells]
