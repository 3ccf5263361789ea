"""The options of what ranks items: a recommender of textual IDs, a model of items, or a baseline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from idgr.decoding.options import MAX_LENGTH_PENALTY
from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import is_stream
from idgr.formats.rec_folder import CONFIG, IDS, ITEMS, TEXT_RANKER, TEXT_SASREC, TWO_TOWER, item_model_type
from idgr.options import MODEL, RUN, SEARCH, Device, Option, Role, StageOptions, option, option_fields
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
Separator = Annotated[
    Literal["eos", "newline"] | None,
    Textual("causal: what stands between items; as trained, or a newline if not by idgr.", panel=MODEL),
]
MaxHistory = Annotated[
    int | None, Textual("Newest history items that are shown; as trained, or 20.", panel=MODEL, at_least=1)
]
CalibrationWeight = Annotated[
    float,
    Textual(
        "causal: of the items that the beams find, take so many times the score of the ID without a history away.",
        panel=SEARCH,
        at_least=0,
    ),
]
WeightsPrecision = Annotated[
    Literal["auto", "fp32", "bf16"],
    Option("Of the model's weights; auto is bf16 where the device multiplies it.", panel=MODEL),
]
ItemHeadWeight = Annotated[
    float | None,
    Textual(
        "Weight of the item head's score, for --rec with one; if not given, as trained, or 0 with --adapter.",
        panel=SEARCH,
        at_least=0,
    ),
]
Compile = Annotated[
    bool,
    Textual("Compile the model's steps with torch.compile; scores may round otherwise.", role=Role.RUN, panel=RUN),
]
BatchSize = Annotated[
    int,
    Option("Histories at a time; with 1 each line is answered at once.", panel=RUN, at_least=1, at_most=10**6),
]


@dataclass(frozen=True, kw_only=True)
class RankerOptions(StageOptions):
    """What ranks, and how."""

    rec: str | None = option(
        "Recommender, SASRec, two-tower or ranker of texts: a folder that was trained.", None, role=Role.INPUT
    )
    ids: Annotated[
        str | None, Textual("The IDs it was trained on, new items or not (default: REC/ids.jsonl).", role=Role.INPUT)
    ] = None
    k: K = 10
    allow: str | None = option("Only the items of this file, one key a line.", None, role=Role.INPUT)
    keep_history: bool = option("Items of the history may be recommended again.", False)
    adapter: Annotated[str | None, Textual("Adapter trained for this --rec.", role=Role.INPUT, panel=MODEL)] = None
    template: Annotated[int, Textual("Which of the recommender's templates, from 0.", panel=MODEL, at_least=0)] = 0
    separator: Separator = None
    max_history: MaxHistory = None
    gen: Annotated[str | None, Textual("ID generator, if trained with user IDs.", role=Role.INPUT, panel=MODEL)] = None
    items: Annotated[
        str | None,
        Textual(
            "items.jsonl, for the same, a SASRec or ranker of texts, near items of new ones, --baseline text or star.",
            role=Role.INPUT,
            panel=MODEL,
        ),
    ] = None
    text_vectors: str | None = option(
        "Folder of the model that reads texts: of a SASRec of texts, if moved; or for --baseline star, not TF-IDF.",
        None,
        MODEL,
        role=Role.INPUT,
    )
    force: Annotated[bool, Textual("Take IDs that the recommender was not trained on.", panel=MODEL)] = False
    precision: WeightsPrecision = "fp32"
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
    calibration_weight: CalibrationWeight = 0.0
    item_head_weight: ItemHeadWeight = None
    trie: Annotated[str | None, Textual("Keep the IDs' prefix tree here.", role=Role.OUTPUT, panel=SEARCH)] = None
    baseline: Literal["popularity", "markov", "text", "star"] | None = option(
        "Instead of a recommender: a count of --train, the rare words that texts of --items share, or both (STAR).",
        None,
        BASELINE,
    )
    train: str | None = option("train.jsonl, for popularity, markov and star.", None, BASELINE, role=Role.INPUT)
    batch_size: BatchSize = 32
    compile: Compile = False
    cache: Annotated[
        bool,
        Textual(
            "causal: keep what was read of histories, so that one that grew costs its new items alone; read anew where "
            "its oldest item goes (--max-history).",
            role=Role.RUN,
            panel=RUN,
        ),
    ] = False
    cache_memory: Annotated[
        int, Textual("MiB for --cache; what was used longest ago goes.", role=Role.RUN, panel=RUN, at_least=1)
    ] = 1024
    device: Device = "auto"


R = TypeVar("R", bound=RankerOptions)


def complete(options: R) -> R:
    """The options, with the IDs in the recommender's folder where none are given.

    Raises:
        UsageError: options are missing, or do not go together.
        IdgrError: the folder says that it holds a model of items, and does not.
    """
    trie, rec, ids = options.trie, options.rec, options.ids
    if trie is not None and (trie.endswith(".gz") or is_stream(trie)):
        raise UsageError(f"--trie {trie}: a prefix tree is mapped from a plain file", "give it another name")
    if options.baseline is not None:
        _check_baseline(options)
        _check_text_vectors(options)
        return options
    if rec is not None and item_model_type(rec) is not None:
        _check_item_model(options, rec)
    elif rec is not None and (Path(rec) / ITEMS).is_file():
        todo = "give a folder that `idgr train-sasrec` or `idgr train-two-tower` wrote"
        raise IdgrError(f"lists items, but its {CONFIG} is not one of a model of items", todo, where=rec)
    elif rec is not None and ids is None and (Path(rec) / IDS).is_file():
        options = replace(options, ids=str(Path(rec) / IDS))
    elif rec is None or ids is None:
        raise UsageError("a recommender needs --rec and --ids", "give both, or --baseline with --train")
    if options.train is not None:
        raise UsageError("--train is for --baseline", "leave it out")
    _check_text_vectors(options)
    return options


def _check_baseline(options: RankerOptions) -> None:
    name, of_texts = options.baseline, options.baseline in ("text", "star")
    given = _textual_given(options)
    files = {one.name for one in given if one.option.role in (Role.INPUT, Role.OUTPUT)}
    if of_texts and options.items is None:
        raise UsageError(f"--baseline {name} needs --items", "give items.jsonl")
    if name == "text" and (options.train is not None or "ids" in files):
        raise UsageError("--baseline text reads the texts of --items alone", "leave --train and --ids out")
    if name != "text" and options.train is None:
        raise UsageError(f"--baseline {name} needs --train", "give train.jsonl")
    if name == "star" and "ids" in files:
        raise UsageError("--baseline star ranks the items of --items", "leave --ids out")
    if options.rec is not None or files - ({"items"} if of_texts else {"ids"}):
        others = "and --gen" if of_texts else "--gen and --items"
        raise UsageError("--baseline asks no model", f"leave --rec, --adapter, --prompts, --trie, {others} out")
    if strange := ", ".join(one.flag for one in given if one.name not in files):
        raise UsageError(f"--baseline {name} asks no model, so {strange} says nothing to it", "leave that out")
    _check_precision(options, f"--baseline {name}, which asks no model")


def _check_text_vectors(options: RankerOptions) -> None:
    if options.text_vectors is None or options.baseline == "star":
        return
    if options.rec is None or item_model_type(options.rec) != TEXT_SASREC:
        todo = "leave it out, or give --rec such a folder"
        raise UsageError("--text-vectors is for a SASRec of texts and --baseline star", todo)


def _check_item_model(options: RankerOptions, rec: str) -> None:
    kind = item_model_type(rec)
    of_texts = kind in (TEXT_SASREC, TEXT_RANKER)
    if of_texts and options.items is None:
        raise UsageError(f"{rec} is a {called(rec)}, which keeps no items", "give --items, its catalogue")
    if kind == TEXT_RANKER and options.keep_history:
        todo = "leave it out; it has learnt to tell new items apart"
        raise UsageError(f"--keep-history with {rec}, a {called(rec)}", todo)
    if kind == TEXT_RANKER:
        _check_precision(options, f"{rec}, a {called(rec)}, whose few weights stay in fp32")
    given = [one for one in _textual_given(options) if not (of_texts and one.name == "items")]
    if strange := ", ".join(one.flag for one in given):
        what = f"{rec} is a {called(rec)}, which knows no textual IDs, so {strange} says nothing to it"
        raise UsageError(what, "leave that out, or give --rec a folder of `idgr train-rec`")


def _check_precision(options: RankerOptions, ranker: str) -> None:
    if options.precision == "bf16":
        raise UsageError(f"--precision bf16 with {ranker}", "leave it out")


def _textual_given(options: RankerOptions) -> list[Any]:
    """The fields of textual IDs that are not as they are where they are not given."""
    fields = [one for one in option_fields(type(options)) if isinstance(one.option, Textual)]
    return [one for one in fields if getattr(options, one.name) != one.default]


def called(folder: str) -> str:
    """What to call a folder of a model of items."""
    named = {TWO_TOWER: "two-tower", TEXT_SASREC: "SASRec of texts", TEXT_RANKER: "ranker of texts"}
    return named.get(item_model_type(folder) or "", "SASRec")
