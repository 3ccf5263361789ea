"""What a recommender's training minimises: cross-entropy over the vocabulary, or over the children in the prefix tree.

Legend: B instances, S prompt tokens, T target tokens, D width, V vocabulary, E distinct tokens in the tree, I items,
L tokens of the longest ID with EOS, P branch points of the targets in a batch, M children of these branch points.
Knows tokens, not text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from idgr.decoding.trie import Trie

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

IGNORED = -100

Ints = npt.NDArray[np.int64]


def decoder_states(
    model: T5ForConditionalGeneration, prompt: Tensor, prompt_mask_BS: Tensor, inputs_BT: Tensor
) -> Tensor:
    """[B, T, D] what the output head is applied to, after T5's scaling, at each position of the decoder's input.

    Args:
        prompt: tokens [B, S], or what the encoder shall read in place of their embeddings [B, S, D].
    """
    read = "input_ids" if prompt.ndim == 2 else "inputs_embeds"
    encoded_BSD = model.encoder(**{read: prompt}, attention_mask=prompt_mask_BS)[0]
    hidden_BTD: Tensor = model.decoder(
        input_ids=inputs_BT,
        encoder_hidden_states=encoded_BSD,
        encoder_attention_mask=prompt_mask_BS,
        use_cache=False,
    )[0]
    return hidden_BTD * model.config.d_model**-0.5 if model.config.scale_decoder_outputs else hidden_BTD


def full_loss(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> tuple[Tensor, int]:
    """Teacher forcing (IDGenRec, Eq. 6): the summed cross-entropy over the whole vocabulary, and the number of tokens.

    Labels of `IGNORED` cost nothing; no logits are made for them.
    """
    wanted_BT = labels_BT != IGNORED
    logits_PV = F.linear(hidden_BTD[wanted_BT], head_VD)
    labels_P = labels_BT[wanted_BT]
    return F.cross_entropy(logits_PV.float(), labels_P, reduction="sum"), len(labels_P)


@dataclass(frozen=True)
class Branches:
    """The points on each item's path through the prefix tree where there is a choice.

    Attributes:
        start: [I + 1] item i's branch points are start[i] to start[i + 1] - 1 of the arrays that follow.
        position: the number of ID tokens before the branch point.
        first: the node of the first child there.
        count: how many children there are, at least 2.
        chosen: which of them leads to the item, from 0.
        tokens: the distinct tokens on edges, sorted.
        column: [N] the place of each node's token in `tokens`.
    """

    start: Ints
    position: Ints
    first: Ints
    count: Ints
    chosen: Ints
    tokens: Ints
    column: Ints

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
    tokens, column = np.unique(trie.token[1:], return_inverse=True)
    return Branches(
        start=np.searchsorted(items, np.arange(len(path_IL) + 1)),
        position=positions,
        first=first,
        count=trie.n_children(nodes),
        chosen=path_IL[items, positions] - first,
        tokens=tokens.astype(np.int64),
        column=np.concatenate([[0], column]).astype(np.int64),
    )


@dataclass(frozen=True)
class BranchTargets:
    """The branch points of a batch of target items.

    Attributes:
        instance: [P] the row of the batch.
        position: [P] the decoder position whose state decides.
        chosen: [P] the place in [M] of the child that leads to the target.
        point: [M] the branch point of each child, ascending.
        column: [M] the place of the child's token among the tree's distinct tokens.
    """

    instance: Tensor
    position: Tensor
    chosen: Tensor
    point: Tensor
    column: Tensor


def branch_targets(branches: Branches, items: Ints, device: torch.device) -> BranchTargets:
    """Gather the branch points of `items` [B], with all their children."""
    rows, instance = _ranges(branches.start[items], branches.start[items + 1] - branches.start[items])
    counts = branches.count[rows]
    children, point = _ranges(branches.first[rows], counts)
    begins = np.cumsum(counts) - counts
    return BranchTargets(
        *(
            torch.from_numpy(values).to(device)
            for values in (
                instance,
                branches.position[rows],
                begins + branches.chosen[rows],
                point,
                branches.column[children],
            )
        )
    )


def _ranges(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """The numbers start, start + 1, … of each range, one range after the other, and the range each belongs to."""
    owner = np.repeat(np.arange(len(starts)), counts)
    begins = np.cumsum(counts) - counts
    return np.arange(len(owner)) - begins[owner] + starts[owner], owner


def trie_loss(
    hidden_BTD: Tensor, head_VD: Tensor, tokens: Tensor, targets: BranchTargets, n_instances: int
) -> tuple[Tensor, int]:
    """The summed cost of the targets, -log P(item), under a softmax over the valid children of each node.

    A node with one child costs nothing, so a target's probability is the product over its branch points: a
    hierarchical softmax over items, whose probabilities sum to one.

    Args:
        hidden_BTD: the decoder's states; positions behind the last branch point may be missing.
        head_VD: the output embeddings.
        tokens: the tree's distinct tokens (`Branches.tokens`); only these rows of the head are used.
        targets: the batch's branch points.
        n_instances: B.

    Returns:
        The sum over the batch, in nats, and B.
    """
    hidden_PD = hidden_BTD[targets.instance, targets.position]
    head_ED = F.embedding(tokens, head_VD)
    logits_PE = F.linear(hidden_PD, head_ED).float()
    flat_M = targets.point * logits_PE.shape[1] + targets.column
    logits_M = logits_PE.reshape(-1).index_select(0, flat_M)
    n_points = len(targets.instance)
    with torch.no_grad():
        highest_P = logits_M.new_full((n_points,), -torch.inf)
        highest_P = highest_P.scatter_reduce(0, targets.point, logits_M, "amax")
    shifted_M = logits_M - highest_P.index_select(0, targets.point)
    total_P = logits_M.new_zeros(n_points).index_add(0, targets.point, shifted_M.exp())
    return (total_P.log() - shifted_M.index_select(0, targets.chosen)).sum(), n_instances
