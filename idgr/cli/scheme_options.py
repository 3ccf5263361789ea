"""Options of `gen-ids` that one scheme or a few of them read, and making IDs by such a scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idgr.errors import IdgrError, UsageError
from idgr.formats.jsonl import STDIN
from idgr.formats.records import Item, ItemId
from idgr.options import MOST_INT

if TYPE_CHECKING:
    from idgr.ids.schemes.choice import SchemeOptions

Trees = Literal["semantic-tree", "behavior-tree", "dual"]
Name = Literal["textual", "shared", "sequential", "collaborative", "category", "title", "random", "semantic", Trees]
TEXTUAL: Name = "textual"

Scheme = Annotated[
    Name,
    typer.Option(
        "--scheme",
        help="What IDs are made of; textual is Algorithm 1 or, by --model, the keyphrase rule; shared too is of words.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=MOST_INT, help="Of what is random in a scheme; category, title and textual have nothing."
    ),
]
Train = Annotated[
    str | None,
    typer.Option("--train", help="train.jsonl, which shared, sequential and collaborative IDs are made of."),
]
Words = Annotated[
    int, typer.Option("--words", max=MOST_INT, help="shared: words of an ID, all of the item's own text.")
]
SharedWords = Annotated[
    int,
    typer.Option(
        "--shared-words", max=MOST_INT, help="shared: first so many that it has in common with what is bought with it."
    ),
]
Clusters = Annotated[
    int, typer.Option("--clusters", max=MOST_INT, help="collaborative: parts that a cluster is divided into.")
]
LeafSize = Annotated[
    int, typer.Option("--leaf-size", max=MOST_INT, help="collaborative: items of a cluster that is left whole.")
]
CategoryField = Annotated[
    str, typer.Option("--category-field", help="category: the field of the text that lists categories, widest first.")
]
CategoryDepth = Annotated[
    int, typer.Option("--category-depth", max=MOST_INT, help="category: so many of them; a number tells equals apart.")
]
TitleField = Annotated[
    str, typer.Option("--title-field", help="title: the field with the title; of items without it, the first field.")
]
TitleWords = Annotated[int, typer.Option("--title-words", max=MOST_INT, help="title: so many of its words.")]
Levels = Annotated[
    int | None,
    typer.Option(
        "--levels", max=MOST_INT, help="semantic, random: code words of an ID, 3 if not given; trees: 4; dual: of both."
    ),
]
Codebook = Annotated[
    int, typer.Option("--codebook", max=MOST_INT, help="semantic, random, trees, dual: codes of a level.")
]
TextVectors = Annotated[
    str,
    typer.Option(
        "--text-vectors",
        help="semantic, semantic-tree, dual: tfidf, or the folder of an encoder, T5 or causal model that reads texts.",
    ),
]
Branches = Annotated[
    int,
    typer.Option(
        "--branches",
        max=MOST_INT,
        help="Trees, dual: parts of a part but at the last level; 0: as many as levels ask for.",
    ),
]
ItemVectors = Annotated[
    str | None,
    typer.Option("--item-vectors", help="behavior-tree, dual: folder of a SASRec or two-tower of train.jsonl."),
]

_EVERY = {"items", "output", "scheme", "seed", "rec-tokenizer"}
_READ_BY: dict[str, set[str]] = {
    "shared": {"train", "words", "shared-words", "empty-text"},
    "sequential": {"train"},
    "collaborative": {"train", "clusters", "leaf-size"},
    "category": {"category-field", "category-depth", "empty-text"},
    "title": {"title-field", "title-words", "empty-text"},
    "random": {"levels", "codebook"},
    "semantic": {"levels", "codebook", "text-vectors", "empty-text"},
    "semantic-tree": {"levels", "codebook", "branches", "text-vectors", "empty-text"},
    "behavior-tree": {"levels", "codebook", "branches", "item-vectors"},
    "dual": {"levels", "codebook", "branches", "text-vectors", "item-vectors", "empty-text"},
}
_OF_SCHEMES = set().union(*_READ_BY.values()) - {"empty-text"}


def shaping(scheme: str, given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the scheme reads, without the files and --seed, which a record holds elsewhere.

    Args:
        given: all options, by their names on the command line without the dashes before them.
        usual: their defaults.

    Raises:
        UsageError: another option is not at its default, or one that the scheme needs is missing.
    """
    read = _READ_BY.get(scheme, given.keys() - _OF_SCHEMES) | _EVERY
    strange = [name for name, value in given.items() if name not in read and value != usual[name]]
    if strange:
        readers = [name for name, names in _READ_BY.items() if strange[0] in names]
        rest = f"it is for {' and '.join(readers) or f'--scheme {TEXTUAL}'}"
        raise UsageError(f"--{strange[0]} given with --scheme {scheme}, which does not read it", rest)
    if "train" in _READ_BY.get(scheme, ()) and given["train"] is None:
        raise UsageError(f"--scheme {scheme} without --train", "give the train.jsonl of the items")
    if "item-vectors" in read and given["item-vectors"] is None:
        raise UsageError(
            f"--scheme {scheme} without --item-vectors",
            "give a folder of `idgr train-sasrec`",
        )
    if given["items"] == given["train"] == STDIN:
        raise UsageError("standard input (-) given for items and --train", "give `-` once")
    elsewhere = {"items", "output", "train", "text-vectors", "item-vectors", "rec-tokenizer", "seed"}
    shaped = {name: given[name] for name in given if name in read - elsewhere}
    return shaped | ({"levels": levels_of(scheme, given["levels"])} if "levels" in shaped else {})


def levels_of(scheme: str, given: int | None) -> int:
    """The levels that were given, or the scheme's usual ones; four are LLM-BS's."""
    from idgr.ids.schemes.choice import TREES

    return given if given is not None else 4 if scheme in TREES else 3


def options_of(scheme: str, given: Mapping[str, Any]) -> SchemeOptions:
    """Raises `UsageError` where a number is too small or too large."""
    from dataclasses import fields

    from idgr.ids.schemes.choice import SchemeOptions

    named = {field.name: given[field.name.replace("_", "-")] for field in fields(SchemeOptions)}
    return SchemeOptions(**named | {"levels": levels_of(scheme, given["levels"])})


def ids_by_scheme(
    catalogue: list[Item], train: str | None, options: SchemeOptions, rec_tokenizer: str | None
) -> list[ItemId]:
    """An ID for each item, in file order.

    Raises:
        IdgrError: as `scheme_ids` does; `train` holds an unknown item; or the tokenizer does not read the IDs back.
    """
    from idgr.formats.records import read_sequences
    from idgr.ids.schemes.choice import scheme_ids

    known = {item.item_id for item in catalogue}
    sequences = [] if train is None else [row.items for row in read_sequences(train, known)]
    texts = scheme_ids(catalogue, sequences, options)
    if rec_tokenizer is not None:
        from idgr.ids.spelling import can_spell
        from idgr.models.tokenizer import load_tokenizer

        wrong = [
            text
            for text, right in zip(texts, can_spell(load_tokenizer(rec_tokenizer), texts), strict=True)
            if not right
        ]
        if wrong:
            raise IdgrError(
                f"the tokenizer does not read back {len(wrong)} of {len(texts)} IDs, such as {wrong[0]!r}",
                "give another --rec-tokenizer or none: train-rec then learns its vocabulary from the IDs",
                where=rec_tokenizer,
            )
    return [ItemId(item.item_id, text) for item, text in zip(catalogue, texts, strict=True)]
