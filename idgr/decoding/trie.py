"""The prefix tree of all item IDs, as flat arrays.

Legend: I items, M nodes of the crown, N nodes in all, L tokens of the longest ID with EOS.

Items are ranked by their token sequences, so the items below a node are a range of ranks. The crown holds the nodes
with several items below them and, for each item, its head: the first node that it has to itself. It is numbered breadth
first from the root, 0, so the children of a node are neighbours, sorted by token. Behind a head no choice is left; that
tail of an item is a run of nodes, numbered from M on by rank and depth. Two thirds of all nodes lie in tails, and a
tail's node needs no more than its token.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from idgr.errors import IdgrError
from idgr.formats.jsonl import replace_file

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Trie:
    """A prefix tree in which each item's ID, ended by EOS, is a path from the root to a leaf of its own.

    A node is a leaf if its token is EOS.

    Attributes:
        eos: the token on every edge into a leaf, and on no other.
        token: [N] the token on the edge into a node; -1 for the root.
        first_child: [M + 1] the children of a node n with several items are first_child[n] to first_child[n + 1] - 1.
        item_lo: [M] the first rank below a node.
        item_hi: [M] one past the last rank below a node.
        tail: [I + 1] the nodes behind the head of rank r are tail[r] to tail[r + 1] - 1.
        item: [I] rank to item, in the order in which the sequences were given.
    """

    eos: int
    token: Ints
    first_child: Ints
    item_lo: Ints
    item_hi: Ints
    tail: Ints
    item: Ints

    def __len__(self) -> int:
        return len(self.token)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)

    def n_children(self, nodes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """How many children each of some nodes has."""
        crown = np.minimum(nodes, len(self.item_lo) - 1)
        several = self.first_child[crown + 1] - self.first_child[crown]
        alone = (self.token[nodes] != self.eos).astype(np.int64)
        counts: npt.NDArray[np.int64] = np.where((nodes < len(self.item_lo)) & (several > 0), several, alone)
        return counts

    def first(self, nodes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The first child of each of some nodes, none of which is a leaf."""
        crown = np.minimum(nodes, len(self.item_lo) - 1)
        several = self.first_child[crown + 1] > self.first_child[crown]
        of_crown = np.where(several, self.first_child[crown], self.tail[self.item_lo[crown]])
        first: npt.NDArray[np.int64] = np.where(nodes < len(self.item_lo), of_crown, nodes.astype(np.int64) + 1)
        return first

    def levels(self) -> list[tuple[int, int]]:
        """The crown's first node at each depth and one past its last, from the root's on."""
        bounds = [(0, 1)]
        while (below := (int(self.first_child[bounds[-1][0]]), int(self.first_child[bounds[-1][1]])))[0] < below[1]:
            bounds.append(below)
        return bounds

    @cached_property
    def lengths(self) -> Ints:
        """[I] by rank, the number of an ID's tokens with EOS."""
        lengths = np.diff(self.tail)
        for depth, (first, last) in enumerate(self.levels()):
            single = np.flatnonzero(self.item_hi[first:last] - self.item_lo[first:last] == 1) + first
            if depth:
                lengths[self.item_lo[single]] += depth
        return lengths

    @property
    def depth(self) -> int:
        """The number of tokens of the longest ID, EOS among them."""
        return int(self.lengths.max())

    def paths(self) -> Ints:
        """[I, L] for each item, in the order in which the sequences were given, the nodes from below the root to its
        leaf; -1 fills up the shorter ones."""
        path = np.full((len(self.item), self.depth), -1, dtype=np.int32)  # by rank
        for depth, (first, last) in enumerate(self.levels()[1:]):
            n_items = self.item_hi[first:last] - self.item_lo[first:last]
            # The ranks below these nodes: ranges that ascend, with gaps where items have got their heads before.
            ends = np.cumsum(n_items)
            ranks = np.arange(ends[-1]) + np.repeat(self.item_lo[first:last] - (ends - n_items), n_items)
            path[ranks, depth] = np.repeat(np.arange(first, last, dtype=np.int32), n_items)
        n_tail = np.diff(self.tail)
        place = np.arange(self.depth)
        tails = (place < self.lengths[:, None]) & (place >= (self.lengths - n_tail)[:, None])
        path[tails] = np.arange(len(self.item_lo), len(self.token))
        by_item = np.empty_like(path)
        by_item[self.item] = path
        return by_item

    def tokens(self) -> list[list[int]]:
        """The token sequences that the tree was built from, without EOS, in their order."""
        paths = self.paths()
        rows = np.where(paths >= 0, self.token[paths], self.eos)
        lengths = (rows != self.eos).sum(axis=1).tolist()
        return [row[:length] for row, length in zip(rows.tolist(), lengths, strict=True)]


_ARRAYS = [field.name for field in fields(Trie) if field.name != "eos"]
_MADE_OF = "tree"  # all of the metadata: several entries would be written in an order that differs from run to run
_MOST_HEADER = 1 << 20  # bytes; it has a few hundred


def build_trie(ids: Sequence[Sequence[int]], eos: int) -> Trie:
    """Build the tree of `ids`, to each of which EOS is added as a real edge. Sorting aside, linear in tokens.

    Args:
        ids: the token sequence of each item, without EOS.
        eos: the end-of-sequence token, or another one that ends IDs, such as a newline.

    Raises:
        IdgrError: there are no IDs, one is empty or holds EOS, or two are the same.
    """
    rows, lengths = _padded(ids, eos)
    order = np.lexsort(rows.T[::-1]).astype(np.int32)
    rows, lengths = rows[order], lengths[order]
    # starts[i, t]: the first t + 1 tokens of row i differ from those of the row before.
    starts = np.ones(rows.shape, dtype=bool)
    np.logical_or.accumulate(rows[1:] != rows[:-1], axis=1, out=starts[1:])
    if not starts[:, -1].all():
        same = int(np.flatnonzero(~starts[:, -1])[0])
        first, second = sorted((int(order[same - 1]), int(order[same])))
        raise IdgrError(f"items {first} and {second} have the same ID tokens", "generate the IDs again")

    tokens, los, his, counts = [np.array([-1])], [np.array([0])], [np.array([len(ids)])], []
    head = np.full(len(ids), -1)  # the depth of each rank's head, once it is known
    for t in range(rows.shape[1]):
        begins = np.flatnonzero(starts[:, t])
        ends = np.append(begins[1:], len(ids))
        growing = head[begins] < 0
        begins, ends = begins[growing], ends[growing]
        head[begins[ends - begins == 1]] = t
        parents = np.searchsorted(los[-1], begins, side="right") - 1
        counts.append(np.bincount(parents, minlength=len(los[-1])))
        tokens.append(rows[begins, t])
        los.append(begins)
        his.append(ends)
        if not len(begins):
            break
    counts.append(np.zeros(len(los[-1]), dtype=np.int64))
    first_child = np.concatenate([[1], 1 + np.cumsum(np.concatenate(counts))])
    place = np.arange(rows.shape[1])
    tails = (place > head[:, None]) & (place < lengths[:, None])
    n_crown = len(first_child) - 1
    return Trie(
        eos=eos,
        token=np.concatenate([*tokens, rows[tails]]).astype(np.int32),
        first_child=first_child.astype(np.int32),
        item_lo=np.concatenate(los).astype(np.int32),
        item_hi=np.concatenate(his).astype(np.int32),
        tail=np.concatenate([[n_crown], n_crown + np.cumsum(lengths - head - 1)]).astype(np.int32),
        item=order,
    )


def save_trie(trie: Trie, path: str | os.PathLike[str], fingerprint: str) -> None:
    """Write the tree as a safetensors file; equal trees give equal bytes.

    Args:
        fingerprint: says which IDs and tokenizer the tree is of.
    """
    from safetensors.numpy import save

    made_of = orjson.dumps({"fingerprint": fingerprint, "eos": trie.eos, "crc32": _checksum(trie)}).decode()
    with replace_file(path) as stream:
        stream.write(save({name: getattr(trie, name) for name in _ARRAYS}, {_MADE_OF: made_of}))


def load_trie(path: str | os.PathLike[str], fingerprint: str) -> Trie | None:
    """The tree that `save_trie` wrote, mapped into memory after one reading of it all.

    Returns:
        None if there is no such file, the tree is of other IDs or another tokenizer, or an earlier idgr wrote it in
        another form.

    Raises:
        IdgrError: the file is not such a tree, or it is damaged.
    """
    try:
        with open(path, "rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            size = int.from_bytes(stream.read(8), "little")
            header = orjson.loads(stream.read(min(size, _MOST_HEADER)))
        metadata = header["__metadata__"]
        told = 8 + size + max(header[name]["data_offsets"][1] for name in _ARRAYS)
        if told == length:
            if _MADE_OF not in metadata:
                return None
            made_of = orjson.loads(metadata[_MADE_OF])
            if made_of["fingerprint"] != fingerprint:
                return None
            arrays = {}
            for name in _ARRAYS:
                begin, end = header[name]["data_offsets"]
                if header[name]["dtype"] != "I32":
                    raise ValueError(f"{name} is {header[name]['dtype']}")
                # Copied on write, since tensors must be writable; nobody writes.
                arrays[name] = np.memmap(path, np.int32, "c", 8 + size + begin, ((end - begin) // 4,))
            trie = Trie(eos=made_of["eos"], **arrays)
            if _checksum(trie) == made_of["crc32"]:
                return trie
        fault = "its content is not what was written"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as caught:
        fault = str(caught)
    what = f"is not a prefix tree of idgr, or damaged ({fault})"
    raise IdgrError(what, "delete it, and it is made again", where=path)


def _checksum(trie: Trie) -> str:
    """Over all that a search reads of the tree: lengths, tokens, places. It finds accidents, not forgeries."""
    total = zlib.crc32(f"{trie.eos} {[len(getattr(trie, name)) for name in _ARRAYS]}".encode())
    for name in _ARRAYS:
        total = zlib.crc32(np.ascontiguousarray(getattr(trie, name), dtype="<i4").data, total)
    return f"{total:08x}"


def _padded(ids: Sequence[Sequence[int]], eos: int) -> tuple[Ints, npt.NDArray[np.int64]]:
    """[I, L] the sequences with EOS, filled up with -1, and [I] their lengths."""
    if not ids:
        raise IdgrError("no IDs to build a prefix tree from", "give at least one")
    lengths = np.fromiter((len(row) for row in ids), dtype=np.int64, count=len(ids)) + 1
    if lengths.min() < 2:
        raise IdgrError(f"the ID of item {int(lengths.argmin())} has no tokens", "generate the IDs again")
    rows = np.full((len(ids), int(lengths.max())), -1, dtype=np.int32)
    filled = np.arange(rows.shape[1]) < lengths[:, None] - 1
    rows[filled] = np.fromiter((token for row in ids for token in row), dtype=np.int32, count=int(filled.sum()))
    if (rows == eos).any():
        raise IdgrError("an ID holds the token that ends IDs", "generate the IDs again")
    rows[np.arange(len(ids)), lengths - 1] = eos
    return rows, lengths


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with alike."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
