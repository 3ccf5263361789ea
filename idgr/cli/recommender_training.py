"""What the commands that train a recommender have in common: what they read, and the forecast of a dry run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idgr.errors import IdgrError
from idgr.formats.held_out import refuse_targets_in_training

if TYPE_CHECKING:
    from collections.abc import Callable

    from idgr.engine.options import TrainingOptions
    from idgr.engine.task import TrainingTask
    from idgr.formats.records import ItemId
    from idgr.models.backbone import Backbone
    from idgr.prompts.histories import HistoryRenderer
    from idgr.prompts.rendering import PromptRenderer
    from idgr.recommender.auxiliary_tasks import AuxiliaryTaskOptions
    from idgr.recommender.contrast import Contrast
    from idgr.recommender.options import RecommenderOptions

# Users who are ranked for in a dry run, to tell how long validation takes.
_TRIED_USERS = 48


@dataclass(frozen=True)
class Inputs:
    """The data of a training, items as numbers.

    Attributes:
        known: the items and their IDs, in the order of the numbers.
        names: the user of each training sequence.
        sequences: oldest first.
        valid: (history, target) of each validation user.
    """

    known: list[ItemId]
    names: list[str]
    sequences: list[list[int]]
    valid: list[tuple[list[int], int]]

    @property
    def keys(self) -> list[str]:
        return [record.item_id for record in self.known]

    @property
    def texts(self) -> list[str]:
        return [record.id for record in self.known]


@dataclass(frozen=True)
class Prepared:
    """What is trained, and on what; `tasks` and `contrast` are what a causal model is taught beside recommending."""

    inputs: Inputs
    backbone: Backbone
    renderer: PromptRenderer | HistoryRenderer
    tasks: AuxiliaryTaskOptions | None = None
    contrast: Contrast | None = None


def read_inputs(train: str, ids: str, valid: str | None) -> Inputs:
    """Read IDs, training sequences and validation users.

    Raises:
        IdgrError: a file is at fault, no training sequence has a target, or one goes on to what is held out.
    """
    from idgr.formats.records import read_ids, read_queries, read_sequences

    known = read_ids(ids)
    number = {record.item_id: i for i, record in enumerate(known)}
    rows = list(read_sequences(train, number))
    sequences = [[number[item] for item in row.items] for row in rows]
    if max(map(len, sequences)) < 2:
        raise IdgrError("no sequence has two items", "give longer training sequences", where=train)
    users = [] if valid is None else list(read_queries(valid, number, need_target=True))
    refuse_targets_in_training(train, rows, users)
    pairs = [([number[item] for item in query.history], number[str(query.target)]) for query in users]
    return Inputs(known, [row.user_id for row in rows], sequences, pairs)


def print_forecast(
    given: Prepared,
    options: RecommenderOptions,
    loop: TrainingOptions,
    make_task: Callable[[RecommenderOptions], TrainingTask],
) -> None:
    """Print what the training would take, as JSON.

    Args:
        make_task: given options, the work of the training.
    """
    from dataclasses import replace
    from time import monotonic

    import orjson

    from idgr.engine.forecast import forecast
    from idgr.engine.memory import peak_mib
    from idgr.recommender.contrast import beside

    valid = given.inputs.valid
    n_users = len(valid) if not options.valid_users else min(options.valid_users, len(valid))
    task = make_task(replace(options, valid_users=_TRIED_USERS))
    with beside(given.backbone.model, given.contrast):
        found = forecast(given.backbone.model, task, loop)
    seconds = 0.0
    if task.measure is not None:
        started = monotonic()
        task.measure()
        seconds = (monotonic() - started) * n_users / min(_TRIED_USERS, len(valid))
    found["validation_seconds"] = round(seconds, 3)
    found["total_seconds"] = round(loop.epochs * (found["seconds_per_epoch"] + seconds), 3)
    found["peak_mib"] = round(peak_mib())
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
