"""Prompts: where each ID stands, what goes when a prompt is too long, and what hostile IDs cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.errors import IdgrError
from idgr.models.tokenizer import decode, encode, load_tokenizer, train_tokenizer
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import load_templates, template_words

IDS = ["chi pro hair dryer", "red polish", "soap", "aloe face cream 50 ml", "指甲油", "ein </s> ende", "{history} slot"]
TEMPLATES = load_templates()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([*IDS, *IDS, *template_words(TEMPLATES)], 500)


@pytest.fixture(scope="module")
def id_tokens(tokenizer: Any) -> list[list[int]]:
    return encode(tokenizer, IDS)


def test_spans_cover_the_ids_and_the_rest_is_the_template(tokenizer: Any, id_tokens: list[list[int]]) -> None:
    renderer = PromptRenderer(tokenizer, TEMPLATES, id_tokens)
    for template in range(len(TEMPLATES)):
        prompt = renderer.render([3, 0, 3, 4], template)
        assert [item for item, _, _ in prompt.spans] == [3, 0, 3, 4]
        for item, start, end in prompt.spans:
            assert prompt.tokens[start:end] == id_tokens[item]
        shown = TEMPLATES[template].format(history=", ".join(IDS[item] for item in (3, 0, 3, 4)))
        assert decode(tokenizer, [prompt.tokens])[0].strip() == shown
        assert prompt.tokens[-1] == tokenizer.eos_token_id


def test_ids_begin_at_the_same_tokens_whatever_stands_around(tokenizer: Any, id_tokens: list[list[int]]) -> None:
    renderer = PromptRenderer(tokenizer, ["{history}", "say: {history}?"], id_tokens)
    assert renderer.render([1], 0).tokens == [*id_tokens[1], tokenizer.eos_token_id]
    assert decode(tokenizer, [renderer.render([1, 2], 1).tokens]) == ["say: red polish, soap?"]
    assert renderer.render([], 0).tokens == [tokenizer.eos_token_id]


def test_only_the_newest_items_are_shown(tokenizer: Any, id_tokens: list[list[int]]) -> None:
    renderer = PromptRenderer(tokenizer, TEMPLATES, id_tokens, max_history=2)
    assert [item for item, _, _ in renderer.render([0, 1, 2, 3], 0).spans] == [2, 3]


def test_a_prompt_may_be_exactly_full(tokenizer: Any, id_tokens: list[list[int]]) -> None:
    whole = len(PromptRenderer(tokenizer, ["{history}"], id_tokens).render([0, 1, 2], 0).tokens)
    full = PromptRenderer(tokenizer, ["{history}"], id_tokens, max_tokens=whole).render([0, 1, 2], 0)
    assert [item for item, _, _ in full.spans] == [0, 1, 2]
    short = PromptRenderer(tokenizer, ["{history}"], id_tokens, max_tokens=whole - 1).render([0, 1, 2], 0)
    assert [item for item, _, _ in short.spans] == [1, 2]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    history=st.lists(st.integers(0, len(IDS) - 1), max_size=30), template=st.integers(0, 9), room=st.integers(45, 90)
)
def test_the_oldest_items_go_first(
    tokenizer: Any, id_tokens: list[list[int]], history: list[int], template: int, room: int
) -> None:
    renderer = PromptRenderer(tokenizer, TEMPLATES, id_tokens, max_history=20, max_tokens=room)
    prompt = renderer.render(history, template)
    shown = [item for item, _, _ in prompt.spans]
    assert shown == history[len(history) - len(shown) :]
    assert len(prompt.tokens) <= room
    assert prompt.tokens.count(tokenizer.eos_token_id) == 1
    if len(shown) < min(20, len(history)):
        further = [*renderer.separator, *id_tokens[history[len(history) - len(shown) - 1]]]
        assert len(prompt.tokens) + len(further) > room, "one more item would have fitted"


def test_ids_that_cannot_fit_are_refused(tokenizer: Any, id_tokens: list[list[int]]) -> None:
    with pytest.raises(IdgrError, match="cannot hold the longest template"):
        PromptRenderer(tokenizer, TEMPLATES, id_tokens, max_tokens=8)


def test_ids_cannot_end_a_prompt_or_open_a_slot(tokenizer: Any, id_tokens: list[list[int]]) -> None:
    prompt = PromptRenderer(tokenizer, TEMPLATES, id_tokens).render([5, 6], 0)
    assert prompt.tokens.index(tokenizer.eos_token_id) == len(prompt.tokens) - 1
    assert "{history} slot" in decode(tokenizer, [prompt.tokens])[0]


def test_t5s_tokenizer_joins_as_it_would_tokenize() -> None:
    folder = Path(__file__).parents[2].parent / "shared" / "tokenizers" / "t5"
    if not folder.is_dir():
        pytest.skip("T5's tokenizer is not at ../shared/tokenizers/t5")
    tokenizer = load_tokenizer(str(folder))
    renderer = PromptRenderer(tokenizer, TEMPLATES, encode(tokenizer, IDS[:4]))
    for template, wording in enumerate(TEMPLATES):
        text = wording.format(history=", ".join([IDS[0], IDS[2]]))
        assert renderer.render([0, 2], template).tokens == [*encode(tokenizer, [text])[0], tokenizer.eos_token_id]
