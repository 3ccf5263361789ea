"""A stage as a Python function with keyword arguments: those of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from idgr.options import option_fields

# By the name in `idgr`: the stage's module, its options and the function that runs it.
FUNCTIONS = {
    "prepare_jsonl": ("prep", "JsonlOptions", "run"),
    "prepare_amazon": ("prep", "AmazonOptions", "run"),
    "prepare_yelp": ("prep", "YelpOptions", "run"),
    "prepare_movielens": ("prep", "MovielensOptions", "run"),
    "prepare_steam": ("prep", "SteamOptions", "run"),
    "prepare_amazon_m2": ("prep", "AmazonM2Options", "run"),
    "prepare_table": ("prep_table", "TableOptions", "run"),
    "make_demo": ("prep_made", "DemoOptions", "run_demo"),
    "train_first_generator": ("init_gen", "Options", "run"),
    "generate_ids": ("gen_ids", "Options", "run"),
    "train_recommender": ("train_rec", "Options", "run"),
    "train_adapter": ("train_adapter", "Options", "run"),
    "train_generator": ("train_gen", "Options", "run"),
    "alternate": ("alternate", "Options", "run"),
    "train_sasrec": ("train_sasrec", "Options", "run"),
    "train_two_tower": ("train_two_tower", "Options", "run"),
    "train_text_ranker": ("train_text_ranker", "Options", "run"),
    "recommend": ("recommend", "Options", "run"),
    "blend": ("blend", "Options", "run"),
    "evaluate": ("evaluate", "Options", "run"),
    "compare": ("compare", "Options", "run"),
    "zeroshot": ("zeroshot", "Options", "run"),
    "audit": ("audit", "Options", "run"),
    "push": ("push", "Options", "run"),
    "pull": ("pull", "Options", "run"),
}


def as_function(name: str) -> Callable[..., Any]:
    """The function of that name, which takes a stage's options as keyword arguments and returns what the stage made.

    Raises:
        KeyError: there is none.
    """
    module, options, function = FUNCTIONS[name]
    stage = import_module(f"idgr.stages.{module}")
    kind, run = getattr(stage, options), getattr(stage, function)

    def call(**given: Any) -> Any:
        return run(kind(**given))

    fields = option_fields(kind)
    call.__name__ = call.__qualname__ = name
    call.__module__ = "idgr"
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, annotation=field.type)
            if field.is_required
            else inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
            )
            for field in fields
        ]
    )
    arguments = "\n".join(f"    {field.name}: {field.option.help}" for field in fields)
    call.__doc__ = f"{inspect.getdoc(kind)}\n\nArgs:\n{arguments}\n\n{_results(run)}"
    return call


def _results(run: Callable[..., Any]) -> str:
    """What the docstring of a stage's `run` says of returns and errors."""
    text = inspect.getdoc(run) or ""
    return text[text.index("Returns:") :] if "Returns:" in text else ""
