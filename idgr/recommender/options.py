"""What to train a recommender for, and how it is validated. Imports nothing that takes time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from idgr.options import TRAINING, UNSET, Option, Role, StageOptions, option

VALID_K = 10

ValidUsers = Annotated[int, Option("Users to validate on; 0 for all.", panel=TRAINING, at_least=0)]
Patience = Annotated[
    int, Option("Stop after so many epochs without a better NDCG@10; 0 for never.", panel=TRAINING, at_least=0)
]


PROMPTS = "Prompts"
Paper = Annotated[
    bool, Option("Take the paper's settings where you give none, not those that did best here.", role=Role.RUN)
]


@dataclass(frozen=True, kw_only=True)
class PromptOptions(StageOptions):
    """What a recommender reads of a history."""

    templates: str | None = option(
        "Prompt templates, one a line, with {history}; else idgr's ten.", None, PROMPTS, role=Role.INPUT
    )
    max_history: int = option("Newest history items that are shown: 20; causal 50.", UNSET, PROMPTS, at_least=1)
    max_prompt_tokens: int = option("Length of a prompt; the oldest items go.", 512, PROMPTS, at_least=1)
    user_ids: Literal["none", "history"] = option(
        "Whether prompts begin with the user's ID, made of the history shown.", "none", PROMPTS
    )
    history: Literal["shown", "none"] = option("none: the user's ID stands for the history.", "shown", PROMPTS)


@dataclass(frozen=True, kw_only=True)
class ValidationOptions(StageOptions):
    """How a recommender is validated, and how long it may go without a better epoch."""

    valid_users: ValidUsers = 2000
    valid_beams: int = option("Beams of the search on validation.", 20, TRAINING, at_least=VALID_K)
    patience: Patience = 0


@dataclass(frozen=True, kw_only=True)
class RecommenderOptions(ValidationOptions):
    """What to train a recommender for.

    Attributes:
        objective: cross-entropy over the whole vocabulary ("full", the paper's) or over the valid children ("trie").
        reorder: of a causal model: how far items of a training sequence are moved (`idgr.recommender.sequences`).
    """

    objective: Literal["full", "trie"] = option(
        "Softmax over the valid children (trie, the default) or all tokens (full).", "full", TRAINING
    )
    reorder: float = option("causal: places by which an item is moved, anew each epoch.", 0.0, TRAINING, at_least=0)
