"""A head over all items of the catalogue beside a causal model's prefix tree, read at the same state.

The state of the separator behind which the next ID begins decides among the root's children. The head asks the same
state for the item at once, by a softmax over the catalogue:

    score(item) = query(state) · vector(item),    vector(item) = free(item) + projection · mean embedding of its ID

so an item is known both by itself and by its words, and an item that was not there in training by its words alone.
Free vectors begin at zero: what they add to the words is learnt. In their place may stand those of a model of items,
which stay as they are and are brought to the model's width. The loss is the mean cross-entropy over the targets.

An item's own vector, free or given, may also be told where the item has been read (`idgr.recommender.told_items`).

The head lies beside the model while it is trained, in its checkpoints too, and in a file of its own afterwards.

Legend: M targets of a batch, D width of the model, E width of items' own vectors, I items, N tokens of all IDs,
V vocabulary, B users, W windows, S their tokens, T items that are told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from idgr.engine.dropout import drop
from idgr.engine.task import figure
from idgr.errors import IdgrError
from idgr.formats.rec_folder import ITEM_HEAD, read_item_head_weight
from idgr.models.device import to_device
from idgr.models.weight_files import Header, headers_of, read_tensors
from idgr.recommender.told_items import ToldItems

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Ints = npt.NDArray[np.int64]

# λ of the score log P(ID) + λ · log P(item) that validation chooses from, and the one without validation.
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
UNVALIDATED = 0.6
# So many logits are made at a time.
_MOST_LOGITS = 1 << 24
_WANTED = "give the folder as `idgr train-rec` wrote it, or --item-head-weight 0"


class ItemHead(nn.Module):
    """What is learnt: free vectors [I, D], unless vectors are given; the projection of IDs; the query of states.

    Args:
        share: of the states' and item vectors' elements that are dropped in training.
        given_IE: vectors of a model of items, in the place of free ones.
        tells: whether items' own vectors are told where they have been read.
    """

    given_IE: Tensor | None

    def __init__(
        self, n_items: int, width: int, share: float = 0.0, given_IE: Tensor | None = None, *, tells: bool = False
    ) -> None:
        super().__init__()
        self.share = share  # under a name that `idgr.engine.dropout.dropout_rate` does not look for
        self.register_buffer("given_IE", given_IE)
        own = width if given_IE is None else given_IE.shape[1]
        if given_IE is None:
            self.free_ID = nn.Parameter(torch.zeros(n_items, width))
        else:
            self.adaptor = nn.Linear(own, width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        self.query = nn.Linear(width, width)
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
class ItemObjective:
    """The head as a part of a training.

    Attributes:
        weight: of its loss.
        ids: the catalogue that it is trained on.
        separator: the token that stands between items.
        found: the loss of the last batch, as a sum and its weight.
    """

    head: ItemHead
    weight: float
    ids: IdTokens
    separator: int
    found: dict[str, Tensor] = field(default_factory=dict)

    def figures(self) -> dict[str, Callable[[], Tensor]]:
        """`TrainingTask.figures`: the mean loss of a target."""
        return {"item_head": partial(self.found.__getitem__, "item_head")}

    def cost(self, model: LlamaForCausalLM, state_MD: Tensor, items_M: Ints, terms: int) -> Tensor:
        """The weight · the mean loss of targets, as often as the loss has terms.

        Args:
            state_MD: the states behind which the targets' IDs begin.
            items_M: the targets.
            terms: those of the generation's loss, which the loop will divide by.
        """
        head, share = self.head, self.head.share if self.head.training else 0.0
        query_MD = head.query(drop(state_MD, share))
        vectors_ID = drop(head.vectors(model.get_input_embeddings().weight, self.ids), share)
        total = item_loss(query_MD, vectors_ID, to_device(items_M, state_MD.device))
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

    def scores(self, model: LlamaForCausalLM) -> Callable[[Tensor], Tensor]:
        """See `item_scores`, with the weights as they are now."""
        return item_scores(self.head, model, self.ids)


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
) -> ItemObjective:
    """A head for a model on its device, from random weights but for the free vectors.

    Args:
        rows: the tokens of the items' IDs, in the order of their numbers.
        seed: of the first weights.
        separator: the token that stands between items.
        given_IE, tells: see `ItemHead`.
    """
    # Numbers of about 1, whatever the length that the model of items has given its vectors.
    given = None if given_IE is None else torch.from_numpy(given_IE / np.sqrt(np.mean(given_IE**2)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ItemHead(len(rows), model.config.hidden_size, share, given, tells=tells)
    return ItemObjective(head.to(model.device), weight, IdTokens.of(rows, model.device), separator)


def item_loss(query_MD: Tensor, vectors_ID: Tensor, items_M: Tensor) -> Tensor:
    """The summed cross-entropy of targets over all items, in nats, some targets' logits at a time.

    Under autocast the products are made in its type; the softmax is in float32.
    """
    if torch.is_autocast_enabled(query_MD.device.type):
        dtype = torch.get_autocast_dtype(query_MD.device.type)
        query_MD, vectors_ID = query_MD.to(dtype), vectors_ID.to(dtype)
    loss: Tensor = _ItemLoss.apply(query_MD, vectors_ID, items_M)  # type: ignore[no-untyped-call]
    return loss


class _ItemLoss(torch.autograd.Function):
    """The gradient is made with the loss, while the logits are there, so that none are kept or made twice."""

    @staticmethod
    def forward(ctx: Any, query_MD: Tensor, vectors_ID: Tensor, items_M: Tensor) -> Tensor:
        total = query_MD.new_zeros((), dtype=torch.float32)
        with_gradient = any(ctx.needs_input_grad)
        gradient_ID = torch.zeros_like(vectors_ID, dtype=torch.float32) if with_gradient else total
        parts = [query_MD[:0]]
        size = max(1, _MOST_LOGITS // len(vectors_ID))
        for some_MD, chosen_M in zip(torch.split(query_MD, size), torch.split(items_M, size), strict=True):
            chosen_M1 = chosen_M[:, None]
            share_MI = (some_MD @ vectors_ID.T).float()
            share_MI -= share_MI.amax(1, keepdim=True)
            total -= share_MI.gather(1, chosen_M1).sum()
            sum_M1 = share_MI.exp_().sum(1, keepdim=True)
            total += sum_M1.log().sum()
            if with_gradient:
                share_MI /= sum_M1
                share_MI.scatter_add_(1, chosen_M1, -torch.ones_like(sum_M1))
                slope_MI = share_MI.to(vectors_ID.dtype)
                parts.append(slope_MI @ vectors_ID)
                gradient_ID += slope_MI.T @ some_MD
        if with_gradient:
            ctx.save_for_backward(torch.cat(parts), gradient_ID.to(vectors_ID.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        query_MD, vectors_ID = ctx.saved_tensors
        return query_MD * gradients[0], vectors_ID * gradients[0], None


def item_scores(head: ItemHead, model: LlamaForCausalLM, ids: IdTokens) -> Callable[[Tensor], Tensor]:
    """What gives, for states [B, D], the log-probabilities of all items [B, I], in float32.

    Args:
        ids: of the items that the head's free vectors are of, on the model's device.
    """
    with torch.no_grad():
        vectors_ID = head.vectors(model.get_input_embeddings().weight.float(), ids).float()

    def scores(state_BD: Tensor) -> Tensor:
        query_BD = head.query(state_BD.to(head.query.weight.dtype))
        logits_BI: Tensor = query_BD.float() @ vectors_ID.T
        return logits_BI.log_softmax(1)

    return scores


def told_items(head: ItemHead, rows: Sequence[Sequence[int]], separator: int) -> ToldItems | None:
    """What a search shall tell of items whose IDs have these tokens; None for a head that tells nothing."""
    if head.telling is None:
        return None
    with torch.no_grad():
        vector_ID = head.told(torch.arange(len(rows), device=head.query.weight.device))
    return ToldItems.of(vector_ID, rows, separator)


def save_item_head(head: ItemHead, item_keys: Sequence[str], folder: str | os.PathLike[str]) -> None:
    """Write a head, and the keys of its items in the order of its free vectors, into a recommender's folder."""
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in head.state_dict().items()}
    save_file(tensors, Path(folder) / ITEM_HEAD, metadata={"items": orjson.dumps(list(item_keys)).decode()})


def load_item_head(folder: str | os.PathLike[str], item_keys: Sequence[str], width: int) -> ItemHead:
    """The head in a recommender's folder, for a catalogue; items that it does not know have free vectors of zeros.

    Args:
        item_keys: the catalogue.
        width: D.

    Raises:
        IdgrError: the folder has none, or one that is damaged or of a model of another width.
    """
    path = Path(folder) / ITEM_HEAD
    tensors = read_tensors(_headers(folder), os.fspath(folder), "item head")
    known = _keys(path)
    own = "given_IE" if "given_IE" in tensors else "free_ID"
    head = _empty(tensors, len(known), width)
    expected = {tensor: list(weight.shape) for tensor, weight in head.state_dict().items()}
    found = {tensor: list(weight.shape) for tensor, weight in tensors.items()}
    for tensor in sorted(expected.keys() | found.keys()):
        if expected.get(tensor) != found.get(tensor):
            what = f"its {tensor} is {found.get(tensor, 'missing')}, where {expected.get(tensor, 'none')} is expected"
            raise IdgrError(what, _WANTED, where=path)
    number = {key: place for place, key in enumerate(known)}
    rows = torch.tensor([number.get(key, len(known)) for key in item_keys])
    tensors[own] = torch.cat([tensors[own], torch.zeros_like(tensors[own][:1])])[rows]
    fitted = _empty(tensors, len(item_keys), width)
    fitted.load_state_dict(tensors)
    return fitted.eval().requires_grad_(False)


def refuse_told_items(rec: str | os.PathLike[str], todo: str) -> None:
    """Raise `IdgrError` where a recommender tells items, for what reads the tokens of its histories alone."""
    if read_item_head_weight(rec) is not None and tells_items(rec):
        raise IdgrError("reads a vector of each item beside its ID (--tell-items)", todo, where=os.fspath(rec))


def tells_items(folder: str | os.PathLike[str]) -> bool:
    """Whether the head in a recommender's folder tells items, so that the model is no whole one without it.

    Raises:
        IdgrError: the folder has none, or one that is damaged.
    """
    return "telling.weight" in _headers(folder)


def _headers(folder: str | os.PathLike[str]) -> dict[str, Header]:
    path, name = Path(folder) / ITEM_HEAD, os.fspath(folder)
    if not path.is_file():
        raise IdgrError(f"holds no {ITEM_HEAD}", _WANTED, where=name)
    return headers_of(path, name, "item head")


def _empty(tensors: dict[str, Tensor], n_items: int, width: int) -> ItemHead:
    """A head of the form that such tensors are of."""
    given_IE = tensors.get("given_IE")
    if given_IE is not None:
        given_IE = given_IE.new_zeros(n_items, given_IE.shape[-1])
    return ItemHead(n_items, width, given_IE=given_IE, tells="telling.weight" in tensors)


def _keys(path: Path) -> list[str]:
    """The keys that a head's file tells."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = orjson.loads((file.metadata() or {})["items"])
    except (OSError, SafetensorError, KeyError, orjson.JSONDecodeError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise IdgrError("does not tell the keys of its items", _WANTED, where=path)
    return keys
