"""SASRec's training: a user's sequence in one pass, every prefix predicting the next item among all items.

The loss is the full cross-entropy, not one against sampled items.

Shape letters: B sequences, L places, N places with a target, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from idgr.engine.distributed import ProcessGroup
from idgr.engine.task import TrainingTask
from idgr.item_models.training import Users, call_sequence, validation
from idgr.models.device import to_device
from idgr.models.item_models import pad_histories
from idgr.models.sasrec import Sasrec
from idgr.recommender.item_loss import item_loss

Ints = npt.NDArray[np.int64]


def sasrec_task(
    model: Sasrec,
    sequences: Sequence[Sequence[int]],
    users: Users,
    *,
    patience: int = 0,
    names: Sequence[str] | None = None,
    processes: ProcessGroup | None = None,
) -> TrainingTask:
    """What the loop needs to train a SASRec; `users` are those to validate on, the rest as for `train_item_model`.

    An instance is as many items of a sequence as the model reads, and the one after them. A sequence that is longer is
    several, from its end, so that each of its items but the first is a target once.
    """
    numbers, pieces = cut_sequences(sequences, model.config.max_history)
    called = [call_sequence(number, names) for number in numbers]
    lengths = np.array([len(piece) - 1 for piece in pieces], dtype=np.int64)
    return TrainingTask(
        "train-sasrec",
        lengths,
        sequence_loss(model, pieces),
        sizes=lengths,
        names=lambda batch: [called[number] for number in batch.tolist()],
        measure=validation(model, users, processes) if users else None,
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
        targets_N = to_device(np.concatenate([row[1:] for row in rows]), model.device)
        # Filling up has no target, and is left out before the catalogue is scored.
        place_N = np.concatenate([line * items_BL.shape[1] + np.arange(len(row) - 1) for line, row in enumerate(rows)])
        hidden_ND = model(items_BL).flatten(0, 1)[to_device(place_N, model.device)]
        return item_loss(hidden_ND, model.item_vectors(), targets_N), len(targets_N)

    return loss_of
