"""What the stages that train a recommender of textual IDs have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from idgr.options import Option, Role
from idgr.stages.training import TRIED_USERS, Histories, forecast_training, numbered

if TYPE_CHECKING:
    from idgr.engine.options import TrainingOptions
    from idgr.engine.task import TrainingTask
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
    """

    inputs: Inputs
    backbone: Backbone
    renderer: PromptRenderer | HistoryRenderer
    tasks: AuxiliaryTaskOptions | None = None
    contrast: Contrast | None = None
    item_head: ItemObjective | None = None
    seen_tokens: set[int] = field(default_factory=set)


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
