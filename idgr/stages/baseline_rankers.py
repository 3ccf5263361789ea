"""Rankers by counts of the training sequences, by words of the items' texts, or by both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from idgr.errors import IdgrError
from idgr.formats.records import Query, Recommendation, read_ids, read_items, read_sequences
from idgr.stages.ranker import COVER, Ranker, allowed_items
from idgr.stages.ranker_options import RankerOptions

if TYPE_CHECKING:
    from idgr.evaluation.item_scores import ItemScores


def baseline_ranker(options: RankerOptions) -> Ranker:
    """The baseline that `complete` options name."""
    makers = {"text": text_ranker, "star": star_ranker}
    return makers.get(str(options.baseline), counted_ranker)(options)


def counted_ranker(options: RankerOptions) -> Ranker:
    """Popularity or Markov, counted in the training sequences."""
    from idgr.evaluation.baselines import fit_markov, fit_popularity

    known = None if options.ids is None else {record.item_id for record in read_ids(options.ids)}
    sequences = [sequence.items for sequence in read_sequences(str(options.train), known)]
    model = fit_markov(sequences) if options.baseline == "markov" else fit_popularity(sequences)
    allowed = known if options.allow is None else allowed_items(options, known)

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
    return Ranker(known, COVER, n_items, rank)


def text_ranker(options: RankerOptions) -> Ranker:
    """The items whose texts share rare words with those of the history."""
    from idgr.evaluation.shared_words import fit_shared_words

    items = read_items(str(options.items))
    model = fit_shared_words([item.text for item in items])
    return _ranker_of_numbers(model, [item.item_id for item in items], options)


def trained_text_ranker(options: RankerOptions) -> Ranker:
    """A folder of `idgr train-text-ranker`, for the catalogue of `--items`."""
    from idgr.item_models.text_features import N_FEATURES, TextFeatures
    from idgr.item_models.text_ranker import TextRankerScores
    from idgr.models.device import pick_device
    from idgr.models.text_ranker import load_text_ranker

    model = load_text_ranker(str(options.rec)).to(pick_device(options.device))
    if model.config.features != N_FEATURES:
        what = f"reads {model.config.features} features of a candidate, where there are {N_FEATURES}"
        raise IdgrError(what, "train it again with this version of idgr", where=options.rec)
    items = read_items(str(options.items))
    features = TextFeatures([item.text for item in items])
    return _ranker_of_numbers(TextRankerScores(model, features), [item.item_id for item in items], options)


def star_ranker(options: RankerOptions) -> Ranker:
    """STAR: the items that are like the newest ones of the history, in their texts and in who bought them."""
    from idgr.evaluation.shared_words import fit_shared_words
    from idgr.evaluation.star import fit_star
    from idgr.stages.catalogue_texts import read_catalogue_texts, text_source

    catalogue = str(options.items)
    if options.text_vectors is None:
        items = read_items(catalogue)
        keys = [item.item_id for item in items]
        vectors_ID: Any = fit_shared_words([item.text for item in items]).items_IW
    else:
        text_source(options.text_vectors)
        keys, vectors_ID = read_catalogue_texts(catalogue, options.text_vectors)
    number = {item: i for i, item in enumerate(keys)}
    sequences = read_sequences(str(options.train), number)
    model = fit_star(vectors_ID, [[number[item] for item in sequence.items] for sequence in sequences])
    return _ranker_of_numbers(model, keys, options)


def _ranker_of_numbers(model: ItemScores, keys: list[str], options: RankerOptions) -> Ranker:
    """A model of item numbers, for items with these keys."""
    import numpy as np

    number = {item: i for i, item in enumerate(keys)}
    wanted = allowed_items(options, set(keys))
    allowed = None if wanted is None else np.array([item in wanted for item in keys], dtype=bool)

    def rank(queries: Sequence[Query], k: int, advance: Callable[[int], object]) -> list[Recommendation]:
        histories = [[number[item] for item in query.history] for query in queries]
        found = model.rank(histories, k, keep_history=options.keep_history, allowed=allowed, advance=advance)
        return [
            Recommendation(query.user_id, [keys[item] for item in ranked], scores)
            for query, (ranked, scores) in zip(queries, found, strict=True)
        ]

    return Ranker(number, "give --items that cover every history", len(keys), rank)
