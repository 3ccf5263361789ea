"""A folder of `idgr train-rec` and its IDs as what ranks items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from idgr.decoding.options import SearchOptions
from idgr.errors import IdgrError, UsageError
from idgr.formats.rec_folder import (
    RecommenderFacts,
    check_ids_grown,
    read_item_head_weight,
)
from idgr.formats.records import ItemId, Query, Recommendation, read_ids
from idgr.progress import log
from idgr.stages.ranker import COVER, Ranker, allowed_items, within_memory
from idgr.stages.ranker_options import DEFAULT_BEAMS, RankerOptions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from idgr.decoding.trie import Trie
    from idgr.models.backbone import Backbone
    from idgr.prompts.histories import HistoryRenderer
    from idgr.prompts.rendering import PromptRenderer
    from idgr.recommender.item_head import ItemHead
    from idgr.recommender.ranking import Recommender


def textual_ranker(options: RankerOptions) -> Ranker:
    """A folder of `idgr train-rec` and its IDs."""
    from idgr.decoding.exact import ExactSearch
    from idgr.models.tokenizer import decode
    from idgr.prompts.histories import HistoryRenderer

    recommender = _recommender(options)
    search = recommender.search

    def rank(queries: Sequence[Query], k: int, advance: Callable[[int], object]) -> list[Recommendation]:
        return recommender.recommend(queries, advance, k=k)

    def shown(query: Query) -> dict[str, Any]:
        tokens = recommender.prompt(query)
        return {"user_id": query.user_id, "text": decode(recommender.tokenizer, [tokens])[0], "tokens": tokens}

    settled: dict[str, Any] = {"normalize": search.options.normalize}
    if isinstance(recommender.renderer, HistoryRenderer):
        settled["separator"] = "eos" if recommender.renderer.leads else "newline"
    if options.item_head_weight is None and recommender.weight:
        settled["item-head-weight"] = recommender.weight
    expanded = (lambda: search.expanded) if options.search == "exact" and isinstance(search, ExactSearch) else None
    known = recommender.number
    return Ranker(known, COVER, len(known), within_memory(rank, options), shown, expanded, settled)


def heeds_near_items(rec: str) -> bool:
    """Whether a recommender has a head that heeds pairs of items. Raises `IdgrError` where its head is damaged."""
    if read_item_head_weight(rec) is None:
        return False
    from idgr.recommender.item_head_file import has_pairs  # with all that trains heads

    return has_pairs(rec)


def _recommender(options: RankerOptions) -> Recommender:
    rec, ids = str(options.rec), str(options.ids)
    catalogue = read_ids(ids)

    from idgr.decoding.prompt_memory import PromptMemory
    from idgr.models.device import pick_device
    from idgr.models.llama import fit_item_slots
    from idgr.prompts.histories import HistoryRenderer
    from idgr.recommender.prompts import causal_renderer_of, facts_of, renderer_of, separated, user_ids_of
    from idgr.recommender.ranking import Recommender

    facts, trained = facts_of(rec, force=options.force, max_history=options.max_history)
    if options.cache and facts.arch != "causal":
        raise UsageError(f"--cache given, but {rec} is a T5, which reads a history that grew anew", "leave it out")
    if not options.force:
        changes = check_ids_grown(facts, catalogue, rec, ids)
        if changes is not None:
            gone = f"; {changes.gone} that it was trained on are not there" if changes.gone else ""
            log(f"recommend: {changes.new} of the {len(catalogue)} items of {ids} are new to {rec}{gone}")
    search = _search_options(options, facts.objective, len(catalogue))
    _check_calibration(options, facts, search, rec)
    weight = _item_head_weight(options, rec)
    keys = [record.item_id for record in catalogue]
    allowed = allowed_items(options, set(keys))
    where = pick_device(options.device)
    backbone = _backbone(options, rec, facts.arch, where)
    tokenizer = backbone.tokenizer
    facts = separated(facts, options.separator, backbone, rec, trained=trained)
    trie, rows = _tree(options.trie, catalogue, tokenizer, facts.separator)
    items = None if heeds_near_items(rec) else options.items
    named = user_ids_of(facts, options.gen, items, keys, tokenizer, where, strange=options.force)
    renderer: PromptRenderer | HistoryRenderer
    if facts.arch == "causal":
        fit_item_slots(backbone.model, rows, new=False, separator=facts.separator)
        renderer = causal_renderer_of(facts, tokenizer, rows)
    else:
        renderer = renderer_of(facts, tokenizer, rows, named)
    calibration = None
    if options.calibration_weight:
        from idgr.recommender.calibration import Calibration

        assert isinstance(renderer, HistoryRenderer)
        model: Any = backbone.model
        calibration = Calibration(model, renderer, options.calibration_weight, search.length_penalty)
    second = told = None
    if read_item_head_weight(rec) is not None:
        from idgr.recommender.item_head import IdTokens, item_scores, told_items

        causal: Any = backbone.model
        head = _item_head(options, rec, keys, causal.config.hidden_size, weight).to(where)
        told = told_items(head, rows, trie.eos)
        second = item_scores(head, causal, IdTokens.of(rows, where), trie.eos) if weight else None
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
        calibration=calibration,
        second=second,
        weight=weight,
        told=told,
        memory=PromptMemory(options.cache_memory << 20) if options.cache else None,
    )


def _check_calibration(options: RankerOptions, facts: RecommenderFacts, search: SearchOptions, rec: str) -> None:
    """Raise `UsageError` where scores cannot be calibrated."""
    if not options.calibration_weight:
        return
    what = f"--calibration-weight {options.calibration_weight:g}"
    if facts.arch != "causal":
        raise UsageError(f"{what}, but {rec} is a T5, for which there is none", "leave it out")
    if search.normalize != "full":
        raise UsageError(f"{what} with the softmax over valid children", "add --normalize full")
    if options.search == "exact":
        raise UsageError(f"{what} with --search exact", "leave one of them out; more --beams find more items")


def _item_head_weight(options: RankerOptions, rec: str) -> float:
    """What the item head's score counts; 0 without a head. An adapter was trained and chosen without it."""
    told, given = read_item_head_weight(rec), options.item_head_weight
    if given and told is None:
        what = f"--item-head-weight {given:g}, but {rec} has no item head"
        raise UsageError(what, "leave it out, or train it with `idgr train-rec --item-head`")
    weight = given if given is not None else 0.0 if told is None or options.adapter is not None else told
    clash = "--search exact" if options.search == "exact" else "--calibration-weight"
    if weight and (options.search == "exact" or options.calibration_weight):
        raise UsageError(f"{clash} with an item head", f"add --item-head-weight 0, or leave {clash} out")
    return weight


def _item_head(options: RankerOptions, rec: str, keys: Sequence[str], width: int, weight: float) -> ItemHead:
    """The head there for the items with these keys; if it counts, with pairs of the texts of --items."""
    from idgr.recommender.item_head_file import head_items, load_item_head
    from idgr.recommender.prompts import texts_or_keys

    if not weight or not heeds_near_items(rec):
        return load_item_head(rec, keys, width)
    if options.items is not None:
        return load_item_head(rec, keys, width, texts_or_keys(options.items, keys))
    if new := len(set(keys).difference(head_items(rec))):
        log(f"recommend: {new} of the {len(keys)} items are new and have no near items; give all texts with --items")
    return load_item_head(rec, keys, width)


def _backbone(options: RankerOptions, rec: str, arch: str, where: torch.device) -> Backbone:
    """The model there in the precision asked for, an adapter merged into it in memory."""
    import torch

    from idgr.formats.adapter_folder import check_base
    from idgr.models.backbone import load_backbone, load_causal_backbone
    from idgr.models.device import uses_bf16
    from idgr.models.lora import check_lora, load_adapter

    backbone = load_backbone(rec) if arch == "t5" else load_causal_backbone(rec)
    if options.adapter is not None:
        if backbone.model.config.is_encoder_decoder:
            raise UsageError(f"--adapter given, but {rec} is a T5, for which there are none", "leave --adapter out")
        check_lora("--adapter")
        check_base(options.adapter, rec)
        load_adapter(backbone.model, options.adapter)
    dtype = torch.bfloat16 if uses_bf16(options.precision, where) else torch.float32
    backbone.model.to(device=where, dtype=dtype)
    return backbone


def _search_options(options: RankerOptions, objective: str, n_items: int) -> SearchOptions:
    """The search as asked for, with no more items and prefixes than the catalogue has."""
    k, beams = options.k, options.beams
    if beams > n_items and beams != DEFAULT_BEAMS:
        log(f"recommend: --beams {beams} is more than the {n_items} items of the catalogue, so that many are followed")
    if options.search == "exact" or k > n_items:
        beams = max(beams, k)
    normalize = options.normalize or objective
    return SearchOptions(min(k, n_items), min(beams, n_items), options.length_penalty, normalize, options.compile)


def _tree(
    path: str | None, catalogue: Sequence[ItemId], tokenizer: PreTrainedTokenizerBase, separator: str
) -> tuple[Trie, list[list[int]]]:
    """The prefix tree of the IDs, from the file where it is kept if it is that of these, and their tokens."""
    from idgr.decoding.trie import build_trie, load_trie, save_trie
    from idgr.models.separator import separator_token
    from idgr.models.tokenizer import id_tokens
    from idgr.recommender.ranking import catalogue_fingerprint

    end = separator_token(tokenizer, separator)
    fingerprint = "" if path is None else catalogue_fingerprint(catalogue, tokenizer, end)
    kept = None if path is None else load_trie(path, fingerprint)
    if kept is not None:
        return kept, kept.tokens()
    rows = id_tokens(tokenizer, [record.id for record in catalogue])
    trie = build_trie(rows, end)
    if path is not None:
        try:
            save_trie(trie, path, fingerprint)
        except IdgrError as fault:  # it saves the next run a second; this one has its tree
            log(f"recommend: the prefix tree is not kept: {fault}")
    return trie, rows
