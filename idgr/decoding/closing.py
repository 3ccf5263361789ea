"""The end of a search: everything below a user's last prefixes, in one pass through the decoder.

Legend: B users, K places for nodes of a user at one depth, T steps, R tokens of all users, Q query tokens of a user in
one pass, C slots, X = T·K entries of a user, N entries of all users that have been scored.

Where no more items are left below a user's prefixes than there are beams, nothing competes any longer: every one of
them is followed to its ends. So the walk down the tree needs no model; the tokens on the way are evaluated together,
each seeing its ancestors, and added up along the paths. Two thirds of an ID's tokens lie here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from idgr.decoding.decoder import Decoder
from idgr.decoding.expansion import NEVER, Expansion, Prefixes, log_sums, products, spread

# So many attention weights of a layer are computed at a time on a processor, so that they stay in its cache.
_WEIGHTS_AT_ONCE = 1 << 19


@dataclass
class _Walk:
    """The nodes below and at the beginnings of some prefixes, an entry each, [B, T, K]: step 0 holds the beginnings.

    Attributes:
        node: 0 where there is none.
        parent: the place at the step before.
        origin: the prefix that it began with.
        there: whether there is a node.
        wanted: whether the user may get an item below it.
    """

    node: torch.Tensor
    parent: torch.Tensor
    origin: torch.Tensor
    there: torch.Tensor
    wanted: torch.Tensor


@dataclass
class _Tokens:
    """The tokens that are evaluated in one pass, [R] each but for the first and the last.

    Attributes:
        users: whose tokens.
        row: the place of a token's user among them.
        entry: which of the user's X entries it is.
        column: its place among the user's tokens.
        above: the column of the token above it; its own at a beginning.
        width: the most tokens that a user has.
    """

    users: list[int]
    row: torch.Tensor
    entry: torch.Tensor
    column: torch.Tensor
    above: torch.Tensor
    width: int


def items_below(
    expansion: Expansion, prefixes: Prefixes, score_BK: torch.Tensor, barred_BE: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All items below some prefixes, at most K for each user.

    Args:
        expansion: what has been evaluated so far.
        prefixes: those that are live have items below them.
        score_BK: the sums of their log-probabilities.
        barred_BE: see `Tree.barred`.

    Returns:
        [B, X] the leaves, 0 where there is none; the sums of their log-probabilities, minus infinity where there is
        none; and the numbers of tokens of their IDs.
    """
    tree = expansion.tree
    walk = _walk(expansion, prefixes, barred_BE)
    _, T, K = walk.node.shape
    leaf = tree.is_leaf(walk.node)
    # Under the softmax over the valid children, a node needs no evaluation unless there is a choice at or below it.
    asked = walk.wanted & (~leaf if expansion.full else tree.n_items(walk.node) > 1)
    log_prob_BTK = _log_probs(expansion, prefixes, walk, asked)

    total = score_BK
    totals = [total]
    for step in range(1, T):
        total = total.gather(1, walk.parent[:, step]) + log_prob_BTK[:, step]
        totals.append(total)
    ends = walk.wanted & leaf
    length = prefixes.begin_depth.gather(1, walk.origin.flatten(1)) + torch.arange(
        T, device=leaf.device
    ).repeat_interleave(K)
    score = torch.stack(totals, 1).masked_fill(~ends, NEVER)
    return (walk.node * ends).flatten(1), score.flatten(1), length


def _walk(expansion: Expansion, prefixes: Prefixes, barred_BE: torch.Tensor | None) -> _Walk:
    tree, device = expansion.tree, prefixes.node.device
    B, K = prefixes.node.shape
    place_K = torch.arange(K, device=device).repeat(B, 1)
    first_depth = prefixes.begin_depth.masked_fill(~prefixes.live, tree.depth).min()
    there, node, origin = prefixes.live, prefixes.begin * prefixes.live, place_K
    steps = [_Walk(node, place_K, origin, there, there)]
    for _ in range(tree.depth - int(first_depth)):
        n_children = tree.n_children(node) * steps[-1].wanted
        if device.type == "cpu" and not n_children.any():
            break  # a GPU is the slower the more often it is asked
        ends = n_children.cumsum(1)
        parent = torch.searchsorted(ends, place_K, right=True).clamp(max=K - 1)
        among = place_K - (ends - n_children).gather(1, parent)
        there = place_K < ends[:, -1:]
        node = (tree.first(node).gather(1, parent) + among) * there
        origin = origin.gather(1, parent)
        alive = tree.alive(node, barred_BE)
        steps.append(_Walk(node, parent, origin, there, there if alive is None else there & alive))
    return _Walk(*(torch.stack([getattr(step, name) for step in steps], 1) for name in _Walk.__dataclass_fields__))


def _log_probs(expansion: Expansion, prefixes: Prefixes, walk: _Walk, asked_BTK: torch.Tensor) -> torch.Tensor:
    """[B, T, K] the log-probability of each node given the one above it; 0 at the beginnings."""
    tree, decoder = expansion.tree, expansion.decoder
    B, T, K = walk.node.shape
    asked_BX = asked_BTK.flatten(1)
    counts = asked_BX.sum(1)
    result = torch.zeros(B, T, K, device=asked_BX.device)
    sizes: list[int] = counts.tolist()
    if not any(sizes):
        return result
    # Entries in the order of user, step and place; a token's place among its user's tokens is its column.
    column_BX = asked_BX.cumsum(1) - 1
    row_BX = (counts.cumsum(0) - counts)[:, None] + column_BX
    hidden_RD = torch.empty(sum(sizes), decoder.head_VD.shape[1], dtype=decoder.head_VD.dtype, device=result.device)
    # The entry above each entry; those of the beginnings are not asked for.
    above_BX = (
        walk.parent.flatten(1) + (torch.arange(T, device=result.device) - 1).clamp(min=0).repeat_interleave(K) * K
    )
    for users in groups_of(decoder, sizes, expansion.cache.used):
        row_R, entry_R = asked_BX[users].nonzero(as_tuple=True)
        user_R = torch.tensor(users, device=row_R.device)[row_R]
        column_R = column_BX[user_R, entry_R]
        above_R = torch.where(entry_R < K, column_R, column_BX[user_R, above_BX[user_R, entry_R]])
        tokens = _Tokens(users, row_R, entry_R, column_R, above_R, max(sizes[user] for user in users))
        hidden_RD.index_copy_(0, row_BX[user_R, entry_R], _evaluate(expansion, prefixes, walk, tokens))
    expansion.evaluated += sum(sizes)

    scored_BTK = walk.there.clone()
    scored_BTK[:, 0] = False
    scored_BTK &= asked_BX.gather(1, above_BX).view(B, T, K)
    child_N = scored_BTK.flatten().nonzero().squeeze(1)
    row_N = row_BX.gather(1, above_BX).flatten()[child_N]
    log_prob_N = products(hidden_RD, row_N, decoder.head_VD, tree.token[walk.node.flatten()[child_N]].long())
    if expansion.full:
        log_prob_N -= decoder.log_normaliser(hidden_RD)[row_N]
    else:
        log_prob_N -= log_sums(log_prob_N, row_N, len(hidden_RD))
    expansion.watch(log_prob_N)
    return result.view(-1).index_copy_(0, child_N, log_prob_N).view(B, T, K)


def groups_of(decoder: Decoder, sizes: list[int], used: int) -> list[list[int]]:
    """Users with about as many tokens to evaluate, a few at a time on a processor; so many slots are used before."""
    groups = []
    for group in decoder.alike(sizes):
        users = [user for user in group if sizes[user]]
        most = len(users)
        if decoder.device.type == "cpu" and users:
            weights = sizes[users[0]] * (used + sizes[users[0]]) * decoder.n_heads
            most = max(1, _WEIGHTS_AT_ONCE // weights)
        groups += [users[first : first + most] for first in range(0, len(users), max(1, most))]
    return groups


def _evaluate(expansion: Expansion, prefixes: Prefixes, walk: _Walk, tokens: _Tokens) -> torch.Tensor:
    """[R, D] the hidden states of some tokens."""
    tree, decoder = expansion.tree, expansion.decoder
    users, row_R, entry_R, Q = tokens.users, tokens.row, tokens.entry, tokens.width
    B, T, K = len(users), *walk.node.shape[1:]
    cell_R = row_R * Q + tokens.column

    up_BQ = spread(tokens.above, 0, cell_R, (B, Q))
    own_BQQ = torch.eye(Q, dtype=torch.bool, device=cell_R.device).repeat(B, 1, 1)
    above_BQ = up_BQ
    for _ in range(T - 1):
        own_BQQ.scatter_(2, above_BQ[..., None], True)
        above_BQ = up_BQ.gather(1, above_BQ)
    origin_R = walk.origin[users].flatten(1)[row_R, entry_R]
    past_BQC = prefixes.sees[users].gather(
        1, spread(origin_R, 0, cell_R, (B, Q))[..., None].expand(-1, -1, prefixes.sees.shape[-1])
    )
    node_R = walk.node[users].flatten(1)[row_R, entry_R]
    return decoder.extend(
        decoder.only(expansion.cache, users),
        spread(tree.token[node_R].long(), decoder.start, cell_R, (B, Q)),
        spread(prefixes.begin_depth[users][row_R, origin_R] + entry_R // K, 0, cell_R, (B, Q)),
        torch.cat([past_BQC, own_BQQ], dim=-1),
        cell_R,
    )
