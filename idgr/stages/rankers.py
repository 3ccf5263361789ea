"""What ranks items for a history, as options ask: a recommender of textual IDs, a model of items, or a baseline."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from idgr.decoding.options import SearchOptions
from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import Lines, is_stream
from idgr.formats.rec_folder import (
    CONFIG,
    IDS,
    ITEMS,
    TEXT_SASREC,
    TWO_TOWER,
    RecommenderFacts,
    check_ids_known,
    item_model_type,
    read_recommender_facts,
)
from idgr.formats.records import ItemId, Query, Recommendation, read_ids, read_items, read_sequences
from idgr.options import Role, option_fields
from idgr.progress import log
from idgr.stages.ranker_options import DEFAULT_BEAMS, RankerOptions, Textual

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from idgr.decoding.trie import Trie
    from idgr.models.backbone import Backbone
    from idgr.prompts.histories import HistoryRenderer
    from idgr.prompts.rendering import PromptRenderer
    from idgr.recommender.ranking import Recommender

_COVER = "give IDs that cover every history"

R = TypeVar("R", bound=RankerOptions)
Rank: TypeAlias = Callable[[Sequence[Query], int, Callable[[int], object]], list[Recommendation]]


@dataclass(frozen=True)
class Ranker:
    """Ranks items after histories.

    Attributes:
        known: the keys of the items that histories may hold; None for any.
        cure: what to do about an item that is not known.
        n_items: how many items there are to recommend.
        rank: the best items after each of some histories, in their order, so many for each; it tells of each part of
            them that is done.
        shown: what the model reads of a history, where it can be written.
        expanded: how many prefixes exact search has expanded; None for another search.
        settled: options that were left to the model, and what they are.
    """

    known: Container[str] | None
    cure: str
    n_items: int
    rank: Rank
    shown: Callable[[Query], dict[str, Any]] | None = None
    expanded: Callable[[], int] | None = None
    settled: dict[str, Any] = field(default_factory=dict)


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
    files = {one.name for one in _textual_given(options) if one.option.role in (Role.INPUT, Role.OUTPUT)}
    if options.baseline == "text":
        if options.items is None:
            raise UsageError("--baseline text needs --items", "give items.jsonl")
        if options.train is not None or "ids" in files:
            raise UsageError("--baseline text reads the texts of --items alone", "leave --train and --ids out")
        files.remove("items")
    elif options.train is None:
        raise UsageError(f"--baseline {options.baseline} needs --train", "give train.jsonl")
    if options.rec is not None or files - {"ids"}:
        others = "and --gen" if options.baseline == "text" else "--gen and --items"
        raise UsageError("--baseline asks no model", f"leave --rec, --adapter, --prompts, --trie, {others} out")


def _check_text_vectors(options: RankerOptions) -> None:
    if options.text_vectors is not None and (options.rec is None or item_model_type(options.rec) != TEXT_SASREC):
        raise UsageError("--text-vectors is for a SASRec of texts", "leave it out, or give --rec such a folder")


def _check_item_model(options: RankerOptions, rec: str) -> None:
    of_texts = item_model_type(rec) == TEXT_SASREC
    if of_texts and options.items is None:
        raise UsageError(f"{rec} is a SASRec of texts, which keeps no items", "give --items, its catalogue")
    given = [one for one in _textual_given(options) if not (of_texts and one.name == "items")]
    if strange := ", ".join(one.flag for one in given):
        what = f"{rec} is a {_called(rec)}, which knows no textual IDs, so {strange} says nothing to it"
        raise UsageError(what, "leave that out, or give --rec a folder of `idgr train-rec`")


def _textual_given(options: RankerOptions) -> list[Any]:
    """The fields of textual IDs that are not as they are where they are not given."""
    fields = [one for one in option_fields(type(options)) if isinstance(one.option, Textual)]
    return [one for one in fields if getattr(options, one.name) != one.default]


def _called(folder: str) -> str:
    return "two-tower" if item_model_type(folder) == TWO_TOWER else "SASRec"


def load_ranker(options: RankerOptions) -> Ranker:
    """What `complete` options ask for.

    Raises:
        IdgrError: a file or folder is not what it should be.
        UsageError: there is no such device, template or number of beams.
    """
    if options.baseline == "text":
        return text_ranker(options)
    if options.baseline is not None:
        return counted_ranker(options)
    return textual_ranker(options) if item_model_type(str(options.rec)) is None else item_ranker(options)


def textual_ranker(options: RankerOptions) -> Ranker:
    """A folder of `idgr train-rec` and its IDs."""
    from idgr.decoding.exact import ExactSearch
    from idgr.models.tokenizer import decode

    recommender = _recommender(options)
    search = recommender.search

    def rank(queries: Sequence[Query], k: int, advance: Callable[[int], object]) -> list[Recommendation]:
        return recommender.recommend(queries, advance, k=k)

    def shown(query: Query) -> dict[str, Any]:
        tokens = recommender.prompt(query)
        return {"user_id": query.user_id, "text": decode(recommender.tokenizer, [tokens])[0], "tokens": tokens}

    known, settled = recommender.number, {"normalize": search.options.normalize}
    expanded = (lambda: search.expanded) if options.search == "exact" and isinstance(search, ExactSearch) else None
    return Ranker(known, _COVER, len(known), _within_memory(rank, options), shown, expanded, settled)


def item_ranker(options: RankerOptions) -> Ranker:
    """A folder of `idgr train-sasrec` or `train-two-tower`.

    An item's score is the logarithm of its probability among all items.
    """
    import torch

    from idgr.item_models.ranking import rank_items
    from idgr.models.device import pick_device
    from idgr.models.item_models import ItemModel, load_item_model
    from idgr.stages.catalogue_texts import load_for_catalogue

    rec = str(options.rec)
    model: ItemModel
    if item_model_type(rec) == TEXT_SASREC:
        model, keys = load_for_catalogue(rec, str(options.items), options.text_vectors)
        cure = "give --items that cover every history"
    else:
        model, keys = load_item_model(rec)
        cure = f"train the {_called(rec)} with --items that cover every history"
    where = pick_device(options.device)
    model.to(device=where, dtype=torch.bfloat16 if options.precision == "bf16" else torch.float32)
    number = {item: i for i, item in enumerate(keys)}
    wanted = _allowed(options, set(keys))
    allowed = None if wanted is None else torch.tensor([item in wanted for item in keys], device=where)

    def rank(queries: Sequence[Query], k: int, advance: Callable[[int], object]) -> list[Recommendation]:
        histories = [[number[item] for item in query.history] for query in queries]
        rankings = rank_items(
            model,
            histories,
            k,
            excluded=None if options.keep_history else [set(history) for history in histories],
            allowed=allowed,
            batch_size=options.batch_size,
            advance=advance,
            where=rec,
        )
        return [
            Recommendation(query.user_id, [keys[item] for item in ranking.items], ranking.scores)
            for query, ranking in zip(queries, rankings, strict=True)
        ]

    return Ranker(number, cure, len(keys), _within_memory(rank, options))


def counted_ranker(options: RankerOptions) -> Ranker:
    """Popularity or Markov, counted in the training sequences."""
    from idgr.evaluation.baselines import fit_markov, fit_popularity

    known = None if options.ids is None else {record.item_id for record in read_ids(options.ids)}
    sequences = [sequence.items for sequence in read_sequences(str(options.train), known)]
    model = fit_markov(sequences) if options.baseline == "markov" else fit_popularity(sequences)
    allowed = known if options.allow is None else _allowed(options, known)

    def rank(queries: Sequence[Query], k: int, advance: Callable[[int], object]) -> list[Recommendation]:
        rows = []
        for query in queries:
            left_out = () if options.keep_history else frozenset(query.history)
            items = model.recommend(query.history, k, leave_out=left_out, allowed=allowed)
            # Neither rule has a score that could be compared between users: minus the place in the list.
            rows.append(Recommendation(query.user_id, items, [-float(place) for place in range(1, len(items) + 1)]))
            advance(1)
        return rows

    n_items = len({item for sequence in sequences for item in sequence})
    return Ranker(known, _COVER, n_items, rank)


def text_ranker(options: RankerOptions) -> Ranker:
    """The items whose texts share rare words with those of the history."""
    import numpy as np

    from idgr.evaluation.shared_words import fit_shared_words

    items = read_items(str(options.items))
    keys = [item.item_id for item in items]
    number = {item: i for i, item in enumerate(keys)}
    model = fit_shared_words([item.text for item in items])
    wanted = _allowed(options, set(keys))
    allowed = None if wanted is None else np.array([item in wanted for item in keys], dtype=bool)

    def rank(queries: Sequence[Query], k: int, advance: Callable[[int], object]) -> list[Recommendation]:
        histories = [[number[item] for item in query.history] for query in queries]
        found = model.rank(histories, k, keep_history=options.keep_history, allowed=allowed, advance=advance)
        return [
            Recommendation(query.user_id, [keys[item] for item in ranked], scores)
            for query, (ranked, scores) in zip(queries, found, strict=True)
        ]

    return Ranker(number, "give --items that cover every history", len(keys), rank)


def _within_memory(rank: Rank, options: RankerOptions) -> Rank:
    """Tell in one line where the device has not the memory for a single history."""
    import torch

    def ranked(queries: Sequence[Query], k: int, advance: Callable[[int], object]) -> list[Recommendation]:
        try:
            return rank(queries, k, advance)
        except torch.OutOfMemoryError:
            what, todo = "the device has not the memory for a single history", "give fewer --beams, or --device cpu"
            raise IdgrError(what, todo, where=options.rec) from None

    return ranked


def _recommender(options: RankerOptions) -> Recommender:
    rec, ids = str(options.rec), str(options.ids)
    catalogue = read_ids(ids)

    from idgr.models.device import pick_device
    from idgr.models.llama import fit_item_slots
    from idgr.recommender.prompts import causal_renderer_of, renderer_of, user_ids_of
    from idgr.recommender.ranking import Recommender

    facts = _facts(options, rec)
    if not options.force:
        check_ids_known(facts, catalogue, rec, ids)
    search = _search_options(options, facts.objective, len(catalogue))
    keys = [record.item_id for record in catalogue]
    allowed = _allowed(options, set(keys))
    where = pick_device(options.device)
    backbone = _backbone(options, rec, facts.arch)
    backbone.model.to(where)
    tokenizer = backbone.tokenizer
    trie, rows = _tree(options.trie, catalogue, tokenizer)
    named = user_ids_of(facts, options.gen, options.items, keys, tokenizer, where, strange=options.force)
    renderer: PromptRenderer | HistoryRenderer
    if facts.arch == "causal":
        fit_item_slots(backbone.model, rows, new=False)
        renderer = causal_renderer_of(facts, tokenizer, rows)
    else:
        renderer = renderer_of(facts, tokenizer, rows, named)
    return Recommender(
        backbone,
        keys,
        renderer,
        trie,
        search,
        template=options.template,
        allowed=allowed,
        keep_history=options.keep_history,
        exact=options.search == "exact",
        batch_size=options.batch_size,
    )


def _facts(options: RankerOptions, rec: str) -> RecommenderFacts:
    """How the recommender was trained; with `force` one that was not is taken as it is."""
    from idgr.models.backbone import arch_of
    from idgr.prompts.templates import load_templates

    untrained = RecommenderFacts("full", load_templates(), 20, 512, "") if options.force else None
    facts = read_recommender_facts(rec, untrained)
    return replace(facts, arch=arch_of(rec)) if facts is untrained else facts


def _backbone(options: RankerOptions, rec: str, arch: str) -> Backbone:
    """The model in the precision asked for, an adapter merged into it in memory."""
    import torch

    from idgr.formats.adapter_folder import check_base
    from idgr.models.backbone import load_backbone, load_causal_backbone
    from idgr.models.lora import check_lora, load_adapter

    backbone = load_backbone(rec) if arch == "t5" else load_causal_backbone(rec)
    if options.adapter is not None:
        if backbone.model.config.is_encoder_decoder:
            raise UsageError(f"--adapter given, but {rec} is a T5, for which there are none", "leave --adapter out")
        check_lora("--adapter")
        check_base(options.adapter, rec)
        load_adapter(backbone.model, options.adapter)
    backbone.model.to(torch.bfloat16 if options.precision == "bf16" else torch.float32)
    return backbone


def _search_options(options: RankerOptions, objective: str, n_items: int) -> SearchOptions:
    """The search as asked for, with no more items and prefixes than the catalogue has."""
    k, beams = options.k, options.beams
    if beams > n_items and beams != DEFAULT_BEAMS:
        log(f"recommend: --beams {beams} is more than the {n_items} items of the catalogue, so that many are followed")
    if options.search == "exact" or k > n_items:
        beams = max(beams, k)
    normalize = options.normalize or objective
    return SearchOptions(min(k, n_items), min(beams, n_items), options.length_penalty, normalize)


def _tree(
    path: str | None, catalogue: Sequence[ItemId], tokenizer: PreTrainedTokenizerBase
) -> tuple[Trie, list[list[int]]]:
    """The prefix tree of the IDs, from the file where it is kept if it is that of these, and their tokens."""
    from idgr.decoding.trie import build_trie, load_trie, save_trie
    from idgr.models.tokenizer import id_tokens
    from idgr.recommender.ranking import catalogue_fingerprint

    fingerprint = "" if path is None else catalogue_fingerprint(catalogue, tokenizer)
    kept = None if path is None else load_trie(path, fingerprint)
    if kept is not None:
        return kept, kept.tokens()
    rows = id_tokens(tokenizer, [record.id for record in catalogue])
    trie = build_trie(rows, tokenizer.eos_token_id)
    if path is not None:
        try:
            save_trie(trie, path, fingerprint)
        except IdgrError as fault:  # it saves the next run a second; this one has its tree
            log(f"recommend: the prefix tree is not kept: {fault}")
    return trie, rows


def _allowed(options: RankerOptions, known: set[str] | None) -> set[str] | None:
    """The items that may be recommended, where a file tells them."""
    if options.allow is None:
        return None
    keys = set()
    for number, line in Lines(options.allow):
        item = line.decode(errors="replace")
        if known is not None and item not in known:
            todo = "give item keys of the catalogue, one a line"
            raise IdgrError(f"unknown item {item!r}", todo, where=options.allow, line=number)
        keys.add(item)
    return keys
