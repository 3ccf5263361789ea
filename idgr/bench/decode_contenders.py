"""Those who decode in `bench decode`, each in a process of its own: `transformers` and idgr, constrained and not.

Legend: B users, K beams, C slots of the decoder's memory, V vocabulary.

Each loads the model, gets warm on a few users, and then answers all of them against the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from idgr.decoding.beam import BeamSearch, Ranking, SearchOptions, evaluating
from idgr.decoding.decoder import Decoder
from idgr.decoding.exact import ExactSearch
from idgr.decoding.trie import Trie, load_trie
from idgr.errors import IdgrError
from idgr.models.backbone import load_backbone, load_causal_backbone
from idgr.models.device import pick_device
from idgr.models.llama import item_slots, position_ids

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


@dataclass(frozen=True)
class Task:
    """What a contender does.

    Attributes:
        folder: of the model.
        causal: whether it is a Llama, whose prompts and answers are one sequence, or a T5.
        trie_file: the IDs, as `save_trie` wrote them with an empty fingerprint.
        prompts: the tokens that each user's history is shown as.
        excluded: the items of each user's history.
        options: of the search.
        batch_size: users at a time.
        device: auto, cpu or cuda.
        dtype: fp32 or bf16.
        build_seconds: how long the tree took to build.
        one_by_one: whether to take the time of each user, one at a time.
    """

    folder: str
    causal: bool
    trie_file: str
    prompts: list[list[int]]
    excluded: list[list[int]]
    options: SearchOptions
    batch_size: int
    device: str
    dtype: str
    build_seconds: float
    one_by_one: bool = False


@dataclass(frozen=True)
class Done:
    """What a contender made of it.

    Attributes:
        rankings: of each user; empty from searches without constraint.
        seconds: of all users; with `Task.one_by_one`, of each.
        cpu_seconds: of all users, of all threads.
        evaluated: the tokens that went through the decoder; 0 where not counted.
        share_in_passes: which part of the time the decoder was asked; 0 where not taken.
        device_mib: the peak of a GPU's memory.
    """

    rankings: list[Ranking]
    seconds: list[float]
    cpu_seconds: float
    evaluated: int
    share_in_passes: float
    device_mib: float


Answer = Callable[[Sequence[int]], list[Ranking]]  # users, by their places in the task


def transformers_constrained() -> Callable[[Task], Done]:
    return lambda task: run_contender(task, lambda model, trie: _transformers(task, model, trie))


def transformers_free() -> Callable[[Task], Done]:
    return lambda task: run_contender(task, lambda model, trie: _transformers(task, model, trie, constrained=False))


def idgr_constrained() -> Callable[[Task], Done]:
    def answers(task: Task, model: T5ForConditionalGeneration, trie: Trie) -> tuple[Answer, BeamSearch]:
        search = BeamSearch(model, trie, task.options)
        return _of_search(task, search), search

    return lambda task: run_contender(task, lambda model, trie: answers(task, model, trie))


def idgr_exact() -> Callable[[Task], Done]:
    return lambda task: run_contender(
        task, lambda model, trie: (_of_search(task, ExactSearch(model, trie, task.options)), None)
    )


def idgr_free() -> Callable[[Task], Done]:
    def answers(task: Task, model: T5ForConditionalGeneration, trie: Trie) -> tuple[Answer, FreeSearch]:
        search = FreeSearch(model, task.options.beams, steps=round(float(trie.lengths.mean())))

        def answer(users: Sequence[int]) -> list[Ranking]:
            for first in range(0, len(users), task.batch_size):
                search.search([task.prompts[user] for user in users[first : first + task.batch_size]])
            return []

        return answer, search

    return lambda task: run_contender(task, lambda model, trie: answers(task, model, trie))


class PassClock:
    """The time that a search spends in its decoder: in the passes through the model and their normalisers."""

    def __init__(self, decoder: Decoder) -> None:
        self.device, self.seconds = decoder.device, 0.0
        for name in ("read", "only", "extend", "log_normaliser"):
            setattr(decoder, name, self._timed(getattr(decoder, name)))

    def now(self) -> float:
        """Seconds in which this thread worked, which others on the machine disturb least; with a GPU, those of the
        wall, once it has done what it was asked."""
        _wait(self.device)
        return time.perf_counter() if self.device.type == "cuda" else time.thread_time()

    def _timed(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            started = self.now()
            answer = ask(*given)
            self.seconds += self.now() - started
            return answer

        return call


class FreeSearch:
    """Beam search without a tree, at the same cost per token as ours: the same decoder and the same memory.

    Args:
        steps: the number of tokens of every answer; none ends before.
    """

    def __init__(self, model: T5ForConditionalGeneration, beams: int, steps: int) -> None:
        self.model, self.beams, self.steps = model, beams, steps
        self.evaluated = 0
        with torch.inference_mode():
            self.decoder = Decoder(model, steps)

    def search(self, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, K, steps] tokens and [B, K] sums of log-probabilities, best first."""
        decoder, device, B = self.decoder, self.decoder.device, len(prompts)
        with evaluating(self.model):
            memory = decoder.read(prompts)
            token_BK = torch.full((B, 1), decoder.start, device=device)
            score_BK = torch.zeros(B, 1, device=device)
            sees_BKC = torch.zeros(B, 1, 0, dtype=torch.bool, device=device)
            answer_BKT = torch.zeros(B, 1, 0, dtype=torch.long, device=device)
            for step in range(self.steps):
                K = token_BK.shape[1]
                own_KK = torch.eye(K, dtype=torch.bool, device=device)
                sees_BKC = torch.cat([sees_BKC, own_KK.expand(B, K, K)], dim=-1)
                cell = torch.arange(B * K, device=device)
                hidden = decoder.extend(memory, token_BK, torch.full_like(token_BK, step), sees_BKC, cell)
                self.evaluated += B * K
                logit_RV = torch.mm(hidden, decoder.head_VD.T).float()
                best = logit_RV.topk(self.beams)
                log_prob = (best.values - logit_RV.logsumexp(-1, keepdim=True)).view(B, K, -1)
                score_BK, place = (score_BK[..., None] + log_prob).flatten(1).topk(self.beams)
                parent = place // self.beams
                token_BK = best.indices.view(B, -1).gather(1, place)
                sees_BKC = sees_BKC.gather(1, parent[..., None].expand(-1, -1, sees_BKC.shape[-1]))
                earlier = answer_BKT.gather(1, parent[..., None].expand(-1, -1, step))
                answer_BKT = torch.cat([earlier, token_BK[..., None]], dim=-1)
        return answer_BKT, score_BK


def _of_search(task: Task, search: BeamSearch | ExactSearch) -> Answer:
    def answer(users: Sequence[int]) -> list[Ranking]:
        prompts, excluded = [task.prompts[user] for user in users], [task.excluded[user] for user in users]
        return search.search(prompts, excluded, batch_size=task.batch_size)

    return answer


def _transformers(
    task: Task, model: T5ForConditionalGeneration, trie: Trie, *, constrained: bool = True
) -> tuple[Answer, None]:
    """`generate` over a dictionary of dictionaries, as its users have it; items of the history are ranked and left out
    by the caller, since a dictionary has no subsets."""
    ids = trie.tokens()
    item_of = {tuple(row): item for item, row in enumerate(ids)}
    root = _dictionary(ids, trie.eos)
    generator: Any = model
    pad = generator.config.pad_token_id
    pad = trie.eos if pad is None else pad
    # An answer stands behind the start token of a decoder, or behind the prompt and the EOS that asks for an item.
    asked = [[*prompt, trie.eos] for prompt in task.prompts] if task.causal else task.prompts

    def allowed_in(users: Sequence[int], begin: int) -> Callable[[int, torch.Tensor], list[int]]:
        barred: list[dict[int, Any]] = [
            _without(root, [ids[item] for item in task.excluded[user]], trie.eos) for user in users
        ]

        def allowed(user: int, tokens: torch.Tensor) -> list[int]:
            node = barred[user]
            for token in tokens[begin:].tolist():
                node = node.get(token, {})
            return list(node) or [pad]

        return allowed

    options = task.options
    new_tokens: dict[str, Any] = {"max_new_tokens": trie.depth}
    if not constrained:
        steps = round(float(trie.lengths.mean()))
        new_tokens = {"max_new_tokens": steps, "min_new_tokens": steps}

    def batch(users: Sequence[int]) -> list[Ranking]:
        rows = [asked[user] for user in users]
        prompts, mask = _padded(rows, pad, left=task.causal)
        begin, places = 1, {}
        if task.causal:  # items may begin at places of their own; `generate` counts on from the last one
            slots = item_slots(generator)
            along = [position_ids(np.array([row]), trie.eos, slots)[0].tolist() for row in rows]
            begin, places = prompts.shape[1], {"position_ids": _padded(along, 0, left=True)[0].to(model.device)}
        found = generator.generate(
            input_ids=prompts.to(model.device),
            attention_mask=mask.to(model.device),
            pad_token_id=pad,
            eos_token_id=trie.eos,
            num_beams=options.beams,
            num_return_sequences=options.k,
            do_sample=False,
            length_penalty=options.length_penalty,
            early_stopping="never",
            prefix_allowed_tokens_fn=allowed_in(users, begin) if constrained else None,
            return_dict_in_generate=True,
            output_scores=True,
            **new_tokens,
            **places,
        )
        if not constrained:
            return []
        answers, scores = found.sequences[:, begin:].tolist(), found.sequences_scores.tolist()
        return [
            _ranking(answers[first : first + options.k], scores[first : first + options.k], item_of, trie.eos)
            for first in range(0, len(answers), options.k)
        ]

    def answer(users: Sequence[int]) -> list[Ranking]:
        by_length = sorted(users, key=lambda user: -len(task.prompts[user]))
        found: dict[int, Ranking] = {}
        with torch.inference_mode():
            for first in range(0, len(by_length), task.batch_size):
                some = by_length[first : first + task.batch_size]
                found.update(zip(some, batch(some), strict=constrained))
        return [found[user] for user in users] if constrained else []

    return answer, None


def _dictionary(ids: Sequence[Sequence[int]], eos: int) -> dict[int, Any]:
    """The IDs as a dictionary of dictionaries by token."""
    root: dict[int, Any] = {}
    for row in ids:
        node = root
        for token in [*row, eos]:
            node = node.setdefault(token, {})
    return root


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Token rows and their mask, [B, S] each, filled up on one side."""
    longest = max(map(len, rows))
    prompts, mask = torch.full((len(rows), longest), pad), torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(len(row))
        prompts[number, place], mask[number, place] = torch.tensor(row), 1
    return prompts, mask


def _ranking(
    rows: Sequence[list[int]], scores: Sequence[float], item_of: dict[tuple[int, ...], int], eos: int
) -> Ranking:
    """The items that a user's sequences name, each once, best first."""
    items: dict[int, float] = {}
    for row, score in zip(rows, scores, strict=True):
        path = tuple(row[: row.index(eos)]) if eos in row else ()
        # Where there are fewer items than beams, generate fills up with repetitions at minus a billion.
        if path in item_of and score > -1e8:
            items.setdefault(item_of[path], score)
    return Ranking(list(items), list(items.values()))


def _without(root: dict[int, Any], rows: Sequence[Sequence[int]], eos: int) -> dict[int, Any]:
    """The tree without some items, copying only what lies on their paths."""
    root = dict(root)
    for row in rows:
        above: list[tuple[dict[int, Any], int]] = []
        node = root
        for token in [*row, eos]:
            above.append((node, token))
            node[token] = dict(node[token])
            node = node[token]
        for node, token in reversed(above):
            if node[token]:
                break
            del node[token]
    return root


def run_contender(
    task: Task,
    prepare: Callable[[T5ForConditionalGeneration, Trie], tuple[Answer, BeamSearch | FreeSearch | None]],
) -> Done:
    """Load the model and the tree, get warm, and take the time of the answers to all users.

    Args:
        prepare: given both, what answers, and the search that counts its tokens, if one does.

    Raises:
        IdgrError: the tree is of other IDs.
    """
    device = pick_device(task.device)
    model = (load_causal_backbone if task.causal else load_backbone)(task.folder).model
    model.to(device=device, dtype=torch.bfloat16 if task.dtype == "bf16" else torch.float32).eval()
    trie = load_trie(task.trie_file, "")
    if trie is None:
        raise IdgrError("is of other IDs", "run the benchmark again, which makes it anew", where=task.trie_file)
    answer, counting = prepare(model, trie)
    everyone = list(range(len(task.prompts)))
    # What is compiled is got warm on all sizes that are asked.
    answer(everyone if task.options.compile else everyone[: task.batch_size])
    before = counting.evaluated if counting is not None else 0
    clock = PassClock(counting.decoder) if isinstance(counting, BeamSearch) else None
    began = clock.now() if clock is not None else 0.0
    rankings, seconds, worked = [], [], time.process_time()
    for users in [[user] for user in everyone] if task.one_by_one else [everyone]:
        _wait(device)
        started = time.perf_counter()
        rankings += answer(users)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    cpu_seconds = time.process_time() - worked
    share = clock.seconds / (clock.now() - began) if clock is not None else 0.0
    evaluated = counting.evaluated - before if counting is not None else 0
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0
    return Done(rankings, seconds, cpu_seconds, evaluated, share, peak)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
