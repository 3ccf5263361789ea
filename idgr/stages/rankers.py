"""What ranks items for a history, as options ask: a recommender of textual IDs, a model of items, or a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from idgr.formats.rec_folder import TEXT_RANKER, TEXT_SASREC, item_model_type
from idgr.formats.records import Query, Recommendation
from idgr.stages.baseline_rankers import baseline_ranker, trained_text_ranker
from idgr.stages.ranker import Ranker, allowed_items, within_memory
from idgr.stages.ranker_options import RankerOptions, called
from idgr.stages.textual_ranker import textual_ranker


def load_ranker(options: RankerOptions) -> Ranker:
    """What `complete` options ask for.

    Raises:
        IdgrError: a file or folder is not what it should be.
        UsageError: there is no such device, template or number of beams.
    """
    if options.baseline is not None:
        return baseline_ranker(options)
    kind = item_model_type(str(options.rec))
    if kind == TEXT_RANKER:
        return trained_text_ranker(options)
    return textual_ranker(options) if kind is None else item_ranker(options)


def item_ranker(options: RankerOptions) -> Ranker:
    """A folder of `idgr train-sasrec` or `train-two-tower`.

    An item's score is the logarithm of its probability among all items.
    """
    import torch

    from idgr.item_models.ranking import rank_items
    from idgr.models.device import pick_device, uses_bf16
    from idgr.models.item_models import ItemModel, load_item_model
    from idgr.stages.catalogue_texts import load_for_catalogue

    rec = str(options.rec)
    model: ItemModel
    if item_model_type(rec) == TEXT_SASREC:
        model, keys = load_for_catalogue(rec, str(options.items), options.text_vectors)
        cure = "give --items that cover every history"
    else:
        model, keys = load_item_model(rec)
        cure = f"train the {called(rec)} with --items that cover every history"
    where = pick_device(options.device)
    model.to(device=where, dtype=torch.bfloat16 if uses_bf16(options.precision, where) else torch.float32)
    number = {item: i for i, item in enumerate(keys)}
    wanted = allowed_items(options, set(keys))
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

    return Ranker(number, cure, len(keys), within_memory(rank, options))
