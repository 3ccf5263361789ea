"""What an item costs in the prefix tree where one item has another name, without building that tree.

Only the sets of children along two paths differ: where the old name leaves the names of all others, the child that
led to it alone is gone; where the new name leaves them, it has a child of its own. A set that shrinks to one is no
choice any more, and costs nothing.

Legend: Q choices, R rows, T positions, D width, V vocabulary, C children of the root, M children of the other choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.decoding.trie import Trie, common_length
from idgr.models.device import to_device
from idgr.recommender.objectives import find_branches, ranges

Ints = npt.NDArray[np.int64]

_NONE = -1
# So many products of a state and a child are made at a time, counted in numbers.
_MOST = 1 << 24


@dataclass(frozen=True, slots=True)
class Choice:
    """A point of a path with several children.

    Attributes:
        position: how many tokens of the path stand before it.
        first, count: its children in the tree as it is.
        removed: the token of the child that is gone, or -1.
        added: the token of a child that the tree does not have, or -1.
        chosen: the token that leads on.
    """

    position: int
    first: int
    count: int
    removed: int
    added: int
    chosen: int

    @property
    def n_children(self) -> int:
        return self.count - (self.removed != _NONE) + (self.added != _NONE)


class RenamedTree:
    """The tree of all items' names, asked what it would be if one of them had another.

    Args:
        trie: of the names as they are.
    """

    def __init__(self, trie: Trie) -> None:
        self.trie = trie
        self.names = [[*row, trie.eos] for row in trie.tokens()]
        self._path_IL = trie.paths().astype(np.int64)
        crown = len(trie.item_lo)
        alone_M = trie.item_hi - trie.item_lo == 1
        alone_IL = (self._path_IL >= crown) | alone_M[np.clip(self._path_IL, 0, crown - 1)]
        self._head_I: list[int] = alone_IL.argmax(axis=1).tolist()  # places before the child that is the item's alone
        self._branches = find_branches(trie)

    def choices(self, target: int, item: int, name: Sequence[int]) -> list[Choice]:
        """The choices on the way to `target` where `item` has the name `name`, tokens without their end.

        The name must be no other item's.
        """
        new = [*name, self.trie.eos]
        found = self._own(item, new) if target == item else self._others(target, item, new)
        return [choice for choice in found if choice.n_children > 1]

    def _own(self, item: int, new: Sequence[int]) -> list[Choice]:
        old, head, node = self.names[item], self._head_I[item], 0
        shared = common_length(old, new)
        found = []
        for position, token in enumerate(new):
            first, count = self._children(node)
            leaves = position == head and shared >= head
            child = self._child(first, count, token)
            back = leaves and token == old[head]
            removed = old[head] if leaves and not back else _NONE
            found.append(Choice(position, first, count, removed, token if child is None else _NONE, token))
            if child is None or back:
                break
            node = child
        return found

    def _others(self, target: int, item: int, new: Sequence[int]) -> list[Choice]:
        path, old, head = self.names[target], self.names[item], self._head_I[item]
        gone = head if common_length(old, path) >= head else _NONE
        joins = common_length(new, path)
        lacking = self._child(*self._before(target, joins), new[joins]) is None
        removed, added = {}, {}
        if gone != _NONE and not (gone == joins and new[joins] == old[head]):
            removed[gone] = old[head]
        if lacking:
            added[joins] = new[joins]
        branches = self._branches
        found = [
            Choice(position, first, count, removed.pop(position, _NONE), added.pop(position, _NONE), path[position])
            for position, first, count in zip(
                *(
                    values[branches.start[target] : branches.start[target + 1]].tolist()
                    for values in (branches.position, branches.first, branches.count)
                ),
                strict=True,
            )
        ]
        for position, token in added.items():  # where there was no choice before
            found.append(Choice(position, *self._before(target, position), _NONE, token, path[position]))
        return found

    def _before(self, item: int, position: int) -> tuple[int, int]:
        """The children where an item's name has so many tokens behind it."""
        return self._children(int(self._path_IL[item, position - 1]) if position else 0)

    def _children(self, node: int) -> tuple[int, int]:
        at = np.array([node])
        return int(self.trie.first(at)[0]), int(self.trie.n_children(at)[0])

    def _child(self, first: int, count: int, token: int) -> int | None:
        """The node of one of some children that a token leads to; None where it leads to none."""
        place = int(np.searchsorted(self.trie.token[first : first + count], token))
        return first + place if place < count and self.trie.token[first + place] == token else None


def choice_costs(hidden_RTD: Tensor, head_VD: Tensor, trie: Trie, rows: Sequence[Sequence[Choice]]) -> Tensor:
    """[R] -log P of each row's path in nats, in double precision; a row without a choice costs 0.

    Args:
        hidden_RTD: the decoder's states.
        head_VD: the output embeddings.
        rows: the choices on each row's path.
    """
    flat = [(row, choice) for row, choices in enumerate(rows) for choice in choices]
    device = hidden_RTD.device
    cost_R = torch.zeros(len(rows), dtype=torch.float64, device=device)
    # The root's children are asked for by every row: one product of matrices.
    root = [(row, choice) for row, choice in flat if choice.first == 1]
    rest = [(row, choice) for row, choice in flat if choice.first != 1]
    size = max(1, _MOST // max(root[0][1].count if root else 1, head_VD.shape[1]))
    for begin in range(0, len(root), size):
        _add_root(cost_R, hidden_RTD, head_VD, trie, root[begin : begin + size])
    begin = end = total = 0
    while begin < len(rest):
        while end < len(rest) and (end == begin or (total + rest[end][1].count) * head_VD.shape[1] <= _MOST):
            total += rest[end][1].count
            end += 1
        _add_rest(cost_R, hidden_RTD, head_VD, trie, rest[begin:end])
        begin, total = end, 0
    return cost_R


Points = Sequence[tuple[int, Choice]]


def _gathered(hidden_RTD: Tensor, head_VD: Tensor, points: Points) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of choices: rows [Q], states [Q, D], the logits of the chosen and of the added child [Q] in double precision
    (-inf where none is added), and the tokens that are removed [Q]."""
    columns = np.array([(row, one.position, one.chosen, one.added, one.removed) for row, one in points], dtype=np.int64)
    row_Q, position_Q, chosen_Q, added_Q, removed_Q = (
        to_device(np.ascontiguousarray(column), hidden_RTD.device) for column in columns.T
    )
    state_QD = hidden_RTD[row_Q, position_Q].float()
    chosen = (state_QD * F.embedding(chosen_Q, head_VD).float()).sum(-1).double()
    added = (state_QD * F.embedding(added_Q.clamp(min=0), head_VD).float()).sum(-1).double()
    return row_Q, state_QD, chosen, added.masked_fill(added_Q < 0, -torch.inf), removed_Q


def _add_root(cost_R: Tensor, hidden_RTD: Tensor, head_VD: Tensor, trie: Trie, points: Points) -> None:
    row_Q, state_QD, chosen_Q, added_Q, removed_Q = _gathered(hidden_RTD, head_VD, points)
    first, count = points[0][1].first, points[0][1].count
    token_C = to_device(trie.token[first : first + count].astype(np.int64), cost_R.device)
    logit_QC = F.linear(state_QD, F.embedding(token_C, head_VD).float()).double()
    logit_QC.masked_fill_(token_C == removed_Q[:, None], -torch.inf)
    total_Q = torch.logaddexp(logit_QC.logsumexp(1), added_Q)
    cost_R.index_add_(0, row_Q, total_Q - chosen_Q)


def _add_rest(cost_R: Tensor, hidden_RTD: Tensor, head_VD: Tensor, trie: Trie, points: Points) -> None:
    row_Q, state_QD, chosen_Q, added_Q, removed_Q = _gathered(hidden_RTD, head_VD, points)
    child, point = ranges(
        np.array([one.first for _, one in points], dtype=np.int64),
        np.array([one.count for _, one in points], dtype=np.int64),
    )
    token_M = to_device(trie.token[child].astype(np.int64), cost_R.device)
    point_M = to_device(point, cost_R.device)
    logit_M = (state_QD[point_M] * F.embedding(token_M, head_VD).float()).sum(-1).double()
    logit_M.masked_fill_(token_M == removed_Q[point_M], -torch.inf)
    highest_Q = added_Q.clone().scatter_reduce(0, point_M, logit_M, "amax")
    total_Q = (added_Q - highest_Q).exp()
    total_Q = total_Q.index_add(0, point_M, (logit_M - highest_Q[point_M]).exp()).log() + highest_Q
    cost_R.index_add_(0, row_Q, total_Q - chosen_Q)
