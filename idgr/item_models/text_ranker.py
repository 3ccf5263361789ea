"""A ranker of texts: its training on several catalogues at once, and the ranking of any other.

Its instances are the last items of training sequences, each among the items whose texts are likest to what stands
before it. Those whose target is not among them teach nothing, and are left out.

Shape letters: N instances, B histories, C candidates, I items, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.engine.task import TrainingTask
from idgr.evaluation.item_scores import Floats, ItemScores
from idgr.evaluation.metrics import hit_rate, ndcg
from idgr.item_models.text_features import TextFeatures
from idgr.models.device import to_device
from idgr.models.text_ranker import TextRanker
from idgr.progress import Progress

Ints = npt.NDArray[np.int64]
Users = Sequence[tuple[Sequence[int], int]]

_AT_A_TIME = 64
_MOST_SCORES = 2**24  # likenesses of histories to all items that lie in memory at once, of each kind
_VALID_K = 10
_NEVER = -1e9


@dataclass(frozen=True)
class RankerInstances:
    """What a ranker learns from, or is measured by.

    Attributes:
        features_NCF: in float16, which halves the memory and tells likenesses well enough.
        open_NC: where there is a candidate.
        target_N: the place of the target among the candidates; -1 where it is none of them.
    """

    features_NCF: Tensor
    open_NC: Tensor
    target_N: Tensor

    @property
    def reached(self) -> float:
        """The share of the targets that are among the candidates."""
        return float((self.target_N >= 0).double().mean())

    def usable(self) -> RankerInstances:
        """Those with a target."""
        kept_N = self.target_N >= 0
        return RankerInstances(self.features_NCF[kept_N], self.open_NC[kept_N], self.target_N[kept_N])


def ranker_instances(features: TextFeatures, users: Users, n_candidates: int, label: str) -> RankerInstances:
    """Those of users as (history, target).

    Args:
        label: what the work is called in the progress.
    """
    found, opened, targets = [], [], []
    size = max(1, min(_AT_A_TIME, _MOST_SCORES // features.n_items))
    with Progress(label, total=len(users), unit="histories") as shown:
        for begin in range(0, len(users), size):
            part = users[begin : begin + size]
            candidates = features.candidates([history for history, _ in part], n_candidates)
            is_target_BC = candidates.items_BC == np.array([target for _, target in part])[:, None]
            found.append(torch.from_numpy(candidates.features_BCF).half())
            opened.append(torch.from_numpy(candidates.items_BC >= 0))
            targets.append(torch.from_numpy(np.where(is_target_BC.any(1), is_target_BC.argmax(1), -1)))
            shown.advance(len(part))
    return RankerInstances(torch.cat(found), torch.cat(opened), torch.cat(targets))


def ranker_task(
    model: TextRanker, train: Sequence[RankerInstances], valid: Sequence[RankerInstances], *, patience: int = 0
) -> TrainingTask:
    """What the loop needs to train a ranker; its features are scaled here.

    Args:
        train: of each catalogue, those with a target alone (`RankerInstances.usable`).
        valid: of each catalogue, all of them.
        patience: epochs without a better NDCG@10, the mean over catalogues, after which training ends; 0 for never.
    """
    features_NCF = torch.cat([one.features_NCF for one in train])
    open_NC, target_N = torch.cat([one.open_NC for one in train]), torch.cat([one.target_N for one in train])
    told_XF = features_NCF[open_NC].float()
    model.take_scale(told_XF.mean(0), told_XF.std(0))

    def loss_of(batch: Ints, epoch: int) -> tuple[Tensor, int]:
        rows = torch.from_numpy(batch)
        scores_BC = _scores(model, features_NCF[rows], open_NC[rows])
        return F.cross_entropy(scores_BC, to_device(target_N[rows], model.device), reduction="sum"), len(batch)

    return TrainingTask(
        "train-text-ranker",
        np.ones(len(target_N), dtype=np.int64),
        loss_of,
        measure=(lambda: _measured(model, valid)) if valid else None,
        best_by="ndcg@10" if valid else None,
        patience=patience,
    )


def _scores(model: TextRanker, features_BCF: Tensor, open_BC: Tensor) -> Tensor:
    """[B, C] in fp32, far below all others where there is no candidate."""
    scores_BC: Tensor = model(to_device(features_BCF, model.device).float()).float()
    return scores_BC.masked_fill(to_device(~open_BC, model.device), _NEVER)


@torch.no_grad()
def _measured(model: TextRanker, valid: Sequence[RankerInstances]) -> dict[str, float]:
    """hr@10 and ndcg@10, each the mean over the catalogues."""
    found = []
    for one in valid:
        ranks = np.zeros(len(one.target_N), dtype=np.int64)  # 0 for a target that is not ranked
        for begin in range(0, len(ranks), _AT_A_TIME):
            part = slice(begin, begin + _AT_A_TIME)
            target_B = one.target_N[part]
            scores_BC = _scores(model, one.features_NCF[part], one.open_NC[part]).cpu()
            order_BC = scores_BC.argsort(dim=1, descending=True, stable=True)
            place_B = (order_BC == target_B[:, None]).int().argmax(1) + 1
            ranks[part] = torch.where(target_B >= 0, place_B, 0).numpy()
        found.append((hit_rate(ranks, _VALID_K), ndcg(ranks, _VALID_K)))
    hits, gains = (float(np.mean(each)) for each in zip(*found, strict=True))
    return {"hr@10": hits, "ndcg@10": gains}


class TextRankerScores(ItemScores):
    """A trained ranker for a catalogue: log-probabilities among the candidates of a history.

    The items that are no candidates follow behind the last of them by their likeness.

    Args:
        model: on its device, in evaluation mode.
    """

    def __init__(self, model: TextRanker, features: TextFeatures) -> None:
        super().__init__(features.n_items)
        self.model, self.features = model, features

    @torch.inference_mode()
    def scores(self, histories: Sequence[Sequence[int]]) -> Floats:
        """[B, I]"""
        found = [self._scores(histories[begin : begin + _AT_A_TIME]) for begin in range(0, len(histories), _AT_A_TIME)]
        return np.concatenate(found)

    def _scores(self, histories: Sequence[Sequence[int]]) -> Floats:
        candidates = self.features.candidates(histories, self.model.config.candidates)
        open_BC = candidates.items_BC >= 0
        raw_BC = _scores(self.model, torch.from_numpy(candidates.features_BCF), torch.from_numpy(open_BC))
        log_prob_BC = raw_BC.double().log_softmax(1).cpu().numpy()
        likeness_BI = candidates.likeness_BI.astype(np.float64)
        least_B = np.where(open_BC, log_prob_BC, np.inf).min(axis=1, initial=0)
        scores_BI: Floats = likeness_BI - likeness_BI.max(axis=1, keepdims=True) + least_B[:, None] - 1
        rows, places = np.nonzero(open_BC)
        scores_BI[rows, candidates.items_BC[rows, places]] = log_prob_BC[rows, places]
        return scores_BI
