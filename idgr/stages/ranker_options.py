"""Options that say what ranks items for a history, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from idgr.decoding.options import MAX_LENGTH_PENALTY
from idgr.options import MODEL, RUN, SEARCH, Device, Option, Role, StageOptions, option
from idgr.stages.options import K

BASELINE = "Baseline"
DEFAULT_BEAMS = 20


@dataclass(frozen=True)
class Textual(Option):
    """An option that only a recommender of textual IDs heeds."""


Beams = Annotated[int, Textual("Prefixes that beam search follows.", panel=SEARCH, at_least=1)]
Normalize = Annotated[
    Literal["full", "trie"] | None,
    Textual("Softmax over vocabulary or valid children; as trained if not given.", panel=SEARCH),
]


@dataclass(frozen=True, kw_only=True)
class RankerOptions(StageOptions):
    """What ranks, and how."""

    rec: str | None = option("Recommender, SASRec or two-tower: a folder that was trained.", None, role=Role.INPUT)
    ids: Annotated[str | None, Textual("The IDs it was trained on (default: REC/ids.jsonl).", role=Role.INPUT)] = None
    k: K = 10
    allow: str | None = option("Only the items of this file, one key a line.", None, role=Role.INPUT)
    keep_history: bool = option("Items of the history may be recommended again.", False)
    adapter: Annotated[str | None, Textual("Adapter trained for this --rec.", role=Role.INPUT, panel=MODEL)] = None
    template: Annotated[int, Textual("Which of the recommender's templates, from 0.", panel=MODEL, at_least=0)] = 0
    gen: Annotated[str | None, Textual("ID generator, if trained with user IDs.", role=Role.INPUT, panel=MODEL)] = None
    items: Annotated[
        str | None,
        Textual("items.jsonl, for the same, a SASRec of texts, or --baseline text.", role=Role.INPUT, panel=MODEL),
    ] = None
    text_vectors: str | None = option(
        "Where the model lies that reads texts for a SASRec of texts, if moved.", None, MODEL, role=Role.INPUT
    )
    force: Annotated[bool, Textual("Take IDs that the recommender was not trained on.", panel=MODEL)] = False
    precision: Literal["fp32", "bf16"] = option("Of the model's weights.", "fp32", MODEL)
    search: Annotated[Literal["beam", "exact"], Textual("Beams, or the proven best items.", panel=SEARCH)] = "beam"
    beams: Beams = DEFAULT_BEAMS
    normalize: Normalize = None
    length_penalty: Annotated[
        float,
        Textual(
            "A score is divided by its ID's length to this power, from -10 to 10.",
            panel=SEARCH,
            at_least=-MAX_LENGTH_PENALTY,
            at_most=MAX_LENGTH_PENALTY,
        ),
    ] = 0.0
    trie: Annotated[str | None, Textual("Keep the IDs' prefix tree here.", role=Role.OUTPUT, panel=SEARCH)] = None
    baseline: Literal["popularity", "markov", "text"] | None = option(
        "Instead of a recommender: a count of --train, or the rare words that texts of --items share.", None, BASELINE
    )
    train: str | None = option("train.jsonl, for popularity and markov.", None, BASELINE, role=Role.INPUT)
    batch_size: int = option(
        "Histories at a time; with 1 each line is answered at once.", 32, RUN, at_least=1, at_most=10**6
    )
    device: Device = "auto"
