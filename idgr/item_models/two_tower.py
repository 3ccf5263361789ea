"""The two-tower's training: each prefix of a sequence against the other targets of its batch.

The loss is a softmax over the batch's targets, corrected for how often an item is one (Yi et al. 2019): an item that is
often a target is often a negative, and would be held down for it. Its share of all targets is counted beforehand, where
Yi et al. estimate it from a stream. Prefixes of similar length share a batch, which the shares do not know of; nor do
they know of the processes that share a batch, each of which sees the targets of its own part alone.

Shape letters: N instances, B histories of a batch, C different targets of a batch, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from idgr.engine.distributed import ProcessGroup
from idgr.engine.task import TrainingTask
from idgr.item_models.training import Users, call_sequence, validation
from idgr.models.device import to_device
from idgr.models.item_models import pad_histories
from idgr.models.two_tower import TwoTower
from idgr.recommender.training import Instances, make_instances, prefix_sequences

Ints = npt.NDArray[np.int64]


def two_tower_task(
    model: TwoTower,
    sequences: Sequence[Sequence[int]],
    users: Users,
    *,
    patience: int = 0,
    names: Sequence[str] | None = None,
    processes: ProcessGroup | None = None,
) -> TrainingTask:
    """What the loop needs to train a two-tower; `users` are those to validate on, the rest as for `train_item_model`.

    An instance is a prefix of a sequence and the item after it.
    """
    instances = make_instances(sequences, model.config.max_history)
    sequence_N = prefix_sequences(sequences)
    return TrainingTask(
        "train-two-tower",
        instances.end - instances.begin,
        instance_loss(model, instances),
        names=lambda batch: [call_sequence(number, names) for number in sequence_N[batch].tolist()],
        measure=validation(model, users, processes) if users else None,
        best_by="ndcg@10" if users else None,
        patience=patience,
    )


def instance_loss(model: TwoTower, instances: Instances) -> Callable[[Ints, int], tuple[Tensor, int]]:
    """The summed loss of instances, as the loop wants it."""
    often_I = np.bincount(instances.items[instances.end], minlength=model.config.n_items)
    total = len(instances.end)

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        ends = instances.end[batch]
        bounds = zip(instances.begin[batch].tolist(), ends.tolist(), strict=True)
        histories = [instances.items[begin:end] for begin, end in bounds]
        found = np.unique(instances.items[ends], return_inverse=True, return_counts=True)
        candidates_C, own_B, counts_C = (to_device(part, model.device) for part in found)
        log_share_C = to_device(np.log(often_I[found[0]] / total).astype(np.float32), model.device)
        log_count_C = counts_C.float().log()
        scores_BC = model(*pad_histories(model, histories), model.items(candidates_C)).float()
        # A target that stands several times in the batch is scored once and weighs so many times; but where it is the
        # right answer it weighs once, since the others of the same item are no wrong ones.
        right_BC = F.one_hot(own_B, len(counts_C))
        logits_BC = scores_BC - log_share_C + log_count_C * (1 - right_BC)
        return F.cross_entropy(logits_BC, own_B, reduction="sum"), len(batch)

    return loss_of
