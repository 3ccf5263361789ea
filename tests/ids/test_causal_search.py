"""The search with a Llama: against a plain one that computes the whole sequence anew, and against transformers."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from idgr.errors import UsageError
from idgr.ids.candidates import Candidates, common_start
from idgr.ids.diverse_beam import Found, diverse_beam_search
from idgr.ids.options import BeamOptions
from idgr.ids.schedule import Limits
from idgr.models.llama import read_weights
from idgr.models.llama_cache import LlamaReader

EOS, ENDS, VOCABULARY = 1, [1, 4, 7], 40
RNG = np.random.default_rng(0)
SHARED = [8, 9, 30, 12]
# The first is as short as a prompt can be: there is nothing between what all share and its last token.
PROMPTS = [np.array([*SHARED, *RNG.integers(8, VOCABULARY, n)], dtype=np.int32) for n in (1, 2, 5, 9, 3, 16)]


def build(seed: int = 0, sharpness: float = 0.3, **changes: Any) -> Any:
    """A Llama of random weights whose keys and values are shared by two heads of queries."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": sharpness,
        "tie_word_embeddings": False,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": EOS,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**(shape | changes))).eval()


MODELS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one for all": {"num_key_value_heads": 1},
    "tied, wide": {"tie_word_embeddings": True, "head_dim": 16},
}
LIMITS = [
    *(Limits(0.1, 1, 10), Limits(0.7, 1, 10), Limits(0.4, 5, 8)),
    *(Limits(0.0, 1, 3), Limits(1.0, 6, 12), Limits(2.0, 1, 6)),
]


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    return build(seed=len(request.param), **MODELS[request.param])


def search(
    model: Any, prompts: list[Any], limits: list[Limits], options: BeamOptions, ends: list[int] = ENDS
) -> list[Found]:
    reader = LlamaReader(read_weights(model, torch.double), common_start(prompts), ends)
    with torch.inference_mode():
        return diverse_beam_search(reader.batch(*reader.read(prompts), prompts), limits, options)


class Plain:
    """Diverse beam search as it is defined, for one prompt; the model reads the whole sequence for every token."""

    def __init__(self, model: Any, ends: list[int]) -> None:
        self.model, self.ends = build_double(model), ends
        self.known: dict[tuple[int, ...], list[float]] = {}

    def next_tokens(self, tokens: list[int]) -> list[float]:
        """The logarithm of each token's probability; that of all ends together stands at the first."""
        if tuple(tokens) not in self.known:
            with torch.no_grad():
                found = self.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            ending = found[self.ends].logsumexp(0)
            found[self.ends] = -torch.inf
            found[self.ends[0]] = ending
            self.known[tuple(tokens)] = found.tolist()
        return self.known[tuple(tokens)]

    def search(self, prompt: list[int], limits: Limits, options: BeamOptions) -> tuple[list[list[int]], list[float]]:
        n_groups, n = options.groups, options.beams // options.groups
        beams: list[list[tuple[float, list[int]]]] = [[(0.0, [])] for _ in range(n_groups)]
        finished: list[list[tuple[float, list[int]]]] = [[] for _ in range(n_groups)]
        done = [False] * n_groups
        for length in range(1, limits.max_tokens):
            used: Counter[int] = Counter()
            for g in range(n_groups):
                if done[g]:
                    continue
                ranked = []
                for score, tokens in beams[g]:
                    for token, logp in enumerate(self.next_tokens([*prompt, *tokens])):
                        ruled_out = token == self.ends[0] and length < limits.min_tokens
                        if not ruled_out and not repeats([*tokens, token], options.no_repeat_ngram):
                            ranked.append((score + logp - limits.penalty * used[token], tokens, token))
                ranked.sort(key=lambda one: -one[0])
                beams[g] = []
                for rank, (score, tokens, token) in enumerate(ranked[: 2 * n]):
                    if token != self.ends[0]:
                        beams[g].append((score, [*tokens, token]))
                    elif rank < n:
                        finished[g].append((score / length**options.length_penalty, tokens))
                beams[g] = beams[g][:n]
                finished[g] = sorted(finished[g], key=lambda one: -one[0])[:n]
                used.update(tokens[-1] for _, tokens in beams[g])
                best = ranked[0][0] / length**options.length_penalty
                done[g] = len(finished[g]) == n and finished[g][-1][0] >= best
        for g in range(n_groups):
            if not done[g]:
                finished[g] += [(score / len(tokens) ** options.length_penalty, tokens) for score, tokens in beams[g]]
            finished[g] = sorted(finished[g], key=lambda one: -one[0])[:n]
        found = [one for group in finished for one in group]
        return [tokens for _, tokens in found], [score for score, _ in found]


def build_double(model: Any) -> Any:
    twin = type(model)(model.config).double().eval()
    twin.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    for module in twin.modules():
        if type(module).__name__ == "LlamaRMSNorm":  # which transformers computes in single precision
            module.forward = partial(norm, module)
    return twin


def norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    return module.weight * x * (x.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


def repeats(tokens: list[int], n: int) -> bool:
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return n > 0 and len(set(runs)) < len(runs)


SHAPES = [
    BeamOptions(5, 5),
    BeamOptions(6, 3, length_penalty=0.5),
    BeamOptions(4, 1, no_repeat_ngram=1),
    BeamOptions(4, 2, length_penalty=2.0, no_repeat_ngram=2),
]


@pytest.mark.parametrize("options", SHAPES, ids=str)
def test_finds_what_a_plain_search_finds(model: Any, options: BeamOptions) -> None:
    plain = Plain(model, ENDS)
    found = search(model, PROMPTS, LIMITS, options)
    for prompt, limit, result in zip(PROMPTS, LIMITS, found, strict=True):
        tokens, scores = plain.search(prompt.tolist(), limit, options)
        assert result.tokens == tokens
        assert result.scores == pytest.approx(scores, abs=1e-9, rel=1e-9)
        alone = search(model, [prompt], [limit], options)[0]
        assert alone.tokens == tokens
        assert alone.scores == pytest.approx(scores, abs=1e-9, rel=1e-9)


@pytest.mark.parametrize("min_tokens", [1, 6])
def test_one_beam_is_the_greedy_answer_of_transformers(model: Any, min_tokens: int) -> None:
    twin = build_double(model)
    found = search(model, PROMPTS, [Limits(0.0, min_tokens, 10)] * len(PROMPTS), BeamOptions(1, 1), ends=[EOS])
    for prompt, result in zip(PROMPTS, found, strict=True):
        theirs = twin.generate(
            torch.from_numpy(prompt[None].astype(np.int64)), num_beams=1, do_sample=False, max_new_tokens=9,
            min_new_tokens=min_tokens - 1, eos_token_id=EOS, pad_token_id=0, attention_mask=torch.ones(1, len(prompt)),
        )[0, len(prompt) :].tolist()  # fmt: skip
        assert result.tokens[0] == (theirs[: theirs.index(EOS)] if EOS in theirs else theirs)


def test_answers_end_in_different_ways() -> None:
    """The cases above hold answers that end, and others that are cut off."""
    found = search(build(seed=7), PROMPTS, [Limits(0.1, 1, 10)] * len(PROMPTS), BeamOptions())
    lengths = {len(tokens) for result in found for tokens in result.tokens}
    assert 9 in lengths
    assert len(lengths) > 2


def test_what_all_prompts_begin_with() -> None:
    assert common_start(PROMPTS).tolist() == SHARED
    assert common_start(PROMPTS[:1]).tolist() == SHARED  # the last token is not among it
    assert common_start([np.array([1, 2], dtype=np.int32), np.array([3, 2], dtype=np.int32)]).tolist() == []


@pytest.mark.parametrize("sharpness", [0.3, 0.02])
def test_the_batch_size_does_not_matter(sharpness: float) -> None:
    model = build(sharpness=sharpness)  # of the flat one, many decisions are close
    wanted = [(place, Limits(penalty, 1, 8)) for place in range(len(PROMPTS)) for penalty in (0.1, 0.5)]
    made = [Candidates(model, PROMPTS, BeamOptions(), size, ENDS) for size in (1, 5, 12)]
    found = [one.search(wanted) for one in made]
    assert found[0] == found[1] == found[2]
    assert found[0] == made[0].search(wanted)  # from what is kept of the prompts


def test_a_prompt_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    usual = LlamaReader.read

    def counted(reader: LlamaReader, prompts: Any) -> Any:
        read.extend(map(len, prompts))
        return usual(reader, prompts)

    monkeypatch.setattr(LlamaReader, "read", counted)
    search = Candidates(build(), PROMPTS, BeamOptions(), 3, ENDS, close=0.0)
    wanted = [(place, Limits(penalty, 1, 8)) for place in range(len(PROMPTS)) for penalty in (0.1, 0.5)]
    assert search.search(wanted) == search.search(wanted)
    assert sorted(read) == sorted(map(len, PROMPTS))


def test_more_beams_than_tokens_that_go_on_are_refused() -> None:
    most = (VOCABULARY - len(ENDS) - 1) // 2
    Candidates(build(), PROMPTS, BeamOptions(most, 1), 6, ENDS).search([(0, Limits(0.1, 3, 5))])
    with pytest.raises(UsageError, match=f"give at most {most} a group"):
        Candidates(build(), PROMPTS, BeamOptions(most + 1, 1), 6, ENDS)
