"""SASRec's training: a user's sequence in one pass, every prefix predicting the next item among all items.

The loss is the full cross-entropy, not one against sampled items. Validation ranks all items, those of the history left
out, and the weights of the best epoch are kept. Knows items as numbers; files and the command line it does not know.

Shape letters: B sequences, L places, N places with a target, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.evaluation.item_ranking import rank_items
from idgr.evaluation.metrics import hit_rate, ndcg, target_ranks
from idgr.models.sasrec import Sasrec, pad_histories
from idgr.training.distributed import Team
from idgr.training.item_loss import catalogue_loss
from idgr.training.loop import run_epochs
from idgr.training.options import LoopOptions
from idgr.training.recommender import draw_users
from idgr.training.work import Host, Work

Ints = npt.NDArray[np.int64]
Users = Sequence[tuple[Sequence[int], int]]

_VALID_K = 10


def train_sasrec(
    model: Sasrec,
    sequences: Sequence[Sequence[int]],
    valid: Users,
    loop: LoopOptions,
    on_epoch: Callable[[dict[str, Any]], object],
    *,
    valid_users: int = 0,
    patience: int = 0,
    names: Sequence[str] | None = None,
    host: Host | None = None,
) -> dict[str, Any]:
    """Train a SASRec where it lies; at the end it has the weights of the best epoch, in evaluation mode.

    Args:
        sequences: the training sequences, as item numbers, oldest first.
        valid: (history, target) of each validation user; without any, the last epoch's weights are kept.
        on_epoch: is given each epoch's record: that of the loop, with hr@10 and ndcg@10 on validation.
        valid_users: how many users to validate on, drawn once; 0 for all.
        patience: epochs without a better NDCG@10 after which training ends; 0 for never.
        names: what to call the user of each sequence in a message.
        host: where it runs; None for this process alone, without checkpoints.

    Returns:
        The record of the epoch whose weights were kept.
    """
    users = [valid[user] for user in draw_users(len(valid), valid_users, loop.seed)]
    team = host.team if host else None
    work = sasrec_work(model, sequences, users, patience=patience, names=names, team=team)
    return run_epochs(model, work, loop, host, on_epoch)


def sasrec_work(
    model: Sasrec,
    sequences: Sequence[Sequence[int]],
    users: Users,
    *,
    patience: int = 0,
    names: Sequence[str] | None = None,
    team: Team | None = None,
) -> Work:
    """What the loop needs to train a SASRec; `users` are those to validate on, the rest as for `train_sasrec`.

    An instance is as many items of a sequence as the model reads, and the one after them. A sequence that is longer is
    several, from its end, so that each of its items but the first is a target once.
    """
    numbers, pieces = cut_sequences(sequences, model.config.max_history)
    called = [f"user {names[number]}" if names is not None else f"sequence {number + 1}" for number in numbers]
    lengths = np.array([len(piece) - 1 for piece in pieces], dtype=np.int64)
    return Work(
        "train-sasrec",
        lengths,
        sequence_loss(model, pieces),
        sizes=lengths,
        names=lambda batch: [called[number] for number in batch.tolist()],
        measure=validation(model, users, team) if users else None,
        best_by="ndcg@10" if users else None,
        patience=patience,
    )


def cut_sequences(sequences: Sequence[Sequence[int]], max_history: int) -> tuple[list[int], list[Ints]]:
    """Pieces of at most `max_history` + 1 items, and the number of the sequence that each is of.

    Pieces are cut from the end, so that the newest items are read with the longest history; a piece begins with the
    last target of the one before it.
    """
    numbers, pieces = [], []
    for number, sequence in enumerate(sequences):
        end = len(sequence)
        while end > 1:
            begin = max(0, end - max_history - 1)
            numbers.append(number)
            pieces.append(np.asarray(sequence[begin:end], dtype=np.int64))
            end = begin + 1
    return numbers, pieces


def sequence_loss(model: Sasrec, pieces: Sequence[Ints]) -> Callable[[Ints, int], tuple[Tensor, int]]:
    """The summed loss of pieces of sequences, as the loop wants it."""

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        rows = [pieces[number] for number in batch.tolist()]
        items_BL, _ = pad_histories(model, [row[:-1] for row in rows])
        targets_N = torch.from_numpy(np.concatenate([row[1:] for row in rows])).to(model.device)
        # Filling up has no target, and is left out before the catalogue is scored.
        hidden_ND = model(items_BL)[items_BL != model.no_item]
        return catalogue_loss(hidden_ND, model.item_vectors(), targets_N), len(targets_N)

    return loss_of


def validation(model: Sasrec, users: Users, team: Team | None = None) -> Callable[[], dict[str, float]]:
    """What gives, whenever called, hr@10 and ndcg@10 on users as (history, target), the history left out.

    Each process of a team ranks for its share of the users; all get the figures of all users.
    """
    team = team or Team()
    mine = users[team.share(len(users))]
    histories, seen = [history for history, _ in mine], [set(history) for history, _ in mine]

    def validate() -> dict[str, float]:
        rankings = rank_items(model, histories, _VALID_K, excluded=seen)
        found = target_ranks([ranking.items for ranking in rankings], [target for _, target in mine])
        ranks = np.array(team.join_shares(found.tolist(), len(users)), dtype=np.int64)
        return {"hr@10": hit_rate(ranks, _VALID_K), "ndcg@10": ndcg(ranks, _VALID_K)}

    return validate
