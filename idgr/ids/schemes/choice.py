"""Which scheme makes the IDs of a catalogue, and with which options. Knows items, sequences and the schemes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from idgr.errors import UsageError
from idgr.formats.records import Item
from idgr.ids.schemes.category import category_ids
from idgr.ids.schemes.code_words import LEVELS
from idgr.ids.schemes.libraries import check_packages, one_thread
from idgr.ids.schemes.random_codes import random_ids
from idgr.ids.schemes.sequential import sequential_ids
from idgr.ids.schemes.title import title_ids

SCHEMES = ("sequential", "collaborative", "category", "title", "random", "semantic")
OF_SEQUENCES = ("sequential", "collaborative")
OF_TEXT = ("category", "title", "semantic")


@dataclass(frozen=True)
class SchemeOptions:
    """The options of all schemes by their names on the command line; each scheme reads its own.

    Attributes:
        clusters, leaf_size: of `collaborative`.
        category_field, category_depth: of `category`.
        title_field, title_words: of `title`.
        levels, codebook: of `random` and `semantic`.
        text_vectors: of `semantic`: "tfidf" or a folder.
    """

    scheme: str
    seed: int = 0
    clusters: int = 20
    leaf_size: int = 100
    category_field: str = "categories"
    category_depth: int = 5
    title_field: str = "title"
    title_words: int = 6
    levels: int = 3
    codebook: int = 256
    text_vectors: str = "tfidf"

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UsageError(f"--scheme {self.scheme}", f"choose textual, {', '.join(SCHEMES)}")
        least = {"clusters": 2, "leaf_size": 1, "category_depth": 1, "title_words": 1, "levels": 1, "codebook": 1}
        for name, bound in {**least, "seed": 0}.items():
            if getattr(self, name) < bound:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} {getattr(self, name)}", f"give a number of at least {bound}")
        if self.levels >= LEVELS:
            raise UsageError(f"--levels {self.levels}", f"give a number below {LEVELS}")


def scheme_ids(items: Sequence[Item], sequences: Iterable[Sequence[str]], options: SchemeOptions) -> list[str]:
    """An ID for each item, in the order of the items: words of letters and digits, all different, also in case.

    Args:
        sequences: training sequences of item keys, for the schemes `OF_SEQUENCES`.

    Raises:
        IdgrError: a package is not installed, or the items lack what the scheme makes IDs of.
    """
    check_packages(options.scheme)
    keys = [item.item_id for item in items]
    texts = [item.text or item.item_id.lower() for item in items]
    match options.scheme:
        case "sequential":
            return sequential_ids(keys, sequences, options.seed)
        case "collaborative":
            from idgr.ids.schemes.collaborative import collaborative_ids

            return collaborative_ids(keys, sequences, options.clusters, options.leaf_size, options.seed)
        case "category":
            return category_ids(texts, options.category_field, options.category_depth)
        case "title":
            return title_ids(texts, options.title_field, options.title_words)
        case "random":
            return random_ids(len(items), options.levels, options.codebook, options.seed)
        case _:
            import faiss  # noqa: F401 - before `one_thread`, as are these
            import sklearn.feature_extraction.text
            import sklearn.utils.extmath  # noqa: F401

            from idgr.ids.schemes.semantic import semantic_ids
            from idgr.ids.schemes.text_vectors import text_vectors

            with one_thread():
                vectors_ND = text_vectors(texts, options.text_vectors, options.seed)
            return semantic_ids(vectors_ND, options.levels, options.codebook, options.seed)
