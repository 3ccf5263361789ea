"""Tiny models, catalogues and a plain beam search over dictionaries, against which the fast one is judged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

EOS, START = 1, 0
FIRST_TOKEN = 3


def tiny_t5(seed: int, vocabulary: int = 40, **changes: Any) -> Any:
    """A T5 with random weights and logits a few units wide, in evaluation mode."""
    from transformers import T5Config, T5ForConditionalGeneration

    shape = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 2, "num_heads": 2, "vocab_size": vocabulary}
    config = T5Config(**(shape | {"pad_token_id": 0, "eos_token_id": EOS, "decoder_start_token_id": START} | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "layer_norm" in name:
                    weight.copy_(0.5 + torch.rand_like(weight))
                if "relative_attention_bias" in name:
                    weight.copy_(torch.randn_like(weight))
    return model


def tiny_llama(seed: int, vocabulary: int = 40, item_slots: int = 0, **changes: Any) -> Any:
    """A Llama with random weights and logits a few units wide, in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": shape["num_attention_heads"], "vocab_size": vocabulary, "initializer_range": 0.3}
    config = LlamaConfig(**(shape | {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": EOS} | changes))
    config.item_slots = item_slots
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name:
                    weight.copy_(0.5 + torch.rand_like(weight))
    return model


def plain_places(tokens: Sequence[int], item_slots: int) -> list[int]:
    """Where tokens stand: counted through, or each EOS beginning an item a fixed number of places after the last."""
    found: list[int] = []
    item = -1
    for token in tokens:
        if token == EOS and item_slots:
            item += 1
            found.append(item * item_slots)
        else:
            found.append(found[-1] + 1 if found else 0)
    return found


def random_ids(generator: np.random.Generator, items: int, vocabulary: int = 40, longest: int = 6) -> list[list[int]]:
    """Different random token sequences in which short ones are often the beginning of longer ones."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < items:
        length = int(generator.integers(1, longest + 1))
        if found and generator.random() < 0.6:
            known = list(found)[int(generator.integers(len(found)))]
            stem = known[: int(generator.integers(1, len(known) + 1))]
        else:
            stem = ()
        tail = tuple(int(token) for token in generator.integers(FIRST_TOKEN, vocabulary, size=length))
        found.setdefault((stem + tail)[:longest])
    return [list(row) for row in found]


def random_prompts(generator: np.random.Generator, users: int, vocabulary: int = 40) -> list[list[int]]:
    return [
        [*(int(t) for t in generator.integers(FIRST_TOKEN, vocabulary, size=int(generator.integers(1, 12)))), EOS]
        for _ in range(users)
    ]


class DictionaryTrie:
    """Children of a prefix as a dictionary of dictionaries, for one user's valid items."""

    def __init__(self, ids: Sequence[Sequence[int]], valid: Collection[int]) -> None:
        self.root: dict[int, Any] = {}
        for item in valid:
            node = self.root
            for token in [*ids[item], EOS]:
                node = node.setdefault(token, {})

    def children(self, prefix: Sequence[int]) -> list[int]:
        node: dict[int, Any] | None = self.root
        for token in prefix:
            node = node.get(token) if node is not None else None
        return sorted(node) if node else []


class NextToken:
    """Log-probabilities of the token after each prefix of each ID, by teacher forcing without a cache."""

    def __init__(self, model: Any, ids: Sequence[Sequence[int]], prompt: list[int]) -> None:
        if not model.config.is_encoder_decoder:
            self.logits = self._causal(model, ids, prompt)
            return
        width = max(map(len, ids)) + 1
        answers = torch.tensor([[START, *row, *[EOS] * (width - 1 - len(row))] for row in ids])
        with torch.no_grad():
            prompts = torch.tensor([prompt]).expand(len(ids), -1)
            logits = model(input_ids=prompts, decoder_input_ids=answers, use_cache=False).logits
        self.logits = {tuple(row[:t]): logits[i, t] for i, row in enumerate(ids) for t in range(len(row) + 1)}

    def _causal(self, model: Any, ids: Sequence[Sequence[int]], prompt: list[int]) -> dict[tuple[int, ...], Any]:
        found = {}
        for row in ids:
            tokens = [*prompt, EOS, *row]
            places = plain_places(tokens, model.config.item_slots)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens]), position_ids=torch.tensor([places]),
                               attention_mask=torch.ones(1, len(tokens)), use_cache=False).logits[0]  # fmt: skip
            found |= {tuple(row[:t]): logits[len(prompt) + t] for t in range(len(row) + 1)}
        return found

    def after(self, prefix: Sequence[int], children: Sequence[int] | None) -> dict[int, float]:
        """Under the softmax over the whole vocabulary, or under one over `children`."""
        logits = self.logits[tuple(prefix)]
        if children is None:
            return dict(enumerate(logits.log_softmax(-1).tolist()))
        return dict(zip(children, logits[list(children)].log_softmax(-1).tolist(), strict=True))


def score_every_item(
    model: Any, ids: Sequence[Sequence[int]], prompt: list[int], *, length_penalty: float, normalize: str
) -> list[float]:
    """The score of every item, path by path."""
    trie, step = DictionaryTrie(ids, range(len(ids))), NextToken(model, ids, prompt)
    scores = []
    for row in ids:
        path = [*row, EOS]
        total = 0.0
        for t, token in enumerate(path):
            total += step.after(path[:t], trie.children(path[:t]) if normalize == "trie" else None)[token]
        scores.append(total / len(path) ** length_penalty)
    return scores


def plain_beam_search(
    model: Any,
    ids: Sequence[Sequence[int]],
    prompt: list[int],
    *,
    k: int,
    beams: int,
    length_penalty: float,
    normalize: str,
    valid: Collection[int],
) -> list[tuple[int, float]]:
    """The rules of beam search in plain Python, one user and one prefix at a time, with no stopping early."""
    every, own = DictionaryTrie(ids, range(len(ids))), DictionaryTrie(ids, valid)
    item_of = {(*row, EOS): item for item, row in enumerate(ids)}
    step = NextToken(model, ids, prompt)
    running: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[tuple[tuple[int, ...], float]] = []
    while running:
        continuations = []
        for prefix, score in running:
            over = every.children(prefix) if normalize == "trie" else None
            log_probs = step.after(prefix, over)
            continuations += [((*prefix, token), score + log_probs[token]) for token in own.children(prefix)]
        continuations.sort(key=lambda pair: -pair[1])
        continuations = continuations[: 2 * beams]
        for path, score in continuations[:beams]:
            if path[-1] == EOS:
                finished.append((path, score / len(path) ** length_penalty))
        finished = sorted(finished, key=lambda pair: -pair[1])[:beams]
        running = [pair for pair in continuations if pair[0][-1] != EOS][:beams]
    return [(item_of[path], score) for path, score in finished[:k]]
