"""How probable an ID is without a history, which a calibrated score takes a share of away.

A model that was trained on text gives short IDs of common words high scores whatever was bought; what a history adds is
the difference of two log-probabilities, the pointwise mutual information (Holtzman et al. 2021, "Surface form
competition").

Legend: B IDs of a batch, S tokens of the longest of them with the separator before it, N tokens of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from idgr.decoding.beam import Ranking, evaluating
from idgr.errors import IdgrError
from idgr.models.device import to_device
from idgr.models.llama import item_slots, pad_token, position_ids
from idgr.models.padding import IGNORED, causal_mask, pad_labels, padded
from idgr.prompts.histories import HistoryRenderer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

_BATCH = 64


class Calibration:
    """Takes `weight` times the score of an ID behind no history away from its score behind one.

    Args:
        model: the causal model on its device.
        renderer: has the IDs of the items, and the token that ends them.
        length_penalty: that of the scores; both parts are divided alike.
    """

    def __init__(
        self, model: LlamaForCausalLM, renderer: HistoryRenderer, weight: float, length_penalty: float = 0.0
    ) -> None:
        self.model, self.renderer, self.weight, self.length_penalty = model, renderer, weight, length_penalty
        self.known: dict[int, float] = {}

    def rerank(self, rankings: Sequence[Ranking], k: int) -> list[Ranking]:
        """The best k of each ranking's items by their calibrated scores; equal ones stay in their order.

        Raises:
            IdgrError: the model's scores are not finite numbers.
        """
        self._learn({item for ranking in rankings for item in ranking.items})
        found = []
        for ranking in rankings:
            pairs = [
                (score - self.weight * self.known[item], item)
                for item, score in zip(ranking.items, ranking.scores, strict=True)
            ]
            best = sorted(pairs, key=lambda pair: -pair[0])[:k]
            found.append(Ranking([item for _, item in best], [score for score, _ in best], ranking.expansions))
        return found

    def _learn(self, items: Iterable[int]) -> None:
        """Make the scores of some items known, each once."""
        ids = self.renderer.id_tokens
        new = sorted(set(items) - self.known.keys(), key=lambda item: (len(ids[item]), item))
        for first in range(0, len(new), _BATCH):
            batch = new[first : first + _BATCH]
            with evaluating(self.model):
                sums = self._sums([ids[item] for item in batch])
            if not np.isfinite(sums).all():
                raise IdgrError("the model's scores are not finite numbers", "give another model, or --precision fp32")
            for item, total in zip(batch, sums.tolist(), strict=True):
                self.known[item] = total / (len(ids[item]) + 1) ** self.length_penalty

    def _sums(self, ids: Sequence[Sequence[int]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """[B] the sum of the log-probabilities of each ID's tokens and of its end, behind its separator alone."""
        model, end = self.model, self.renderer.end
        rows = [[end, *row] for row in ids]
        labels_BS = torch.from_numpy(pad_labels([[*row, end] for row in ids])).to(model.device)
        tokens_BS = padded(rows, pad_token(model))[0]
        place_BS = to_device(position_ids(tokens_BS, end, item_slots(model)), model.device)
        read_BS = to_device(tokens_BS, model.device)
        hidden_BSD = model.model(
            input_ids=read_BS, position_ids=place_BS, attention_mask=causal_mask(model, read_BS), use_cache=False
        )[0]
        wanted_BS = labels_BS != IGNORED
        logits_NV = F.linear(hidden_BSD[wanted_BS], model.lm_head.weight).float()
        cost_N = F.cross_entropy(logits_NV, labels_BS[wanted_BS], reduction="none")
        cost_BS = torch.zeros(wanted_BS.shape, dtype=torch.float64, device=model.device)
        cost_BS[wanted_BS] = cost_N.double()
        sums: np.ndarray[tuple[int], np.dtype[np.float64]] = -cost_BS.sum(1).cpu().numpy()
        return sums
