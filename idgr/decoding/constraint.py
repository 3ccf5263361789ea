"""Keeps `generate` of transformers on the IDs of a catalogue. `idgr export --to transformers` copies this file.

It needs torch, transformers and safetensors, and nothing of idgr.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import LogitsProcessor


class Tree:
    """The prefix tree of all IDs as tokens, each with its end, in compressed sparse rows, and how prompts are made.

    The root is node 0. The children of node n are child[first[n]:first[n + 1]], and token[first[n]:first[n + 1]] leads
    there, in ascending order. below[n] is how many items lie below n; item[n] is the line of ids.jsonl, from 0, whose
    ID ends at n, or -1.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        arrays = load_file(Path(folder) / "tree.safetensors")
        self.first, self.token, self.child = (arrays[name].long() for name in ("first", "token", "child"))
        self.below, self.item = arrays["below"], arrays["item"]
        self.settings: dict[str, Any] = json.loads((Path(folder) / "prompt.json").read_text())

    def path(self, answer: Iterable[int]) -> list[int]:
        """The nodes of a prefix, from the root on, as far as it is one of an ID."""
        nodes = [0]
        for token in answer:
            tokens, children = self.children(nodes[-1])
            place = int(torch.searchsorted(tokens, token))
            if place == len(tokens) or int(tokens[place]) != token:
                break
            nodes.append(int(children[place]))
        return nodes

    def children(self, node: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that may follow a node, and where they lead."""
        part = slice(int(self.first[node]), int(self.first[node + 1]))
        return self.token[part], self.child[part]

    def line(self, answer: Sequence[int]) -> int:
        """The line of ids.jsonl, from 0, of a whole answer, padding behind its end or not; -1 where it is none."""
        return int(self.item[self.path(answer)[-1]])

    def empty(self, seen: Iterable[Sequence[int]]) -> torch.Tensor:
        """Nodes below which there are only items of a history, given as the tokens of their IDs without the end."""
        count: dict[int, int] = {}
        for row in {tuple(row) for row in seen}:
            for node in self.path([*row, self.settings["end"]]):
                count[node] = count.get(node, 0) + 1
        return torch.tensor([node for node, n in count.items() if n == int(self.below[node])], dtype=torch.long)

    def prompt(self, history: Sequence[Sequence[int]]) -> list[int]:
        """What the model reads of a history, given as the tokens of its items' IDs, oldest first."""
        told = self.settings
        rows = list(history)[-told["max_history"] :]
        while rows:
            middle = [token for row in rows for token in (*told["between"], *row)][len(told["between"]) :]
            if len(whole := [*told["before"], *middle, *told["after"]]) <= told["max_tokens"]:
                return whole
            del rows[0]
        return list(told["empty"])

    def keep(self, scores: torch.Tensor, answer: Sequence[int], empty: torch.Tensor | None = None) -> torch.Tensor:
        """The scores [V] of tokens that go on to an item; minus infinity elsewhere."""
        kept, nodes = torch.full_like(scores, -torch.inf), self.path(answer)
        if len(nodes) == len(answer) + 1:
            tokens, children = self.children(nodes[-1])
            values = scores[tokens.to(scores.device)]
            if self.settings["normalize"] == "trie":  # as it was trained: a softmax over the children
                values = values.log_softmax(-1)
            if empty is not None:
                values = values.masked_fill(torch.isin(children, empty).to(scores.device), -torch.inf)
            kept[tokens.to(scores.device)] = values
        return kept


class Constraint(LogitsProcessor):  # type: ignore[misc]
    """For `generate(logits_processor=[…])`; a new one for each call.

    Args:
        tree: the catalogue.
        seen: for each user, the tokens of the IDs that are not to be recommended.
    """

    def __init__(self, tree: Tree, seen: Sequence[Iterable[Sequence[int]]] | None = None) -> None:
        self.tree, self.begin = tree, -1
        self.empty = [None] if seen is None else [tree.empty(rows) for rows in seen]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.begin < 0:  # the prompt's end, or the decoder's start
            self.begin = input_ids.shape[1]
        rows = len(scores) // len(self.empty)  # of a user
        answers = enumerate(input_ids[:, self.begin :].tolist())
        return torch.stack([self.tree.keep(scores[n], answer, self.empty[n // rows]) for n, answer in answers])


class RequestConstraint:
    """For one request, such as a logits processor of vLLM: the answer's tokens so far and the logits [V] after them."""

    def __init__(self, tree: Tree, seen: Iterable[Sequence[int]] = ()) -> None:
        self.tree, self.empty = tree, tree.empty(seen)

    def __call__(self, answer: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        return self.tree.keep(logits, answer, self.empty)
