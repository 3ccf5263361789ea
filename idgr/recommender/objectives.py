"""What a recommender's training minimises: cross-entropy over the vocabulary, or over the children in the prefix tree.

Legend: B instances, S prompt tokens, T target tokens, D width, V vocabulary, I items, N nodes of the tree, L tokens of
the longest ID with EOS, P branch points of the targets in a batch, Q those that are not the root, R children of the
root, M children of the other branch points, W those of them at wide nodes, C children of wide nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.decoding.trie import Trie
from idgr.models.device import to_device
from idgr.models.padding import IGNORED, encoder_mask, prompt_mask

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

# Pairs of a branch point and a child at one node from which a product of matrices pays; measured on a CPU.
_WIDE = 64

Ints = npt.NDArray[np.int64]


def decoder_states(
    model: T5ForConditionalGeneration,
    prompt_BS: Tensor,
    mask_BS: Tensor,
    inputs_BT: Tensor,
    read_BSD: Tensor | None = None,
) -> Tensor:
    """[B, T, D] what the output head is applied to, after T5's scaling, at each position of the decoder's input.

    Args:
        prompt_BS: tokens of prompts, padded where `mask_BS` is 0.
        read_BSD: what the encoder shall read in place of their embeddings; None for these.
    """
    read = {"input_ids": prompt_BS} if read_BSD is None else {"inputs_embeds": read_BSD}
    encoded_BSD = model.encoder(**read, attention_mask=encoder_mask(model, prompt_BS, mask_BS))[0]
    return decode(model, encoded_BSD, prompt_mask(model, mask_BS), inputs_BT)


def decode(
    model: T5ForConditionalGeneration,
    encoded_BSD: Tensor,
    encoded_mask: Tensor,
    inputs_BT: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """[B, T, D] as `decoder_states`, behind encoded prompts.

    Args:
        encoded_mask: what of them each position sees.
        mask: what of the decoder's input each position sees; None for all up to itself.
    """
    hidden_BTD: Tensor = model.decoder(
        input_ids=inputs_BT,
        attention_mask=mask,
        encoder_hidden_states=encoded_BSD,
        encoder_attention_mask=encoded_mask,
        use_cache=False,
    )[0]
    return hidden_BTD * model.config.d_model**-0.5 if model.config.scale_decoder_outputs else hidden_BTD


def full_loss(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Ints) -> tuple[Tensor, int]:
    """Teacher forcing (IDGenRec, Eq. 6): the summed cross-entropy over the whole vocabulary, and the number of tokens.

    Labels of `IGNORED` cost nothing; no logits are made for them.
    """
    logits_PV, labels_P, _ = wanted_logits(hidden_BTD, head_VD, labels_BT)
    return F.cross_entropy(logits_PV, labels_P, reduction="sum"), len(labels_P)


def wanted_logits(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Ints) -> tuple[Tensor, Tensor, Ints]:
    """[P, V] the logits, in fp32, where labels are not `IGNORED`; these labels, [P]; and the row of each, [P].

    The places are found where the labels are, so that nobody waits for a GPU to tell their number.
    """
    row_P, along_P = np.nonzero(labels_BT != IGNORED)
    place_P = to_device(row_P * labels_BT.shape[1] + along_P, hidden_BTD.device)
    labels_P = to_device(labels_BT[row_P, along_P], hidden_BTD.device)
    return F.linear(hidden_BTD.flatten(0, 1)[place_P], head_VD).float(), labels_P, row_P


def target_tokens(trie: Trie) -> Ints:
    """[I, L] the tokens of each item's ID with EOS, filled up with `IGNORED`."""
    paths = trie.paths()
    tokens_IL: Ints = np.where(paths >= 0, trie.token[paths], IGNORED).astype(np.int64)
    return tokens_IL


@dataclass(frozen=True)
class Branches:
    """The points on each item's path through the prefix tree where there is a choice.

    Attributes:
        start: [I + 1] item i's branch points are start[i] to start[i + 1] - 1 of the arrays that follow.
        position: the number of ID tokens before the branch point.
        first: the node of the first child there.
        count: how many children there are, at least 2.
        chosen: which of them leads to the item, from 0.
        token: [N] the token on the edge into each node.
        root: the tokens of the root's children, where it has several; else none. The root is then the first branch
            point of every item.
    """

    start: Ints
    position: Ints
    first: Ints
    count: Ints
    chosen: Ints
    token: Ints
    root: Ints

    def decoder_lengths(self) -> Ints:
        """[I] how many decoder positions each item's loss needs: the tail behind its last branch point is forced."""
        lengths = np.ones(len(self.start) - 1, dtype=np.int64)
        branching = np.diff(self.start) > 0
        lengths[branching] = self.position[self.start[1:][branching] - 1] + 1
        return lengths


def find_branches(trie: Trie) -> Branches:
    """The branch points of every item of `trie`, by the number of the item."""
    path_IL = trie.paths().astype(np.int64)
    from_IL = np.concatenate([np.zeros((len(path_IL), 1), dtype=np.int64), path_IL[:, :-1]], axis=1)
    items, positions = np.nonzero((path_IL >= 0) & (trie.n_children(from_IL) > 1))
    nodes = from_IL[items, positions]
    first = trie.first(nodes)
    n_root = int(trie.n_children(np.zeros(1, dtype=np.int64))[0])
    token = trie.token.astype(np.int64)
    return Branches(
        start=np.searchsorted(items, np.arange(len(path_IL) + 1)),
        position=positions,
        first=first,
        count=trie.n_children(nodes),
        chosen=path_IL[items, positions] - first,
        token=token,
        root=token[1 : n_root + 1] if n_root > 1 else token[:0],
    )


@dataclass(frozen=True)
class BranchTargets:
    """The branch points of a batch of target items: first the root, once an instance, if it is one; then all others.

    Of the others, first come those at wide nodes, node by node, since the branch points at one node share its children.
    A node is wide where its branch points and children make many pairs.

    Attributes:
        points_of, children_of: of each wide node, how many branch points stand there and how many children it has.
        instance: [P] the row of the batch.
        position: [P] the decoder position whose state decides.
        chosen_root: [B] which of the root's children leads to the target; none where the root is no branch point.
        root: [R] the tokens of the root's children.
        chosen: [Q] the place in [M] of the child that leads to the target.
        point: [M] the branch point of each child, counted from the first that is not the root, ascending.
        wide: [C] the tokens of the children of wide nodes, node by node.
        narrow: [M - W] the token of each further child.
    """

    points_of: list[int]
    children_of: list[int]
    instance: Tensor
    position: Tensor
    chosen_root: Tensor
    root: Tensor
    chosen: Tensor
    point: Tensor
    wide: Tensor
    narrow: Tensor


def branch_targets(branches: Branches, items: Ints, device: torch.device) -> BranchTargets:
    """Gather the branch points of `items` [B], with all their children."""
    rows, instance = ranges(branches.start[items], branches.start[items + 1] - branches.start[items])
    at_root = (branches.position[rows] == 0) & bool(len(branches.root))
    roots, rest = np.flatnonzero(at_root), np.flatnonzero(~at_root)
    _, node, points_of = np.unique(branches.first[rows[rest]], return_inverse=True, return_counts=True)
    is_narrow = points_of[node] * branches.count[rows[rest]] < _WIDE
    rest = rest[np.lexsort([node, is_narrow])]
    order, others = np.concatenate([roots, rest]), rows[rest]
    first, counts = branches.first[others], branches.count[others]
    children, point = ranges(first, counts)
    wide, begins, points_of = np.unique(first[: np.count_nonzero(~is_narrow)], return_index=True, return_counts=True)
    children_of = counts[begins]
    return BranchTargets(
        points_of.tolist(),
        children_of.tolist(),
        *(
            to_device(values, device)
            for values in (
                instance[order],
                branches.position[rows[order]],
                branches.chosen[rows[roots]],
                branches.root,
                np.cumsum(counts) - counts + branches.chosen[others],
                point,
                branches.token[ranges(wide, children_of)[0]],
                branches.token[children[int(points_of @ children_of) :]],
            )
        ),
    )


def ranges(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """The numbers start, start + 1, … of each range, one range after the other, and the range each belongs to."""
    owner = np.repeat(np.arange(len(starts)), counts)
    begins = np.cumsum(counts) - counts
    return np.arange(len(owner)) - begins[owner] + starts[owner], owner


def trie_loss(hidden_BTD: Tensor, head_VD: Tensor, targets: BranchTargets, n_instances: int) -> tuple[Tensor, int]:
    """The summed cost of the targets, -log P(item), under a softmax over the valid children of each node.

    A node with one child costs nothing, so a target's probability is the product over its branch points: a
    hierarchical softmax over items, whose probabilities sum to one. The branch points at the root, and those at each
    wide node, are one product of matrices, states by children; elsewhere a product for each child costs less.

    Args:
        hidden_BTD: the decoder's states; positions behind the last branch point may be missing.
        head_VD: the output embeddings; only rows of tokens in the tree are used.
        targets: the batch's branch points.
        n_instances: B.

    Returns:
        The sum over the batch, in nats, and B.
    """
    hidden_PD = hidden_BTD[targets.instance, targets.position]
    n_roots = len(targets.chosen_root)
    logits_BR = F.linear(hidden_PD[:n_roots], F.embedding(targets.root, head_VD)).float()
    cost = F.cross_entropy(logits_BR, targets.chosen_root, reduction="sum") if n_roots else logits_BR.sum()
    hidden_QD = hidden_PD[n_roots:]
    n_points, n_wide = len(targets.chosen), sum(targets.points_of)
    states_QD, children_CD = hidden_QD, F.embedding(targets.wide, head_VD)
    if torch.is_autocast_enabled(head_VD.device.type):  # once, and not node by node
        dtype = torch.get_autocast_dtype(head_VD.device.type)
        states_QD, children_CD = states_QD.to(dtype), children_CD.to(dtype)
    states = states_QD[:n_wide].split(targets.points_of)  # type: ignore[no-untyped-call]
    children = children_CD.split(targets.children_of)  # type: ignore[no-untyped-call]
    blocks = [(some @ theirs.T).flatten().float() for some, theirs in zip(states, children, strict=True)]
    n_blocks = sum(map(len, blocks))
    pairs = hidden_QD.index_select(0, targets.point[n_blocks:]) * F.embedding(targets.narrow, head_VD)
    logits_M = torch.cat([*blocks, pairs.float().sum(-1)])
    with torch.no_grad():
        highest_Q = logits_M.new_full((n_points,), -torch.inf)
        highest_Q = highest_Q.scatter_reduce(0, targets.point, logits_M, "amax")
    shifted_M = logits_M - highest_Q.index_select(0, targets.point)
    total_Q = logits_M.new_zeros(n_points).index_add(0, targets.point, shifted_M.exp())
    return cost + (total_Q.log() - shifted_M.index_select(0, targets.chosen)).sum(), n_instances


def item_targets(branches: Branches, items_M: Ints, row_M: Ints, offset_M: Ints, device: torch.device) -> BranchTargets:
    """The branch points of targets that stand in sequences, each behind an EOS at a row and a place in it."""
    targets = branch_targets(branches, items_M, device)
    row, offset = (to_device(values, device)[targets.instance] for values in (row_M, offset_M))
    return replace(targets, instance=row, position=offset + targets.position)


def trees_tokens(tries: Sequence[Trie]) -> Ints:
    """As `target_tokens`, of the same items in several trees: an item has its number there plus I for each before."""
    tokens = [target_tokens(trie) for trie in tries]
    width = max(rows.shape[1] for rows in tokens)
    return np.concatenate(
        [np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=IGNORED) for rows in tokens]
    )


def trees_loss(
    hidden_BTD: Tensor, head_VD: Tensor, trees: Sequence[Branches], items_M: Ints, row_M: Ints, offset_M: Ints
) -> Tensor:
    """As `trie_loss`, of targets that stand where `item_targets` has them, each in its tree; see `trees_tokens`."""
    tree_M, items_M = np.divmod(items_M, len(trees[0].start) - 1)
    total = hidden_BTD.new_zeros(())
    for number, branches in enumerate(trees):
        ours = np.flatnonzero(tree_M == number)
        if len(ours):
            targets = item_targets(branches, items_M[ours], row_M[ours], offset_M[ours], hidden_BTD.device)
            total = total + trie_loss(hidden_BTD, head_VD, targets, len(ours))[0]
    return total
