"""Who answers `idgr recommend`: a recommender of textual IDs, a model of items, or a baseline, as the options ask.

Knows options by their names on the command line, and the files they name; histories and outputs it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import Lines
from idgr.formats.rec_folder import (
    TWO_TOWER,
    RecommenderFacts,
    check_ids_known,
    item_model_type,
    read_recommender_facts,
)
from idgr.formats.records import Query, Recommendation, read_ids, read_sequences
from idgr.progress import log

if TYPE_CHECKING:
    from idgr.decoding.options import SearchOptions
    from idgr.decoding.trie import Trie
    from idgr.models.backbone import Backbone
    from idgr.prompts.histories import HistoryRenderer
    from idgr.prompts.rendering import PromptRenderer
    from idgr.recommender.ranking import Recommender

# The options of `recommend` that are about textual IDs, with what they are where they are not given.
TEXTUAL_OPTIONS: dict[str, Any] = {
    "ids": None,
    "adapter": None,
    "beams": 20,
    "normalize": None,
    "length-penalty": 0.0,
    "search": "beam",
    "template": 0,
    "gen": None,
    "items": None,
    "prompts": None,
    "trie": None,
    "force": False,
}


Answer: TypeAlias = Callable[[Sequence[Query], Callable[[int], object]], list[Recommendation]]


@dataclass(frozen=True)
class Asked:
    """Who is asked.

    Attributes:
        known: the keys of the items that histories may hold; None for any.
        cure: what to do about an item that is not known.
        n_items: how many items there are to recommend.
        answer: recommends for some histories, in their order, and tells of each part that it is done.
        shown: what the model is shown of a history, where it can be written.
        expanded: how many prefixes exact search has expanded; None for another search.
        settled: options that were left to the model, and what they are.
    """

    known: Container[str] | None
    cure: str
    n_items: int
    answer: Answer
    shown: Callable[[Query], dict[str, Any]] | None = None
    expanded: Callable[[], int] | None = None
    settled: dict[str, Any] = field(default_factory=dict)


def ask_recommender(given: dict[str, Any]) -> Asked:
    """A folder of `idgr train-rec` and its IDs."""
    recommender = _recommender(given)
    return Asked(
        recommender.number,
        "give IDs that cover every history",
        len(recommender.item_keys),
        _within_memory(recommender.recommend, given["rec"]),
        _shower(recommender),
        _expansion_counter(recommender, asked=given["search"] == "exact"),
        {"normalize": recommender.search.options.normalize},
    )


def check_item_model_options(given: dict[str, Any]) -> None:
    """Raise `UsageError` where options are given that a SASRec or a two-tower cannot heed."""
    strange = [f"--{name}" for name, value in TEXTUAL_OPTIONS.items() if given[name] != value]
    if strange:
        kind = _called(given["rec"])
        raise UsageError(
            f"{given['rec']} is a {kind}, which knows no textual IDs, so {', '.join(strange)} says nothing to it",
            "leave that out, or give --rec a folder of `idgr train-rec`",
        )


def _called(folder: str) -> str:
    return "two-tower" if item_model_type(folder) == TWO_TOWER else "SASRec"


def ask_item_model(given: dict[str, Any]) -> Asked:
    """A folder of `idgr train-sasrec` or `train-two-tower`.

    An item's score is the logarithm of its probability among all items.
    """
    import torch

    from idgr.item_models.ranking import rank_items
    from idgr.models.device import pick_device
    from idgr.models.item_models import load_item_model

    model, keys = load_item_model(given["rec"])
    where = pick_device(given["device"])
    model.to(device=where, dtype=torch.bfloat16 if given["precision"] == "bf16" else torch.float32)
    number = {item: i for i, item in enumerate(keys)}
    wanted = None if given["allow"] is None else _read_keys(given["allow"], set(keys))
    allowed = None if wanted is None else torch.tensor([item in wanted for item in keys], device=where)

    def answer(queries: Sequence[Query], advance: Callable[[int], object]) -> list[Recommendation]:
        histories = [[number[item] for item in query.history] for query in queries]
        excluded = None if given["keep-history"] else [set(history) for history in histories]
        rankings = rank_items(
            model,
            histories,
            given["k"],
            excluded=excluded,
            allowed=allowed,
            batch_size=given["batch-size"],
            advance=advance,
            where=given["rec"],
        )
        return [
            Recommendation(query.user_id, [keys[item] for item in ranking.items], ranking.scores)
            for query, ranking in zip(queries, rankings, strict=True)
        ]

    cure = f"train the {_called(given['rec'])} with --items that cover every history"
    return Asked(number, cure, len(keys), _within_memory(answer, given["rec"]))


def _within_memory(answer: Answer, rec: str) -> Answer:
    """Tell in one line where the device has not the memory for a single history."""
    import torch

    def answered(queries: Sequence[Query], advance: Callable[[int], object]) -> list[Recommendation]:
        try:
            return answer(queries, advance)
        except torch.OutOfMemoryError:
            what, todo = "the device has not the memory for a single history", "give fewer --beams, or --device cpu"
            raise IdgrError(what, todo, where=rec) from None

    return answered


def _recommender(given: dict[str, Any]) -> Recommender:
    rec, ids, trie_file = str(given["rec"]), str(given["ids"]), given["trie"]
    catalogue = read_ids(ids)

    import torch

    from idgr.decoding.trie import build_trie, load_trie
    from idgr.models.backbone import arch_of, load_backbone, load_causal_backbone
    from idgr.models.device import pick_device
    from idgr.models.llama import fit_item_slots
    from idgr.models.tokenizer import id_tokens
    from idgr.prompts.templates import load_templates
    from idgr.recommender.prompts import causal_renderer_of, renderer_of, user_ids_of
    from idgr.recommender.ranking import Recommender, catalogue_fingerprint

    untrained = RecommenderFacts("full", load_templates(), 20, 512, "") if given["force"] else None
    facts = read_recommender_facts(rec, untrained)
    if facts is untrained:
        facts = replace(facts, arch=arch_of(rec))
    if not given["force"]:
        check_ids_known(facts, catalogue, rec, ids)
    exact = given["search"] == "exact"
    options = _search_options(given, facts.objective, len(catalogue))
    keys = [record.item_id for record in catalogue]
    allowed = None if given["allow"] is None else _read_keys(given["allow"], set(keys))

    where = pick_device(given["device"])
    backbone = load_backbone(rec) if facts.arch == "t5" else load_causal_backbone(rec)
    if given["adapter"] is not None:
        _adapt(backbone, given["adapter"], rec)
    backbone.model.to(device=where, dtype=torch.bfloat16 if given["precision"] == "bf16" else torch.float32)
    fingerprint = catalogue_fingerprint(catalogue, backbone.tokenizer) if trie_file is not None else ""
    trie = load_trie(trie_file, fingerprint) if trie_file is not None else None
    if trie is None:
        rows = id_tokens(backbone.tokenizer, [record.id for record in catalogue])
        trie = build_trie(rows, backbone.tokenizer.eos_token_id)
        if trie_file is not None:
            _keep_trie(trie, trie_file, fingerprint)
    else:
        rows = trie.tokens()
    strange = bool(given["force"])
    named = user_ids_of(facts, given["gen"], given["items"], keys, backbone.tokenizer, where, strange=strange)
    renderer: PromptRenderer | HistoryRenderer
    if facts.arch == "causal":
        fit_item_slots(backbone.model, rows, new=False)
        renderer = causal_renderer_of(facts, backbone.tokenizer, rows)
    else:
        renderer = renderer_of(facts, backbone.tokenizer, rows, named)
    return Recommender(
        backbone,
        keys,
        renderer,
        trie,
        options,
        template=given["template"],
        allowed=allowed,
        keep_history=given["keep-history"],
        exact=exact,
        batch_size=given["batch-size"],
    )


def _search_options(given: dict[str, Any], objective: str, n_items: int) -> SearchOptions:
    """The search as asked for, with no more items and prefixes than the catalogue has."""
    from idgr.decoding.options import SearchOptions

    k, beams = given["k"], given["beams"]
    if beams > n_items and beams != TEXTUAL_OPTIONS["beams"]:
        log(f"recommend: --beams {beams} is more than the {n_items} items of the catalogue, so that many are followed")
    if given["search"] == "exact" or k > n_items:
        beams = max(beams, k)
    return SearchOptions(min(k, n_items), min(beams, n_items), given["length-penalty"], given["normalize"] or objective)


def _keep_trie(trie: Trie, path: str, fingerprint: str) -> None:
    from idgr.decoding.trie import save_trie

    try:
        save_trie(trie, path, fingerprint)
    except IdgrError as fault:  # it saves the next run a second; this one has its tree
        log(f"recommend: the prefix tree is not kept: {fault}")


def _adapt(backbone: Backbone, adapter: str, rec: str) -> None:
    """Merge an adapter into a recommender, in memory."""
    from idgr.formats.adapter_folder import check_base
    from idgr.models.lora import check_lora, load_adapter

    if backbone.model.config.is_encoder_decoder:
        raise UsageError(f"--adapter given, but {rec} is a T5, for which there are none", "leave --adapter out")
    check_lora("--adapter")
    check_base(adapter, rec)
    load_adapter(backbone.model, adapter)


def _shower(recommender: Recommender) -> Callable[[Query], dict[str, Any]]:
    from idgr.models.tokenizer import decode

    def shown(query: Query) -> dict[str, Any]:
        tokens = recommender.prompt(query)
        return {"user_id": query.user_id, "text": decode(recommender.tokenizer, [tokens])[0], "tokens": tokens}

    return shown


def _expansion_counter(recommender: Recommender, *, asked: bool) -> Callable[[], int] | None:
    """Tells how many prefixes exact search has expanded; None where it was not asked for."""
    from idgr.decoding.exact import ExactSearch

    search = recommender.search
    return (lambda: search.expanded) if asked and isinstance(search, ExactSearch) else None


def ask_baseline(given: dict[str, Any]) -> Asked:
    """Popularity or Markov, counted in --train."""
    from idgr.evaluation.baselines import fit_markov, fit_popularity

    ids, allow = given["ids"], given["allow"]
    known = None if ids is None else {record.item_id for record in read_ids(ids)}
    sequences = [sequence.items for sequence in read_sequences(given["train"], known)]
    model = fit_markov(sequences) if given["baseline"] == "markov" else fit_popularity(sequences)
    allowed = known if allow is None else _read_keys(allow, known)

    def answer(queries: Sequence[Query], advance: Callable[[int], object]) -> list[Recommendation]:
        rows = []
        for query in queries:
            left_out = () if given["keep-history"] else frozenset(query.history)
            items = model.recommend(query.history, given["k"], leave_out=left_out, allowed=allowed)
            # Neither rule has a score that could be compared between users: minus the place in the list.
            rows.append(Recommendation(query.user_id, items, [-float(place) for place in range(1, len(items) + 1)]))
            advance(1)
        return rows

    n_items = len({item for sequence in sequences for item in sequence})
    return Asked(known, "give IDs that cover every history", n_items, answer)


def _read_keys(path: str, known: set[str] | None) -> set[str]:
    keys = set()
    for number, line in Lines(path):
        item = line.decode(errors="replace")
        if known is not None and item not in known:
            raise IdgrError(
                f"unknown item {item!r}", "give item keys of the catalogue, one a line", where=path, line=number
            )
        keys.add(item)
    return keys
