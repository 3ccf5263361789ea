"""What a training is of, and where it runs: what the callers of the loop tell it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from idgr.engine.checkpoint import CheckpointManager
from idgr.engine.distributed import ProcessGroup

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, T5ForConditionalGeneration

    from idgr.models.item_models import ItemModel
    from idgr.models.text_ranker import TextRanker

Ints = npt.NDArray[np.int64]

# The models that the loop trains.
TrainableModel: TypeAlias = "T5ForConditionalGeneration | LlamaForCausalLM | ItemModel | TextRanker"


@dataclass(frozen=True)
class TrainingTask:
    """What is trained on.

    Attributes:
        label: the name of the work, for progress and messages.
        lengths: [N] what each instance costs, such as its tokens; instances of similar length share a batch.
        loss_of: given instance numbers and the epoch, from 0, the summed loss (with a gradient) and the number of
            terms in the sum. A step follows the mean over all terms of its batches.
        sizes: [N] what an instance counts as in the record, where it stands for several; None for 1 each.
        figures: by name, what else the last call of `loss_of` found, as a sum and its weight, [2], such as the number
            of terms in it; the mean by weight enters the record, None where there is no weight. So it does not matter
            how a batch was split.
        names: given instance numbers, what to call them in a message: such as their users.
        measure: what is found out after each epoch, with the model in evaluation mode; it enters the record.
        best_by: the name in the record whose highest value tells the best epoch; None for the last epoch.
        patience: epochs without a better one after which training ends; 0 for never.
    """

    label: str
    lengths: Ints
    loss_of: Callable[[Ints, int], tuple[Tensor, int]]
    sizes: Ints | None = None
    figures: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)
    names: Callable[[Ints], Sequence[str]] | None = None
    measure: Callable[[], dict[str, float]] | None = None
    best_by: str | None = None
    patience: int = 0


def figure(total: Tensor, weight: float) -> Tensor:
    """[2] a sum and its weight, as `TrainingTask.figures` gives them."""
    return torch.stack([total.detach().float(), torch.full((), float(weight), device=total.device)])


@dataclass(frozen=True)
class TrainingContext:
    """Where a training runs: its processes, its checkpoints if any, and who is told of its steps.

    Attributes:
        on_steps: is given records of steps, some at a time: step (from 1), loss, lr, grad_norm.
    """

    processes: ProcessGroup = field(default_factory=ProcessGroup)
    manager: CheckpointManager | None = None
    on_steps: Callable[[list[dict[str, float]]], object] | None = None
