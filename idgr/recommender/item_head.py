"""A head over all items of the catalogue beside a causal model's prefix tree, read at the same state.

The state of the separator behind which the next ID begins decides among the root's children. The head asks the same
state for the item at once, by a softmax over the catalogue:

    score(item) = query(state) · vector(item),    vector(item) = free(item) + projection · mean embedding of its ID

so an item is known both by itself and by its words, and an item that was not there in training by its words alone.
Free vectors begin at zero: what they add to the words is learnt. In their place may stand those of a model of items,
which stay as they are and are brought to the model's width. The loss is the mean cross-entropy over the targets.

An item's own vector, free or given, may also be told where the item has been read (`idgr.recommender.told_items`), and
what is known of pairs of items be added to the scores (`idgr.recommender.near_items`), and in the end mixed into what
they say (`idgr.recommender.near_mixture`).

The head lies beside the model while it is trained, in its checkpoints too, and in a file of its own afterwards.

Legend: M targets of a batch, D width of the model, E width of items' own vectors, I items, N tokens of all IDs,
V vocabulary, B users, W windows, S their tokens, T items that are told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idgr.decoding.candidates import Second
from idgr.engine.dropout import drop
from idgr.engine.task import figure
from idgr.models.device import to_device
from idgr.recommender.item_loss import add_near, item_loss
from idgr.recommender.near_items import AGES, KINDS, NearItems, OwnItems
from idgr.recommender.near_mixture import NearMixture, fit_near_mixture
from idgr.recommender.told_items import ToldItems, newest_items

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Ints = npt.NDArray[np.int64]

# λ of the score log P(ID) + λ · log P(item) that validation chooses from, and the one without validation.
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
UNVALIDATED = 0.6
# The weights that pairs with the newest item begin with, and how they fall with age, as in STAR.
_NEAR, _DECAY = 4.0, 0.7


class ItemHead(nn.Module):
    """What is learnt: free vectors [I, D], unless vectors are given; the projection of IDs; the query of states.

    Args:
        share: of the states' and item vectors' elements that are dropped in training.
        given_IE: vectors of a model of items, in the place of free ones.
        tells: whether items' own vectors are told where they have been read.
        near: the pairs of the items; None for a head that heeds none.
    """

    given_IE: Tensor | None

    def __init__(
        self,
        n_items: int,
        width: int,
        share: float = 0.0,
        given_IE: Tensor | None = None,
        *,
        tells: bool = False,
        near: NearItems | None = None,
    ) -> None:
        super().__init__()
        self.near = near
        self.near_weight = None if near is None else nn.Parameter(_NEAR * _DECAY ** torch.arange(AGES).repeat(KINDS))
        self.share = share  # under a name that `idgr.engine.dropout.dropout_rate` does not look for
        self.register_buffer("given_IE", given_IE)
        own = width if given_IE is None else given_IE.shape[1]
        if given_IE is None:
            self.free_ID = nn.Parameter(torch.zeros(n_items, width))
        else:
            self.adaptor = nn.Linear(own, width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, width)
        self.mixture: NearMixture | None = None  # settled once the rest is trained
        self.telling = nn.Linear(own, width, bias=False) if tells else None
        if self.telling is not None:  # a model begins as one to which nothing is told
            nn.init.zeros_(self.telling.weight)

    def vectors(self, embedding_VD: Tensor, ids: IdTokens) -> Tensor:
        """[I, D] the items' vectors, without dropout."""
        mean_ID = F.embedding_bag(ids.token_N, embedding_VD, ids.begin_I, mode="mean")
        own_ID = self.free_ID if self.given_IE is None else self.adaptor(self.given_IE)
        vectors_ID: Tensor = own_ID + self.projection(mean_ID.to(self.projection.weight.dtype))
        return vectors_ID

    def told(self, items_T: Tensor) -> Tensor:
        """[T, D] what is told of items."""
        assert self.telling is not None
        own_IE = self.free_ID if self.given_IE is None else self.given_IE
        told_TD: Tensor = self.telling(F.embedding(items_T, own_IE))
        return told_TD


@dataclass(frozen=True)
class IdTokens:
    """The tokens of all items' IDs, end to end, and the place where each begins."""

    token_N: Tensor
    begin_I: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], device: torch.device) -> IdTokens:
        """Those of IDs in the order of the items' numbers."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        tokens = np.fromiter((token for row in rows for token in row), dtype=np.int64, count=int(lengths.sum()))
        begins = np.cumsum(lengths) - lengths
        return cls(torch.from_numpy(tokens).to(device), torch.from_numpy(begins).to(device))

    def rows(self) -> list[list[int]]:
        """The tokens of each ID."""
        tokens, begins = self.token_N.tolist(), self.begin_I.tolist()
        return [tokens[begin:end] for begin, end in zip(begins, [*begins[1:], len(tokens)], strict=True)]


@dataclass(frozen=True)
class ItemTargets:
    """The targets of a batch.

    Attributes:
        items: [M]
        newest: [M, AGES] the items before them, the newest first; -1 where there is none.
        sequence: [M] the training sequences that they are of.
    """

    items: Ints
    newest: Ints
    sequence: Ints


@dataclass(frozen=True)
class ItemObjective:
    """The head as a part of a training.

    Attributes:
        weight: of its loss.
        ids: the catalogue that it is trained on.
        separator: the token that stands between items.
        own: the items of the training sequences, where the head heeds pairs.
        found: the loss of the last batch, as a sum and its weight.
    """

    head: ItemHead
    weight: float
    ids: IdTokens
    separator: int
    own: OwnItems | None = None
    found: dict[str, Tensor] = field(default_factory=dict)

    def figures(self) -> dict[str, Callable[[], Tensor]]:
        """`TrainingTask.figures`: the mean loss of a target."""
        return {"item_head": partial(self.found.__getitem__, "item_head")}

    def cost(self, model: LlamaForCausalLM, state_MD: Tensor, targets: ItemTargets, terms: int) -> Tensor:
        """The weight · the mean loss of targets, as often as the loss has terms.

        Args:
            state_MD: the states behind which the targets' IDs begin.
            terms: those of the generation's loss, which the loop will divide by.
        """
        head, share = self.head, self.head.share if self.head.training else 0.0
        query_MD = head.query(drop(state_MD, share))
        vectors_ID = drop(head.vectors(model.get_input_embeddings().weight, self.ids), share)
        near = None
        if head.near is not None and self.own is not None:
            near = head.near.scores(targets.newest, (self.own, targets.sequence))
        items_M = to_device(targets.items, state_MD.device)
        total = item_loss(query_MD, vectors_ID, items_M, near, head.near_weight)
        self.found["item_head"] = figure(total, len(items_M))
        return total * (self.weight * terms / max(len(items_M), 1))

    def tell(self, embedded_WSD: Tensor, items_N: Ints, window_N: Ints, offset_N: Ints) -> Tensor:
        """[W, S, D] embeddings of windows with what is told of their items added where the next item begins.

        Args:
            items_N, window_N, offset_N: the windows' items, in turn, with their windows, ascending, and the places of
                the separators before them; here N counts items.
        """
        told_T = np.flatnonzero(window_N[1:] == window_N[:-1])  # all items of a window but its last
        device, share = embedded_WSD.device, self.head.share if self.head.training else 0.0
        cell_T = to_device(window_N[told_T] * embedded_WSD.shape[1] + offset_N[told_T + 1], device)
        told_TD = drop(self.head.told(to_device(items_N[told_T], device)), share).to(embedded_WSD.dtype)
        return embedded_WSD.flatten(0, 1).index_add(0, cell_T, told_TD).view_as(embedded_WSD)

    def told_items(self) -> ToldItems | None:
        """What a search shall tell, with the weights as they are now; None for nothing."""
        return told_items(self.head, self.ids.rows(), self.separator)

    def mix(
        self, model: LlamaForCausalLM, state_ND: Tensor, histories: Sequence[Sequence[int]], targets: Sequence[int]
    ) -> NearMixture:
        """Settle the head's mixture by users whom it was not trained on.

        Args:
            state_ND: the states behind which their next IDs begin.
        """
        head = self.head
        assert head.near is not None
        assert head.near_weight is not None
        with torch.no_grad():
            vectors_ID = head.vectors(model.get_input_embeddings().weight, self.ids).float()
            query_ND = head.query(state_ND.to(head.query.weight.dtype)).float()
        newest = [[*reversed(items[-AGES:]), *[-1] * (AGES - len(items))] for items in histories]
        near = head.near.scores(np.array(newest, dtype=np.int64))
        head.mixture = fit_near_mixture(head.near_weight, query_ND, vectors_ID, near, histories, targets)
        return head.mixture

    def scores(self, model: LlamaForCausalLM) -> Second:
        """See `item_scores`, with the weights as they are now."""
        return item_scores(self.head, model, self.ids, self.separator)


def new_item_head(
    model: LlamaForCausalLM,
    rows: Sequence[Sequence[int]],
    weight: float,
    share: float,
    seed: int,
    separator: int,
    given_IE: npt.NDArray[np.float32] | None = None,
    *,
    tells: bool = False,
    near: NearItems | None = None,
    own: OwnItems | None = None,
) -> ItemObjective:
    """A head for a model on its device, from random weights but for the free vectors.

    Args:
        rows: the tokens of the items' IDs, in the order of their numbers.
        seed: of the first weights.
        separator: the token that stands between items.
        given_IE, tells, near: see `ItemHead`.
        own: see `ItemObjective`; given with `near`.
    """
    # Numbers of about 1, whatever the length that the model of items has given its vectors.
    given = None if given_IE is None else torch.from_numpy(given_IE / np.sqrt(np.mean(given_IE**2)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ItemHead(len(rows), model.config.hidden_size, share, given, tells=tells, near=near)
    return ItemObjective(head.to(model.device), weight, IdTokens.of(rows, model.device), separator, own)


def item_scores(head: ItemHead, model: LlamaForCausalLM, ids: IdTokens, separator: int) -> Second:
    """What gives, for states [B, D] and the prompts before them, the log-probabilities [B, I] of all items in float32.

    Args:
        ids: of the items that the head's free vectors are of, on the model's device.
        separator: the token that stands between items.
    """
    with torch.no_grad():
        vectors_ID = head.vectors(model.get_input_embeddings().weight.float(), ids).float()
    number = {tuple(row): item for item, row in enumerate(ids.rows())} if head.near is not None else {}

    def scores(state_BD: Tensor, prompts: Sequence[Sequence[int]]) -> Tensor:
        query_BD = head.query(state_BD.to(head.query.weight.dtype))
        logits_BI: Tensor = query_BD.float() @ vectors_ID.T
        if head.near is not None and head.near_weight is not None:
            near = head.near.scores(newest_items(prompts, number, separator, AGES))
            if head.mixture is not None:
                return head.mixture.log_probs(logits_BI, near)
            add_near(logits_BI, near, head.near_weight.float())
        return logits_BI.log_softmax(1)

    return scores


def told_items(head: ItemHead, rows: Sequence[Sequence[int]], separator: int) -> ToldItems | None:
    """What a search shall tell of items whose IDs have these tokens; None for a head that tells nothing."""
    if head.telling is None:
        return None
    with torch.no_grad():
        vector_ID = head.told(torch.arange(len(rows), device=head.query.weight.device))
    return ToldItems.of(vector_ID, rows, separator)
