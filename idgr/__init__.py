"""Generative recommendation with learned textual item IDs.

Most commands are functions here too, which take the options as keyword arguments, such as
`idgr.train_recommender(train="train.jsonl", ids="ids.jsonl", output="rec/")`; `Recommender` answers in memory. Nothing
heavy is imported before something is asked for.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name == "Recommender":
        from idgr.api import Recommender

        return Recommender
    from idgr.stages.functions import FUNCTIONS, as_function

    if name not in FUNCTIONS:
        raise AttributeError(f"module 'idgr' has no attribute {name!r}")
    function = as_function(name)
    globals()[name] = function
    return function


def __dir__() -> list[str]:
    from idgr.stages.functions import FUNCTIONS

    return sorted([*globals(), "Recommender", *FUNCTIONS])
