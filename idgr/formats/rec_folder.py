"""What a recommender's folder tells of its training, so that it is shown prompts as it was then.

Knows the facts in `run.json`; weights and tokenizers it does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from idgr.errors import IdgrError
from idgr.formats.records import ItemId, ids_fingerprint
from idgr.formats.run_info import RUN_FILE, read_run


@dataclass(frozen=True)
class RecommenderFacts:
    """How a recommender was trained: its objective, its prompts, and a hash of the IDs it knows."""

    objective: str
    templates: list[str]
    max_history: int
    max_prompt_tokens: int
    ids_fingerprint: str


def read_recommender_facts(
    folder: str | os.PathLike[str], untrained: RecommenderFacts | None = None
) -> RecommenderFacts:
    """The facts that `idgr train-rec` left in `folder`.

    Args:
        untrained: what to take for a model that `idgr train-rec` has not made, if that is accepted.

    Raises:
        IdgrError: the folder is not a recommender's.
    """
    record = read_run(folder)
    if untrained is not None and record.get("command") != "train-rec":
        return untrained
    kinds = {"objective": str, "templates": list, "max_history": int, "max_prompt_tokens": int, "ids_fingerprint": str}
    facts: dict[str, Any] = {}
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise IdgrError(
                f"its {RUN_FILE} does not tell {name}", "give a folder that `idgr train-rec` wrote", where=folder
            )
        facts[name] = record[name]
    return RecommenderFacts(**facts)


def check_ids_known(
    facts: RecommenderFacts, ids: Iterable[ItemId], rec: str | os.PathLike[str], ids_file: str | os.PathLike[str]
) -> None:
    """Raise `IdgrError` where a recommender was trained on other IDs than these."""
    if ids_fingerprint(ids) != facts.ids_fingerprint:
        raise IdgrError(
            f"was trained on other IDs than those of {os.fspath(ids_file)}",
            "give the IDs it was trained on, train it on these with `idgr train-rec --model`, or insist with --force",
            where=rec,
        )
