"""Training of the models that know items as numbers: what SASRec's and the two-tower's have in common.

Validation ranks all items, those of the history left out, and the weights of the best epoch are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from idgr.engine.distributed import ProcessGroup
from idgr.engine.options import TrainingOptions
from idgr.engine.task import TrainingContext, TrainingTask
from idgr.engine.trainer import run_epochs
from idgr.evaluation.metrics import hit_rate, ndcg, target_ranks
from idgr.item_models.ranking import rank_items
from idgr.models.item_models import ItemModel
from idgr.progress import Progress
from idgr.recommender.training import draw_users

Users = Sequence[tuple[Sequence[int], int]]

_VALID_K = 10


class TaskFactory(Protocol):
    """What makes the loop's work of a model, its training sequences and the users to validate on."""

    def __call__(
        self,
        model: Any,
        sequences: Sequence[Sequence[int]],
        users: Users,
        *,
        patience: int = 0,
        names: Sequence[str] | None = None,
        processes: ProcessGroup | None = None,
    ) -> TrainingTask: ...


def train_item_model(
    model: ItemModel,
    make_task: TaskFactory,
    sequences: Sequence[Sequence[int]],
    valid: Users,
    loop: TrainingOptions,
    on_epoch: Callable[[dict[str, Any]], object],
    *,
    valid_users: int = 0,
    patience: int = 0,
    names: Sequence[str] | None = None,
    context: TrainingContext | None = None,
) -> dict[str, Any]:
    """Train a model where it lies; at the end it has the weights of the best epoch, in evaluation mode.

    Args:
        make_task: `sasrec_task` for a SASRec, `two_tower_task` for a two-tower.
        sequences: the training sequences, as item numbers, oldest first.
        valid: (history, target) of each validation user; without any, the last epoch's weights are kept.
        on_epoch: is given each epoch's record: that of the loop, with hr@10 and ndcg@10 on validation.
        valid_users: how many users to validate on, drawn once; 0 for all.
        patience: epochs without a better NDCG@10 after which training ends; 0 for never.
        names: what to call the user of each sequence in a message.
        context: where it runs; None for this process alone, without checkpoints.

    Returns:
        The record of the epoch whose weights were kept.
    """
    users = [valid[user] for user in draw_users(len(valid), valid_users)]
    processes = context.processes if context else None
    task = make_task(model, sequences, users, patience=patience, names=names, processes=processes)
    return run_epochs(model, task, loop, context, on_epoch)


def call_sequence(number: int, names: Sequence[str] | None) -> str:
    """What a message calls a training sequence: its user, where that has a name."""
    return f"user {names[number]}" if names is not None else f"sequence {number + 1}"


def validation(model: ItemModel, users: Users, processes: ProcessGroup | None = None) -> Callable[[], dict[str, float]]:
    """What gives, whenever called, hr@10 and ndcg@10 on users as (history, target), the history left out.

    Each process of a team ranks for its share of the users; all get the figures of all users.
    """
    processes = processes or ProcessGroup()
    mine = users[processes.share(len(users))]
    histories, seen = [history for history, _ in mine], [set(history) for history, _ in mine]

    def validate() -> dict[str, float]:
        with Progress("validation", total=len(mine), unit="histories") as shown:
            rankings = rank_items(model, histories, _VALID_K, excluded=seen, advance=shown.advance)
        found = target_ranks([ranking.items for ranking in rankings], [target for _, target in mine])
        ranks = np.array(processes.gather_shares(found.tolist(), len(users)), dtype=np.int64)
        return {"hr@10": hit_rate(ranks, _VALID_K), "ndcg@10": ndcg(ranks, _VALID_K)}

    return validate
