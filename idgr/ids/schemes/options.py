"""The schemes of IDs by name, and their options, each with the schemes that read it.

Imports nothing that takes time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from idgr.errors import UsageError
from idgr.ids.schemes.code_words import LEVELS
from idgr.options import UNSET, Option, Role, StageOptions, option

Trees = Literal["semantic-tree", "behavior-tree", "dual"]
Scheme = Literal[
    "textual", "shared", "clusters", "sequential", "collaborative", "category", "title", "random", "semantic", Trees
]
TEXTUAL: Scheme = "textual"  # Algorithm 1 or the keyphrase rule: `idgr.ids.generation`, `idgr.ids.keyphrase`
TREES = get_args(Trees)
SCHEMES = tuple(scheme for scheme in get_args(Scheme) if scheme != TEXTUAL)
OF_SEQUENCES = ("shared", "clusters", "sequential", "collaborative")
OF_TEXT = ("shared", "clusters", "category", "title", "semantic", "semantic-tree", "dual")
OF_TEXT_VECTORS = ("semantic", "semantic-tree", "dual")
OF_USE = ("behavior-tree", "dual")  # by the item vectors of a model that was trained on sequences
GROWING = (TEXTUAL, "shared", "category", "title", "random")  # an item's ID may be made beside those that there are
OF_CODES = ("random", "semantic", *TREES)
TFIDF = "tfidf"
_CODES_PANEL = f"Schemes {', '.join(OF_CODES)}"


@dataclass(frozen=True)
class SchemeOption(Option):
    """An option that some of the schemes read.

    Attributes:
        schemes: those that do.
        panel: named after them if not given.
    """

    schemes: tuple[str, ...] = ()
    panel: str = ""

    def __post_init__(self) -> None:
        if not self.panel:
            object.__setattr__(self, "panel", f"Scheme{'s' * (len(self.schemes) > 1)} {', '.join(self.schemes)}")


@dataclass(frozen=True)
class SchemeOptions(StageOptions):
    """The options of all schemes but the textual; each scheme reads its own."""

    scheme: Scheme = option(
        "What IDs are made of; textual is Algorithm 1 or, by --model, the keyphrase rule; shared and clusters are of "
        "words too."
    )
    seed: int = option("Seed of what is random in a scheme; nothing is in category, title and textual.", 0, at_least=0)
    words: Annotated[
        int, SchemeOption("Words of an ID, all of the item's own text.", schemes=("shared",), at_least=1)
    ] = 3
    shared_words: Annotated[
        int,
        SchemeOption(
            "How many of them, the first, an item shares with what is bought with it.", schemes=("shared",), at_least=0
        ),
    ] = 1
    cluster_size: Annotated[
        int, SchemeOption("Items of a small cluster, about.", schemes=("clusters",), at_least=1)
    ] = 24
    telling_words: Annotated[
        int,
        SchemeOption("Words of the item's own text behind those of its clusters.", schemes=("clusters",), at_least=0),
    ] = 4
    clusters: Annotated[
        int, SchemeOption("Parts that a cluster is divided into.", schemes=("collaborative",), at_least=2)
    ] = 20
    leaf_size: Annotated[
        int, SchemeOption("Items of a cluster that is left whole.", schemes=("collaborative",), at_least=1)
    ] = 100
    category_field: Annotated[
        str, SchemeOption("The field of the text that lists categories, widest first.", schemes=("category",))
    ] = "categories"
    category_depth: Annotated[
        int, SchemeOption("How many of them; a number tells equals apart.", schemes=("category",), at_least=1)
    ] = 5
    title_field: Annotated[
        str, SchemeOption("The field with the title; of items without it, the first field.", schemes=("title",))
    ] = "title"
    title_words: Annotated[int, SchemeOption("How many of its words.", schemes=("title",), at_least=1)] = 6
    levels: Annotated[
        int,
        SchemeOption(
            "Code words of an ID (default: 3, of trees 4); dual: of both trees together.",
            schemes=OF_CODES,
            at_least=1,
            at_most=LEVELS - 1,
        ),
    ] = UNSET
    codebook: Annotated[int, SchemeOption("Codes of a level.", schemes=OF_CODES, at_least=1)] = 256
    text_vectors: Annotated[
        str,
        SchemeOption(
            f"{', '.join(OF_TEXT_VECTORS)}: tfidf, or the folder of an encoder, T5 or causal model that reads texts.",
            schemes=OF_TEXT_VECTORS,
            role=Role.INPUT,
            panel=_CODES_PANEL,
        ),
    ] = TFIDF
    branches: Annotated[
        int,
        SchemeOption(
            f"{', '.join(TREES)}: parts of a part but at the last level; 0: as many as levels ask for.",
            schemes=TREES,
            panel=_CODES_PANEL,
            at_least=0,
        ),
    ] = 0
    item_vectors: Annotated[
        str | None,
        SchemeOption(
            f"{', '.join(OF_USE)}: folder of a SASRec or two-tower of train.jsonl.",
            schemes=OF_USE,
            role=Role.INPUT,
            panel=_CODES_PANEL,
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels is UNSET and self.scheme in OF_CODES:
            object.__setattr__(self, "levels", 4 if self.scheme in TREES else 3)  # four are LLM-BS's
        if self.shared_words > self.words:
            raise UsageError(f"--shared-words {self.shared_words}", f"give at most that of --words, {self.words}")
        if self.branches == 1 or self.branches > self.codebook:
            todo = f"give a number from 2 to that of --codebook, {self.codebook}, or 0"
            raise UsageError(f"--branches {self.branches}", todo)
