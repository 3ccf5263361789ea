"""Options of `train-rec` for what a causal model learns beside recommending: tasks in words, and the contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idgr.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from idgr.recommender.auxiliary_tasks import AuxiliaryTaskOptions
    from idgr.recommender.contrast import Contrast

Reconstruction = Annotated[
    float,
    typer.Option("--reconstruction", help="causal: instances of an item's text to its ID, or back, for each sequence."),
]
Preference = Annotated[
    float,
    typer.Option("--preference", help="causal: instances of a history's telling words to its IDs, or back, likewise."),
]
ContrastSemantic = Annotated[
    float,
    typer.Option("--contrast-semantic", help="causal: weight of drawing a history's end to its last item's text."),
]
ContrastBehavior = Annotated[
    float,
    typer.Option("--contrast-behavior", help="causal: weight of drawing it to that item's vector of --item-vectors."),
]
TextVectors = Annotated[
    str,
    typer.Option("--text-vectors", help="For --contrast-semantic: tfidf, or the folder of a model that reads texts."),
]
ItemVectors = Annotated[
    str | None,
    typer.Option("--item-vectors", help="For --contrast-behavior: folder of a SASRec or two-tower of train.jsonl."),
]

_TFIDF = "tfidf"


@dataclass(frozen=True)
class CausalOptions:
    """What was given of them; the names are those on the command line."""

    reconstruction: float
    preference: float
    contrast_semantic: float
    contrast_behavior: float
    items: str | None
    text_vectors: str
    item_vectors: str | None

    def numbers(self) -> dict[str, float]:
        names = ("reconstruction", "preference", "contrast_semantic", "contrast_behavior")
        return {f"--{name.replace('_', '-')}": getattr(self, name) for name in names}

    @property
    def has_tasks(self) -> bool:
        return bool(self.reconstruction or self.preference)

    @property
    def reads_items(self) -> bool:
        return self.has_tasks or bool(self.contrast_semantic)

    def check(self, arch: str) -> None:
        """Raise `UsageError` where they do not go together, with each other or with --arch."""
        for option, value in self.numbers().items():
            if not 0 <= value < inf:
                raise UsageError(f"{option} {value:g}", "give a number of at least 0")
            if value and arch != "causal":
                raise UsageError(f"{option} given with --arch {arch}", "take --arch causal, or leave it out")
            if value and option != "--contrast-behavior" and self.items is None:
                raise UsageError(f"{option} without --items", "give the items.jsonl that the IDs were made for")
        if self.contrast_behavior and self.item_vectors is None:
            raise UsageError(
                "--contrast-behavior without --item-vectors",
                "give a folder of `idgr train-sasrec`",
            )
        if self.item_vectors is not None and not self.contrast_behavior:
            raise UsageError("--item-vectors without --contrast-behavior", "give it a weight, or leave them out")
        if self.text_vectors != _TFIDF and not self.contrast_semantic:
            raise UsageError("--text-vectors without --contrast-semantic", "give it a weight, or leave them out")

    def folders(self) -> dict[str, str | None]:
        """The folders among them, by their role as inputs."""
        encoder = self.text_vectors if self.text_vectors != _TFIDF else None
        return {"text_vectors": encoder, "item_vectors": self.item_vectors}


def tasks_of(given: CausalOptions, keys: Sequence[str]) -> AuxiliaryTaskOptions:
    """The tasks, with the texts of items where there are any; `keys` are the items in the order of their numbers."""
    from idgr.recommender.auxiliary_tasks import AuxiliaryTaskOptions

    texts = _texts(given, keys) if given.has_tasks else []
    return AuxiliaryTaskOptions(given.reconstruction, given.preference, texts)


def contrast_of(given: CausalOptions, model: Any, keys: Sequence[str], seed: int) -> Contrast | None:
    """The contrast for a model on its device; None where it has no weight.

    Raises:
        IdgrError: a package is not installed, a folder holds no usable model, or it does not know an item.
    """
    from idgr.ids.schemes.item_vectors import item_vectors
    from idgr.recommender.contrast import BEHAVIOR, SEMANTIC, new_contrast

    kinds = {}
    if given.contrast_semantic:
        kinds[SEMANTIC] = given.contrast_semantic, _said(_texts(given, keys), given.text_vectors, seed)
    if given.contrast_behavior:
        kinds[BEHAVIOR] = given.contrast_behavior, item_vectors(keys, str(given.item_vectors))
    return new_contrast(model, kinds, seed) if kinds else None


def _texts(given: CausalOptions, keys: Sequence[str]) -> list[str]:
    """The items' texts; an item without one is called by its key, as `gen-ids` does."""
    from idgr.recommender.prompts import item_texts

    texts = item_texts(str(given.items), keys)
    return [text or key.lower() for text, key in zip(texts, keys, strict=True)]


def _said(texts: Sequence[str], source: str, seed: int) -> npt.NDArray[np.float32]:
    """The texts' vectors, as `gen-ids` has them."""
    from idgr.ids.schemes.libraries import check_package, one_thread

    check_package("scikit-learn", "--contrast-semantic")
    import sklearn.feature_extraction.text
    import sklearn.utils.extmath  # noqa: F401 - before `one_thread`

    from idgr.ids.schemes.text_vectors import text_vectors

    with one_thread():
        return text_vectors(texts, source, seed)
