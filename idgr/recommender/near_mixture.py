"""A softmax of near items alone, mixed into that of an item head by weights that validation settles.

    P(item) = (1 - π) · softmax(s · learnt)(item) + π · softmax(alone)(item)

learnt are the scores of the head with those of pairs added (`idgr.recommender.near_items`), alone those of pairs by
themselves, by weights of their own. In training a model knows its targets by heart: it learns to trust itself, and to
push down what is hardly ever a target, so far that no pair can lift it. A mixture lets either propose an item, as in
pointer networks (See et al. 2017, arXiv 1704.04368, equation 9). The weights of both, s and π are those that make the
targets of users likely whom the model was not trained on (stacked generalization, Wolpert 1992).

Legend: N users, B some of them, D width, I items, F weights of near items, H items of all histories, A ages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idgr.recommender.item_loss import add_near
from idgr.recommender.near_items import NearScores

# Where the fit begins: alone, pairs have nothing to go with, so weigh more.
_LOG_ODDS, _ALONE = -1.0, 3.0
_STEPS = 30
# So many scores are made at a time.
_MOST_SCORES = 1 << 22
_NEVER = -1e9  # a number, that its gradient be one


class NearMixture(nn.Module):
    """The weights of the mixture.

    Args:
        weight_F: those of pairs in the head, as they were trained.
    """

    def __init__(self, weight_F: Tensor) -> None:
        super().__init__()
        weight_F = weight_F.detach().float()
        self.within = nn.Parameter(weight_F.clone())
        self.alone = nn.Parameter(weight_F * _ALONE)
        self.log_odds = nn.Parameter(torch.tensor(_LOG_ODDS, device=weight_F.device))
        self.scale = nn.Parameter(torch.tensor(1.0, device=weight_F.device))

    @property
    def share(self) -> float:
        """π"""
        return torch.sigmoid(self.log_odds).item()

    @property
    def is_finite(self) -> bool:
        """Whether all weights are numbers, which a fit to few users need not give."""
        return all(bool(weight.isfinite().all()) for weight in self.parameters())

    def log_probs(self, learnt_BI: Tensor, near: NearScores, begin: int = 0, barred_BI: Tensor | None = None) -> Tensor:
        """[B, I] in float32.

        Args:
            learnt_BI: the head's scores without pairs; taken over.
            begin: the row of `near` that is the first of these.
            barred_BI: items that cannot be.
        """
        alone_BI = torch.zeros_like(learnt_BI)
        add_near(learnt_BI, near, self.within, begin)
        add_near(alone_BI, near, self.alone, begin)
        learnt_BI = learnt_BI * self.scale
        if barred_BI is not None:
            learnt_BI, alone_BI = (one.masked_fill(barred_BI, _NEVER) for one in (learnt_BI, alone_BI))
        return torch.logaddexp(
            learnt_BI.log_softmax(1) + F.logsigmoid(-self.log_odds),
            alone_BI.log_softmax(1) + F.logsigmoid(self.log_odds),
        )


def fit_near_mixture(
    weight_F: Tensor,
    query_ND: Tensor,
    vectors_ID: Tensor,
    near: NearScores,
    histories: Sequence[Collection[int]],
    targets: Sequence[int],
) -> NearMixture:
    """The mixture that makes targets most likely among the items that are not in their histories.

    A normal prior of variance 1 about where the fit begins keeps it from running away where users are few; thousands
    outweigh it.

    Args:
        weight_F: of pairs in the head, as they were trained.
        query_ND, vectors_ID: whose products are the head's scores without pairs.
        near: of these users, as for a user whom the training has not seen.
    """
    mixture = NearMixture(weight_F)
    device, n_items, n = query_ND.device, len(vectors_ID), len(query_ND)
    target_N1 = torch.tensor(targets, device=device)[:, None]
    seen = [np.fromiter(items, dtype=np.int64) for items in histories]
    start = [weight.detach().clone() for weight in mixture.parameters()]
    optimizer = torch.optim.LBFGS(mixture.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe")
    size = max(1, _MOST_SCORES // n_items)

    def cost() -> Tensor:
        optimizer.zero_grad()
        moved = [(weight - first).square().sum() for weight, first in zip(mixture.parameters(), start, strict=True)]
        prior = 0.5 / n * torch.stack(moved).sum()
        prior.backward()  # type: ignore[no-untyped-call]
        total = prior.detach()
        for begin in range(0, n, size):
            part = slice(begin, begin + size)
            learnt_BI = query_ND[part] @ vectors_ID.T
            barred_BI = torch.zeros_like(learnt_BI, dtype=torch.bool)
            row_H = np.repeat(np.arange(len(learnt_BI)), list(map(len, seen[part])))
            barred_BI[torch.from_numpy(row_H), torch.from_numpy(np.concatenate(seen[part]))] = True
            log_prob_BI = mixture.log_probs(learnt_BI, near, begin, barred_BI.scatter_(1, target_N1[part], False))
            loss = -log_prob_BI.gather(1, target_N1[part]).sum() / n
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    optimizer.step(cost)  # type: ignore[no-untyped-call]
    return mixture.requires_grad_(False)
