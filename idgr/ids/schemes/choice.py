"""Which scheme makes the IDs of a catalogue, and with which options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from idgr.formats.records import Item
from idgr.ids.kept import Kept
from idgr.ids.schemes.category import category_ids
from idgr.ids.schemes.libraries import check_packages, one_thread
from idgr.ids.schemes.options import SchemeOptions
from idgr.ids.schemes.order import training_order
from idgr.ids.schemes.random_codes import random_ids
from idgr.ids.schemes.sequential import sequential_ids
from idgr.ids.schemes.title import title_ids

if TYPE_CHECKING:
    from idgr.ids.schemes.vector_tree import Floats32


def scheme_ids(
    items: Sequence[Item],
    sequences: Iterable[Sequence[str]],
    options: SchemeOptions,
    kept: Kept | None = None,
) -> list[str]:
    """An ID for each item, in the order of the items: words of letters and digits, all different, also in case.

    Args:
        sequences: training sequences of item keys, for the schemes `OF_SEQUENCES`.
        kept: IDs that are there already: only the other items get one (schemes `GROWING`).

    Raises:
        IdgrError: a package is not installed, or the items lack what the scheme makes IDs of.
    """
    check_packages(options.scheme)
    keys = [item.item_id for item in items]
    items = [item if item.text else replace(item, text=item.item_id.lower(), fields=None) for item in items]
    texts = [item.text for item in items]
    new, taken = (list(range(len(items))), list[str]()) if kept is None else (kept.new(items), kept.taken)
    match options.scheme:
        case "shared":
            from idgr.ids.schemes.shared_words import shared_word_ids

            order, rows = _in_training_order(keys, sequences, options.seed)
            place, text_of = {key: number for number, key in enumerate(order)}, dict(zip(keys, texts, strict=True))
            said = [text_of[key] for key in order]
            wanted = {keys[number] for number in new}
            places = [number for number, key in enumerate(order) if key in wanted]
            found = shared_word_ids(said, rows, options.words, options.shared_words, places=places, taken=taken)
            made = dict(zip(places, found, strict=True))
            return [made[place[keys[number]]] for number in new]
        case "clusters":
            return _cluster_ids(dict(zip(keys, texts, strict=True)), sequences, options)
        case "sequential":
            return sequential_ids(keys, sequences, options.seed)
        case "collaborative":
            from idgr.ids.schemes.collaborative import collaborative_ids

            return collaborative_ids(keys, sequences, options.clusters, options.leaf_size, options.seed)
        case "category":
            return category_ids(items, options.category_field, options.category_depth, kept=kept)
        case "title":
            return title_ids([items[place] for place in new], options.title_field, options.title_words, taken=taken)
        case "random":
            return random_ids(len(new), options.levels, options.codebook, options.seed, taken=taken)
        case "semantic":
            from idgr.ids.schemes.semantic import semantic_ids

            return semantic_ids(_vectors_of(texts, options), options.levels, options.codebook, options.seed)
        case _:
            return _tree_ids(dict(zip(keys, texts, strict=True)), options)


def _in_training_order(
    keys: Sequence[str], sequences: Iterable[Sequence[str]], seed: int
) -> tuple[list[str], list[list[int]]]:
    """The keys in `training_order`, and the sequences as places in it."""
    order, _ = training_order(keys, sequences, seed)
    place = {key: number for number, key in enumerate(order)}
    return order, [[place[key] for key in row] for row in sequences]


def _cluster_ids(texts: Mapping[str, str], sequences: Iterable[Sequence[str]], options: SchemeOptions) -> list[str]:
    """IDs by clusters of use, the same whatever the order of the items."""
    from idgr.ids.schemes.cluster_words import cluster_word_ids

    order, rows = _in_training_order(list(texts), sequences, options.seed)
    found = cluster_word_ids(
        [texts[key] for key in order],
        rows,
        cluster_size=options.cluster_size,
        n_telling=options.telling_words,
        seed=options.seed,
    )
    made = dict(zip(order, found, strict=True))
    return [made[key] for key in texts]


def _tree_ids(texts: Mapping[str, str], options: SchemeOptions) -> list[str]:
    """IDs by a tree, the same whatever the order of the items: they are put in one that tells nothing."""
    import faiss  # noqa: F401 - before `one_thread`

    from idgr.ids.schemes.item_vectors import item_vectors
    from idgr.ids.schemes.tree_words import check_room, dual_paths, path_words, single_paths

    order, _ = training_order(list(texts), [], options.seed)
    shape = (options.levels, options.codebook, options.branches, options.seed)
    check_room(len(order), options.levels, options.codebook, dual=options.scheme == "dual")
    if options.scheme != "semantic-tree":
        used_ND = item_vectors(order, str(options.item_vectors))
    if options.scheme != "behavior-tree":
        said_ND = _vectors_of([texts[key] for key in order], options)
    with one_thread():
        if options.scheme == "dual":
            paths_NL = dual_paths(said_ND, used_ND, *shape)
        else:
            paths_NL = single_paths(said_ND if options.scheme == "semantic-tree" else used_ND, *shape)
    made = dict(zip(order, path_words(paths_NL, options.codebook), strict=True))
    return [made[key] for key in texts]


def _vectors_of(texts: Sequence[str], options: SchemeOptions) -> Floats32:
    import faiss  # noqa: F401 - before `one_thread`, as are these
    import sklearn.feature_extraction.text
    import sklearn.utils.extmath  # noqa: F401

    from idgr.ids.schemes.text_vectors import text_vectors

    with one_thread():
        return text_vectors(texts, options.text_vectors, options.seed)
