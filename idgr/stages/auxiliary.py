"""What a causal model is taught beside recommending: tasks in words, and a contrast with vectors of its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from idgr.errors import UsageError
from idgr.options import UNSET, Role, StageOptions, option

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from idgr.recommender.auxiliary_tasks import AuxiliaryTaskOptions
    from idgr.recommender.contrast import Contrast
    from idgr.recommender.item_head import ItemObjective

PANEL = "Auxiliary tasks of a causal model"
_TFIDF = "tfidf"
_READ_TEXTS = ("reconstruction", "preference", "contrast_semantic", "near_items")
NEAR_ITEMS = 50  # what did best, see recipes/standard/LOG.md
_WEIGHTS = (*_READ_TEXTS, "contrast_behavior", "item_head")
_DROPPED = 0.2


@dataclass(frozen=True, kw_only=True)
class AuxiliaryOptions(StageOptions):
    """Options of `train-rec` for it."""

    items: str | None = option(
        "items.jsonl, for what reads texts: --user-ids, tasks, --contrast-semantic.", None, PANEL, role=Role.INPUT
    )
    reconstruction: float = option(
        "Instances of an item's text to its ID, or back, for each sequence.", 0.0, PANEL, at_least=0
    )
    preference: float = option(
        "Instances of a history's telling words to its IDs, or back, likewise.", 0.0, PANEL, at_least=0
    )
    contrast_semantic: float = option(
        "Weight of drawing a history's end to its last item's text.", 0.0, PANEL, at_least=0
    )
    contrast_behavior: float = option(
        "Weight of drawing it to that item's vector of --item-vectors.", 0.0, PANEL, at_least=0
    )
    text_vectors: str = option(
        "For --contrast-semantic: tfidf, or the folder of a model that reads texts.", _TFIDF, PANEL, role=Role.INPUT
    )
    item_vectors: str | None = option(
        "Folder of a SASRec or two-tower of train.jsonl: for --contrast-behavior, or the vectors of --item-head.",
        None,
        PANEL,
        role=Role.INPUT,
    )
    item_head: float = option(
        "Weight of a softmax over all items beside the prefix tree; ranking then heeds both.", 0.0, PANEL, at_least=0
    )
    item_head_dropout: float = option(
        "For --item-head: dropout of its states and item vectors.", _DROPPED, PANEL, at_least=0, below=1
    )
    tell_items: bool = option(
        "For --item-head: add an item's vector where its ID has been read, in training and in searches.", False, PANEL
    )

    near_items: int = option(
        "For --item-head: add how alike an item is, by its text and by who bought it, to its nearest items, so many of "
        "each kind; 50 with --items, else 0.",
        UNSET,
        PANEL,
        at_least=0,
    )

    def near_items_settled(self) -> int:
        """What `near_items` is where it is not given."""
        return NEAR_ITEMS if self.item_head and self.items is not None else 0

    @property
    def has_tasks(self) -> bool:
        return bool(self.reconstruction or self.preference)

    @property
    def reads_texts(self) -> bool:
        return any(getattr(self, name) for name in _READ_TEXTS)

    @property
    def encoder(self) -> str | None:
        """The folder of the model that reads texts, where it is one."""
        return None if self.text_vectors == _TFIDF else self.text_vectors


def check_auxiliary(options: AuxiliaryOptions, arch: str) -> None:
    """Raise `UsageError` where they do not go together, with each other or with --arch."""
    for name in _WEIGHTS:
        flag, value = f"--{name.replace('_', '-')}", getattr(options, name)
        if value and arch != "causal":
            raise UsageError(f"{flag} given with --arch {arch}", "take --arch causal, or leave it out")
        if value and name in _READ_TEXTS and options.items is None:
            raise UsageError(f"{flag} without --items", "give the items.jsonl that the IDs were made for")
    if arch == "causal" and options.items is not None and not options.reads_texts:
        todo = "give one of the options that do a weight, or leave it out"
        raise UsageError("--items given, but nothing here reads texts", todo)
    if options.contrast_behavior and options.item_vectors is None:
        raise UsageError("--contrast-behavior without --item-vectors", "give a folder of `idgr train-sasrec`")
    if options.item_vectors is not None and not (options.contrast_behavior or options.item_head):
        what = "--item-vectors without --contrast-behavior or --item-head"
        raise UsageError(what, "give one of them a weight, or leave the vectors out")
    if options.tell_items and not options.item_head:
        raise UsageError("--tell-items without --item-head", "give the head a weight, or leave it out")
    if options.near_items and not options.item_head:
        raise UsageError("--near-items without --item-head", "give the head a weight, or leave them out")
    if options.item_head_dropout != _DROPPED and not options.item_head:
        raise UsageError("--item-head-dropout without --item-head", "give it a weight, or leave the dropout out")
    if options.encoder is not None and not options.contrast_semantic:
        raise UsageError("--text-vectors without --contrast-semantic", "give it a weight, or leave them out")


def auxiliary_tasks(options: AuxiliaryOptions, keys: Sequence[str]) -> AuxiliaryTaskOptions:
    """The tasks, with the texts of items where there are any; `keys` are the items in the order of their numbers."""
    from idgr.recommender.auxiliary_tasks import AuxiliaryTaskOptions

    texts = _texts(options, keys) if options.has_tasks else []
    return AuxiliaryTaskOptions(options.reconstruction, options.preference, texts)


def contrast(options: AuxiliaryOptions, model: Any, keys: Sequence[str], seed: int) -> Contrast | None:
    """The contrast for a model on its device; None where it has no weight.

    Raises:
        IdgrError: a package is not installed, a folder holds no usable model, or it does not know an item.
    """
    from idgr.ids.schemes.item_vectors import item_vectors
    from idgr.recommender.contrast import BEHAVIOR, SEMANTIC, new_contrast

    kinds = {}
    if options.contrast_semantic:
        vectors = _text_vectors(_texts(options, keys), options.text_vectors, seed)
        kinds[SEMANTIC] = options.contrast_semantic, vectors
    if options.contrast_behavior:
        kinds[BEHAVIOR] = options.contrast_behavior, item_vectors(keys, str(options.item_vectors))
    return new_contrast(model, kinds, seed) if kinds else None


def item_head(
    options: AuxiliaryOptions,
    model: Any,
    keys: Sequence[str],
    sequences: Sequence[Sequence[int]],
    rows: Sequence[Sequence[int]],
    separator: int,
    seed: int,
) -> ItemObjective | None:
    """The head over items for a model on its device; None where it has no weight.

    Args:
        keys: the items in the order of their numbers.
        sequences: the training sequences, as item numbers.
        rows: the tokens of their IDs.
        separator: the token that stands between items.

    Raises:
        IdgrError: a folder holds no usable model of items, or it does not know an item.
    """
    from idgr.ids.schemes.item_vectors import trained_vectors
    from idgr.recommender.item_head import new_item_head
    from idgr.recommender.near_items import OwnItems, near_items

    if not options.item_head:
        return None
    near = own = None
    if options.near_items:
        near = near_items(_texts(options, keys), sequences, options.near_items)
        own = OwnItems.of(sequences, len(keys))
    given = None if options.item_vectors is None else trained_vectors(keys, options.item_vectors)
    return new_item_head(
        model,
        rows,
        options.item_head,
        options.item_head_dropout,
        seed,
        separator,
        given,
        tells=options.tell_items,
        near=near,
        own=own,
    )


def _texts(options: AuxiliaryOptions, keys: Sequence[str]) -> list[str]:
    from idgr.recommender.prompts import texts_or_keys

    return texts_or_keys(str(options.items), keys)


def _text_vectors(texts: Sequence[str], source: str, seed: int) -> npt.NDArray[np.float32]:
    """The texts' vectors, as `gen-ids` has them."""
    from idgr.ids.schemes.libraries import check_package, one_thread

    check_package("scikit-learn", "--contrast-semantic")
    import sklearn.feature_extraction.text
    import sklearn.utils.extmath  # noqa: F401 - before `one_thread`

    from idgr.ids.schemes.text_vectors import text_vectors

    with one_thread():
        return text_vectors(texts, source, seed)
