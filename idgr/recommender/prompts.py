"""Prompts as a recommender was trained with: its templates, its length, and the users' IDs if it had them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from idgr.errors import IdgrError, UsageError
from idgr.formats.rec_folder import RecommenderFacts, read_recommender_facts
from idgr.formats.records import read_items
from idgr.formats.run_info import hash_input
from idgr.ids.options import GenerationOptions
from idgr.ids.user_ids import UserIds
from idgr.models.backbone import Backbone, arch_of, load_backbone
from idgr.models.llama import usual_separator
from idgr.models.separator import NEWLINE, separator_token
from idgr.prompts.histories import HistoryRenderer
from idgr.prompts.rendering import PromptRenderer
from idgr.prompts.templates import load_templates

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def facts_of(rec: str, *, force: bool, max_history: int | None = None) -> tuple[RecommenderFacts, bool]:
    """How a recommender was trained, and whether it was; with `force` one that was not is taken as it is.

    Args:
        max_history: shows so many items instead.

    Raises:
        IdgrError: the folder is not a recommender's.
    """
    untrained = RecommenderFacts("full", load_templates(), 20, 512, "") if force else None
    facts = read_recommender_facts(rec, untrained)
    trained = facts is not untrained
    if not trained:
        facts = replace(facts, arch=arch_of(rec))
    if max_history is not None:
        facts = replace(facts, max_history=max_history)
    return facts, trained


def separated(
    facts: RecommenderFacts,
    given: Literal["eos", "newline"] | None,
    backbone: Backbone,
    rec: str,
    *,
    trained: bool,
) -> RecommenderFacts:
    """The facts with the separator that is asked for, or that does for a model which idgr has not trained.

    Raises:
        UsageError: another was asked for than that of the training, or one for a T5.
    """
    if facts.arch != "causal":
        if given is not None:
            what = f"--separator given, but {rec} is a T5, whose histories stand in templates"
            raise UsageError(what, "leave it out")
        return facts
    if trained and given not in (None, facts.separator):
        what = f"--separator {given}, but {rec} was trained with {facts.separator}"
        raise UsageError(what, "leave it out, or train it so with `idgr train-rec --separator`")
    if given is None and not trained:
        model: Any = backbone.model
        given = usual_separator(model, backbone.tokenizer)
    return replace(facts, separator=given or facts.separator)


def user_ids_of(
    facts: RecommenderFacts,
    gen: str | None,
    items: str | None,
    keys: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    *,
    strange: bool = False,
) -> UserIds | None:
    """What gives the user IDs that a recommender was trained with; None where it was trained without.

    Args:
        gen: the folder of the ID generator.
        items: items.jsonl.
        keys: the items in the order of their numbers.
        tokenizer: the recommender's.
        strange: whether another generator will do than that of the training.

    Raises:
        IdgrError: it is another generator, or an item has no text.
        UsageError: generator or items are not given, or given without need.
    """
    if facts.user_ids == "none":
        if gen is not None or items is not None:
            raise UsageError("--gen or --items given, but no user IDs are wanted", "leave them out")
        return None
    if gen is None or items is None:
        raise UsageError("user IDs need --gen and --items", "give the ID generator and items.jsonl")
    if not strange and hash_input(gen)["sha256"] != facts.user_gen:
        raise IdgrError(
            "is not the generator that made the user IDs of the training", "give that, or --force", where=gen
        )
    texts = item_texts(items, keys)
    backbone = load_backbone(gen)
    generator = Backbone(backbone.model.to(device).eval(), backbone.tokenizer)
    return UserIds(generator, texts, tokenizer, GenerationOptions())


def item_texts(items: str, keys: Sequence[str]) -> list[str]:
    """The text of each item that is asked for, from `items.jsonl`. Raises `IdgrError` where it has no such item."""
    text_of = {item.item_id: item.text for item in read_items(items)}
    for key in keys:
        if key not in text_of:
            raise IdgrError(f"has no item {key!r}", "give the items that the IDs were made for", where=items)
    return [text_of[key] for key in keys]


def texts_or_keys(items: str, keys: Sequence[str]) -> list[str]:
    """The same; an item without a text is called by its key, as `gen-ids` does."""
    return [text or key.lower() for text, key in zip(item_texts(items, keys), keys, strict=True)]


def renderer_of(
    facts: RecommenderFacts,
    tokenizer: PreTrainedTokenizerBase,
    id_tokens: Sequence[Sequence[int]],
    user_ids: UserIds | None,
) -> PromptRenderer:
    """What renders prompts as in a T5's training, for its tokenizer and the tokens of the items' IDs."""
    return PromptRenderer(
        tokenizer,
        facts.templates,
        id_tokens,
        facts.max_history,
        facts.max_prompt_tokens,
        user_ids=user_ids,
        user_room=user_ids.room if user_ids is not None else 0,
        show_history=facts.history == "shown",
        causal_encoder=facts.causal_encoder,
    )


def either_renderer_of(
    facts: RecommenderFacts,
    tokenizer: PreTrainedTokenizerBase,
    id_tokens: Sequence[Sequence[int]],
    user_ids: UserIds | None,
) -> PromptRenderer | HistoryRenderer:
    """What renders histories as in a recommender's training, whichever its architecture is."""
    if facts.arch == "causal":
        return causal_renderer_of(facts, tokenizer, id_tokens)
    return renderer_of(facts, tokenizer, id_tokens, user_ids)


def causal_renderer_of(
    facts: RecommenderFacts, tokenizer: PreTrainedTokenizerBase, id_tokens: Sequence[Sequence[int]]
) -> HistoryRenderer:
    """What renders histories as in a causal model's training."""
    end = separator_token(tokenizer, facts.separator)
    leads = facts.separator != NEWLINE
    return HistoryRenderer(end, id_tokens, facts.max_history, facts.max_prompt_tokens, leads=leads)
