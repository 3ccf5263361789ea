"""What the stages that train a recommender of textual IDs have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from idgr.errors import IdgrError
from idgr.options import Option, Role
from idgr.progress import log
from idgr.stages.training import TRIED_USERS, Histories, forecast_training, numbered

if TYPE_CHECKING:
    from idgr.engine.options import TrainingOptions
    from idgr.engine.task import TrainingTask
    from idgr.formats.rec_folder import RecommenderFacts
    from idgr.formats.records import ItemId
    from idgr.models.backbone import Backbone
    from idgr.prompts.histories import HistoryRenderer
    from idgr.prompts.rendering import PromptRenderer
    from idgr.recommender.auxiliary_tasks import AuxiliaryTaskOptions
    from idgr.recommender.contrast import Contrast
    from idgr.recommender.item_head import ItemObjective
    from idgr.recommender.options import ValidationOptions

Ids = Annotated[str, Option("Textual IDs, ids.jsonl of `idgr gen-ids`.", role=Role.INPUT)]


@dataclass(frozen=True)
class Inputs:
    """The data of a training: the items and their IDs, in the order of their numbers, and histories of them."""

    known: list[ItemId]
    histories: Histories

    @property
    def keys(self) -> list[str]:
        return [record.item_id for record in self.known]

    @property
    def texts(self) -> list[str]:
        return [record.id for record in self.known]


@dataclass(frozen=True)
class Prepared:
    """What is trained, and on what.

    Attributes:
        tasks, contrast, item_head: what a causal model is taught beside recommending.
        seen_tokens: those that the model has seen in IDs before.
        earlier: the trainings of `idgr train-rec` that it goes on from, oldest first; see `earlier_trainings`.
        old_ids: the tokens of the items' old IDs, where they are named by these too.
    """

    inputs: Inputs
    backbone: Backbone
    renderer: PromptRenderer | HistoryRenderer
    tasks: AuxiliaryTaskOptions | None = None
    contrast: Contrast | None = None
    item_head: ItemObjective | None = None
    seen_tokens: set[int] = field(default_factory=set)
    earlier: list[dict[str, Any]] = field(default_factory=list)
    old_ids: list[list[int]] | None = None


def read_inputs(train: str, ids: str, valid: str | None) -> Inputs:
    """Read IDs, training sequences and validation users.

    Raises:
        IdgrError: a file is at fault, no training sequence has a target, or one goes on to what is held out.
    """
    from idgr.formats.records import read_ids, read_queries, read_sequences

    known = read_ids(ids)
    number = {record.item_id: i for i, record in enumerate(known)}
    rows = list(read_sequences(train, number))
    queries = [] if valid is None else list(read_queries(valid, number, need_target=True))
    return Inputs(known, numbered(train, rows, queries, number))


def read_old_ids(path: str, keys: list[str]) -> list[str]:
    """The old ID of each item. Raises `IdgrError` where they are not those of the same items."""
    from idgr.formats.records import read_ids

    old = {record.item_id: record.id for record in read_ids(path)}
    if len(old) != len(keys) or any(key not in old for key in keys):
        raise IdgrError("is not of the items of --ids", "give the IDs that these items had before", where=path)
    return [old[key] for key in keys]


def earlier_trainings(model: str, known: Sequence[ItemId], facts: RecommenderFacts) -> list[dict[str, Any]]:
    """What `run.json` tells of the trainings that a model has behind it, oldest first; none where idgr made none.

    Says in one line what the IDs and settings are beside those of the last one.

    Args:
        model: what --model names.
        known: the IDs that it is to be trained on.
        facts: how.
    """
    from idgr.formats.rec_folder import compare_ids, read_recommender_facts, read_trained_ids
    from idgr.formats.run_info import read_run

    record = read_run(model) if Path(model).is_dir() else {}
    if record.get("command") != "train-rec":
        return []
    before = read_recommender_facts(model)
    told: dict[str, Any] = {"path": model, "ids_fingerprint": before.ids_fingerprint}
    told |= {name: record[name] for name in ("inputs", "kept", "started") if name in record}
    line = f"train-rec: goes on from {model}"
    trained = read_trained_ids(model, before.ids_fingerprint)
    if trained is not None:
        told["ids"] = compare_ids(trained, known).counts
        line += "; IDs: " + ", ".join(f"{count} {name}" for name, count in told["ids"].items())
    then, now = asdict(before), asdict(facts)
    for name in ("objective", "max_history", "max_prompt_tokens", "user_ids", "history", "separator"):
        if then[name] != now[name]:
            line += f"; it was trained with --{name.replace('_', '-')} {then[name]}, now {now[name]}"
    if then["causal_encoder"] != now["causal_encoder"]:
        line += f"; it was trained with{'' if then['causal_encoder'] else 'out'} --causal-encoder"
    if then["templates"] != now["templates"]:
        line += "; it was trained with other --templates"
    if "item_head" in record:
        line += "; its item head is not taken over"
    log(line)
    earlier = record.get("earlier")
    return [*(earlier if isinstance(earlier, list) else []), told]


def forecast_recommender(
    prepared: Prepared,
    options: TrainingOptions,
    validation: ValidationOptions,
    make_task: Callable[[int], TrainingTask],
) -> dict[str, Any]:
    """What a training would take; `make_task` is given how many users to validate on."""
    from idgr.recommender.contrast import beside

    n_valid = len(prepared.inputs.histories.valid)
    n_users = min(validation.valid_users or n_valid, n_valid)
    model = prepared.backbone.model
    with beside(model, prepared.contrast, prepared.item_head):
        return forecast_training(model, make_task(TRIED_USERS), options, min(TRIED_USERS, n_valid), n_users)


def save_recommender(
    prepared: Prepared, facts: RecommenderFacts, folder: Path, kept: dict[str, Any], *, lora: bool
) -> dict[str, Any]:
    """Write what was trained into a folder, and give what `run.json` shall tell of it.

    Args:
        kept: the record of the epoch whose weights it has.
        lora: whether low-rank updates are to be merged into the weights.
    """
    from idgr.formats.rec_folder import write_rec_ids, write_seen_tokens
    from idgr.formats.records import ids_fingerprint
    from idgr.models.backbone import save_backbone
    from idgr.models.lora import merge_lora

    backbone, inputs, renderer = prepared.backbone, prepared.inputs, prepared.renderer
    if lora:
        merge_lora(backbone.model)
    save_backbone(backbone, folder)
    names = [renderer.id_tokens, *([] if prepared.old_ids is None else [prepared.old_ids])]
    items = {item for row in inputs.histories.sequences for item in row}
    seen = {token for rows in names for item in items for token in rows[item]}
    write_seen_tokens(folder, seen | prepared.seen_tokens)
    write_rec_ids(folder, inputs.known)
    told = asdict(facts) | {
        "ids_fingerprint": ids_fingerprint(inputs.known),
        "kept": kept,
        "eos_token_id": backbone.model.config.eos_token_id,
    }
    if prepared.earlier:
        told["earlier"] = prepared.earlier
    return told | _save_head(prepared, folder, kept)


def _save_head(prepared: Prepared, folder: Path, kept: dict[str, Any]) -> dict[str, Any]:
    """Write the item head, if there is one; what `run.json` shall tell of it."""
    from idgr.recommender.item_head import UNVALIDATED
    from idgr.recommender.item_head_file import save_item_head

    if prepared.item_head is None:
        return {}
    save_item_head(prepared.item_head.head, prepared.inputs.keys, folder)
    return {"item_head": {"weight": prepared.item_head.weight, "lambda": kept.get("lambda", UNVALIDATED)}}
