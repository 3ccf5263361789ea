"""LLM-BS's global contrast: what a causal model has read is drawn towards the vectors of the item it ends with.

A summary token `<con>` stands behind a window's last item, where the next item's EOS would. Nothing before it sees it.
Two small networks turn its last hidden state into the space of the items' texts (semantic) and of their use (behavior),
and each result is told by InfoNCE from the vectors of the other items that the batch's windows end with:

    loss = generation + λ1 · semantic + λ2 · behavior

The token's embedding and the networks lie beside the model while it is trained, in its checkpoints too, and are gone
afterwards: what is saved is a model as without them.

Legend: W windows of a batch, S tokens, D width of the model, E width of vectors, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idgr.engine.task import figure
from idgr.models.device import to_device

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from idgr.engine.task import TrainableModel
    from idgr.recommender.item_head import ItemObjective

Ints = npt.NDArray[np.int64]

SEMANTIC, BEHAVIOR = "semantic", "behavior"
TEMPERATURE = 0.1  # of cosines; LLM-BS tells none


class Summary(nn.Module):
    """The embedding of `<con>`, and a network for each kind of vectors."""

    def __init__(self, embedding_D: Tensor, widths: Mapping[str, int]) -> None:
        super().__init__()
        width = len(embedding_D)
        self.embedding_D = nn.Parameter(embedding_D.clone())
        self.projectors = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, into))
                for name, into in widths.items()
            }
        )


@dataclass(frozen=True)
class Contrast:
    """What a window's end is drawn to, and how strongly.

    Attributes:
        summary: what is learnt for it.
        weights: λ by kind of vectors.
        vectors_IE: by kind, the items' vectors, of length 1 (or 0), on the model's device.
        found: what the last batch cost, by kind, and for its "generation", each a sum and its weight.
    """

    summary: Summary
    weights: dict[str, float]
    vectors_IE: dict[str, Tensor]
    found: dict[str, Tensor] = field(default_factory=dict)

    def figures(self) -> dict[str, Callable[[], Tensor]]:
        """`TrainingTask.figures`: the mean loss of the generation without the rest, and the cost of each kind."""
        return {name: partial(self.found.__getitem__, name) for name in ("generation", *self.weights)}

    def embed(self, model: LlamaForCausalLM, tokens_WS: Tensor, end_W: Tensor) -> Tensor:
        """[W, S, D] the embeddings of tokens, with that of `<con>` at the place `end_W` of each row."""
        embedded_WSD: Tensor = model.get_input_embeddings()(tokens_WS)
        place_W = torch.arange(len(end_W), device=end_W.device), end_W
        summary_WD = self.summary.embedding_D.to(embedded_WSD.dtype).expand(len(end_W), -1)
        return embedded_WSD.index_put(place_W, summary_WD)

    def cost(self, hidden_WD: Tensor, last_W: Ints, terms: int) -> Tensor:
        """The sum over the kinds of vectors of λ · the mean InfoNCE, as often as the loss has terms.

        Args:
            hidden_WD: the states of `<con>`.
            last_W: the number of the item that each window ends with.
            terms: those of the generation's loss, which the loop will divide by.
        """
        total = hidden_WD.new_zeros((), dtype=torch.float32)
        items_W = to_device(last_W, hidden_WD.device)
        for name, weight in self.weights.items():
            projected_WE = self.summary.projectors[name](hidden_WD)
            cost = info_nce(projected_WE.float(), self.vectors_IE[name][items_W], items_W)
            self.found[name] = figure(terms * cost, terms)
            total = total + weight * terms * cost
        return total


def new_contrast(
    model: LlamaForCausalLM, kinds: Mapping[str, tuple[float, npt.NDArray[np.float32]]], seed: int
) -> Contrast:
    """A contrast for a model on its device; `<con>` begins as EOS does, the networks from random weights.

    Args:
        kinds: by name of the kind, λ and the items' vectors [I, E].
        seed: of the networks' first weights.
    """
    embedding_VD = model.get_input_embeddings().weight.detach()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = {name: vectors_IE.shape[1] for name, (_, vectors_IE) in kinds.items()}
        summary = Summary(embedding_VD[model.config.eos_token_id].float().cpu(), widths)
    return Contrast(
        summary.to(model.device),
        {name: weight for name, (weight, _) in kinds.items()},
        {name: torch.from_numpy(vectors_IE).to(model.device) for name, (_, vectors_IE) in kinds.items()},
    )


@contextmanager
def beside(model: TrainableModel, contrast: Contrast | None, item_head: ItemObjective | None = None) -> Iterator[None]:
    """Inside the block, what a contrast and a head over items learn is part of the model: of its parameters, and so of
    its checkpoints."""
    added: dict[str, nn.Module] = {}
    if contrast is not None:
        added["contrast"] = contrast.summary
    if item_head is not None:
        added["item_head"] = item_head.head
    for name, module in added.items():
        model.add_module(name, module)
    try:
        yield
    finally:
        for name in added:
            delattr(model, name)


def info_nce(projected_WE: Tensor, vectors_WE: Tensor, items_W: Tensor) -> Tensor:
    """The mean over windows of -log softmax, among the batch's vectors, of the cosine with the own by `TEMPERATURE`.

    Windows that end with the same item are no negatives of each other.

    Args:
        projected_WE: of any length.
        vectors_WE: the vector of each window's last item, of length 1.
        items_W: the numbers of these items.
    """
    scores_WW = F.normalize(projected_WE, dim=-1) @ vectors_WE.T / TEMPERATURE
    same_WW = items_W[:, None] == items_W
    same_WW.fill_diagonal_(False)
    own_W = torch.arange(len(items_W), device=items_W.device)
    return F.cross_entropy(scores_WW.float().masked_fill(same_WW, -torch.inf), own_W)
