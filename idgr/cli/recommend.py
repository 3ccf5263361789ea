"""`idgr recommend`: the best items after each history."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idgr.cli.answers import ask_baseline, ask_item_model, ask_recommender, check_item_model_options
from idgr.decoding.options import SearchOptions
from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import check_file
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import STDIN, STDOUT, Lines, dump_line, is_stream, read_jsonl
from idgr.formats.rec_folder import CONFIG, ITEMS, item_model_type
from idgr.formats.records import Query
from idgr.formats.run_info import RunInfo
from idgr.options import MOST_INT
from idgr.progress import Progress, log

if TYPE_CHECKING:
    from idgr.ids.shards import Shard

# So many batches are read before they are sorted by length; a batch of one answers line by line.
_BATCHES_A_BLOCK = 16


def recommend(
    histories: Annotated[
        str,
        typer.Argument(
            metavar="HISTORIES", help="test.jsonl, train.jsonl, or any user_id and history a line; - for stdin."
        ),
    ],
    rec: Annotated[
        str | None,
        typer.Option("--rec", help="A folder of `idgr train-rec`, `train-sasrec` or `train-two-tower`."),
    ] = None,
    ids: Annotated[
        str | None, typer.Option("--ids", help="The ids.jsonl that it was trained on; none for a model of items.")
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write the recommendations.")] = STDOUT,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", help="An adapter of `idgr train-adapter`, of this --rec; off if not given."),
    ] = None,
    k: Annotated[int, typer.Option("-k", max=MOST_INT, help="Items for each history.")] = 10,
    beams: Annotated[int, typer.Option("--beams", max=MOST_INT, help="Prefixes that beam search follows.")] = 20,
    normalize: Annotated[
        Literal["full", "trie"] | None,
        typer.Option("--normalize", help="Softmax over vocabulary or valid children; as trained if not given."),
    ] = None,
    length_penalty: Annotated[
        float,
        typer.Option("--length-penalty", help="A score is divided by its ID's length to this power, from -10 to 10."),
    ] = 0.0,
    search: Annotated[
        Literal["beam", "exact"], typer.Option("--search", help="Beam search, or the proven best items.")
    ] = "beam",
    keep_history: Annotated[
        bool, typer.Option("--keep-history", help="Items of the history may be recommended again.")
    ] = False,
    unknown: Annotated[
        Literal["drop", "error"],
        typer.Option(
            "--unknown", help="An item of a history that is not in the catalogue: leave it out and count it, or stop."
        ),
    ] = "drop",
    allow: Annotated[str | None, typer.Option("--allow", help="Only the items of this file, one key a line.")] = None,
    template: Annotated[
        int, typer.Option("--template", min=0, max=MOST_INT, help="Which of the recommender's templates, from 0.")
    ] = 0,
    gen: Annotated[
        str | None, typer.Option("--gen", help="The ID generator, where the recommender was trained with user IDs.")
    ] = None,
    items: Annotated[str | None, typer.Option("--items", help="items.jsonl, for the same.")] = None,
    prompts: Annotated[str | None, typer.Option("--prompts", help="Write what the model was shown here.")] = None,
    baseline: Annotated[
        Literal["popularity", "markov"] | None,
        typer.Option("--baseline", help="Instead of a recommender, one of these; needs --train."),
    ] = None,
    train: Annotated[str | None, typer.Option("--train", help="train.jsonl, for --baseline.")] = None,
    trie: Annotated[
        str | None, typer.Option("--trie", help="Keep the prefix tree of the IDs here from one run to the next.")
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", min=1, max=10**6, help="Histories at a time; with 1 each line is answered at once."
        ),
    ] = 32,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Only every Nth history, from the Ith.")
    ] = None,
    precision: Annotated[Literal["fp32", "bf16"], typer.Option("--precision", help="Of the model's weights.")] = "fp32",
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Take IDs that the recommender was not trained on.")] = False,
) -> None:
    """Recommend items after each history, by a recommender's scores or a baseline's rule.

    Example: idgr recommend data/beauty/test.jsonl --rec rec/ --ids ids.jsonl -k 10 -o recs.jsonl
    """
    given = {name.replace("_", "-"): value for name, value in locals().items()}
    inputs: dict[str, str | os.PathLike[str] | None] = {
        "histories": histories,
        "rec": rec,
        "ids": ids,
        "adapter": adapter,
        "allow": allow,
        "train": train,
        "gen": gen,
        "items": items,
    }
    _check_conflicts(inputs, output, prompts, baseline, given)
    shaping = {
        name: value for name, value in given.items() if name not in {*inputs, "output", "prompts", "trie", "device"}
    }
    if baseline is not None:
        refuse_held_out({"train": train}, [histories])
    run = RunInfo("recommend", shaping, inputs, outputs=[output, prompts, trie])

    from idgr.ids.shards import parse_shard

    part = parse_shard(shard) if shard is not None else None
    if baseline is not None:
        asked = ask_baseline(given)
    elif item_model_type(str(rec)) is not None:
        asked = ask_item_model(given)
    else:
        asked = ask_recommender(given)
    run.options |= asked.settled
    run.inputs_read("histories")

    if k > asked.n_items:
        log(f"recommend: -k {k} is more than the {asked.n_items} items that there are to recommend")
    reader = _Reader(asked.known, asked.cure, drop=unknown == "drop")
    block = 1 if batch_size == 1 else batch_size * _BATCHES_A_BLOCK
    short = done = 0
    with ExitStack() as files:
        written = files.enter_context(run.replace_file(output))
        written_prompts = files.enter_context(run.replace_file(prompts)) if prompts is not None else None
        total = _count(histories, part)
        shown = files.enter_context(Progress("recommend", total=total, unit="histories"))
        for queries in _blocks(reader.read(histories, part), block):
            for row in asked.answer(queries, shown.advance):
                written.write(dump_line(row.row()))
                short += len(row.items) < k
                done += 1
            written.flush()
            if written_prompts is not None and asked.shown is not None:
                written_prompts.writelines(dump_line(asked.shown(query)) for query in queries)
        reader.check_some_known(histories)
        if done and asked.expanded is not None:
            run.facts["expansions"] = round(asked.expanded() / done, 1)
    if reader.dropped:
        empty = f", {reader.emptied} of which are empty now" if reader.emptied else ""
        log(f"recommend: left {reader.dropped} unknown items out of {reader.changed} of {done} histories{empty}")
    if short:
        log(f"recommend: {short} of {done} histories have fewer than {k} items")
    if "expansions" in run.facts:
        log(f"recommend: {run.facts['expansions']} prefixes expanded for each history, to prove its items the best")


@dataclass
class _Reader:
    """Reads histories, and counts what it leaves out of them.

    Attributes:
        known: the keys of the items that histories may hold; None for any.
        cure: what to do about an item that is not known.
        drop: whether to leave such an item out.
        dropped: how many times one was left out.
        changed: of how many histories.
        emptied: how many of those had no other items.
        kept: how many items were known.
    """

    known: Container[str] | None
    cure: str
    drop: bool
    dropped: int = 0
    changed: int = 0
    emptied: int = 0
    kept: int = 0

    def check_some_known(self, path: str) -> None:
        """Raise `IdgrError` where items were left out and none was known: they are those of another catalogue."""
        if self.dropped and not self.kept:
            what = f"none of the {self.dropped} items in its histories is in the catalogue"
            raise IdgrError(what, self.cure, where=path)

    def read(self, path: str, part: Shard | None) -> Iterator[Query]:
        """The histories of a file, or a part of them. Raises `IdgrError` at the first line that is wrong."""
        stream: Iterable[tuple[Query, int]] = read_jsonl(path, self._parse)
        if part is not None:
            stream = islice(stream, part.number - 1, None, part.of)
        for query, n_unknown in stream:
            self.kept += len(query.history)
            if n_unknown:
                self.dropped += n_unknown
                self.changed += 1
                self.emptied += not query.history
            yield query

    def _parse(self, row: dict[str, Any]) -> tuple[Query, int]:
        """A history, and how many unknown items it had."""
        if "history" not in row and "scores" not in row and "items" in row:  # a line of train.jsonl, none of recs.jsonl
            row = row | {"history": row["items"]}
        query = Query.parse(row | {"target": None})  # a target has no way to what is recommended
        if self.known is None:
            return query, 0
        kept = []
        for item in query.history:
            if item in self.known:
                kept.append(item)
            elif not self.drop:
                raise ValueError(f"unknown item {item!r}; {self.cure}, or leave such items out with --unknown drop")
        return Query(query.user_id, kept), len(query.history) - len(kept)


def _count(path: str, part: Shard | None) -> int | None:
    """How many histories a file holds, or a part of it; None where it can be read only once."""
    if path == STDIN or is_stream(path):
        return None
    n = sum(1 for _ in Lines(path))
    return n if part is None else len(part.places(n))


def _check_conflicts(
    inputs: dict[str, str | os.PathLike[str] | None],
    output: str,
    prompts: str | None,
    baseline: str | None,
    given: dict[str, Any],
) -> None:
    if list(inputs.values()).count(STDIN) > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    written = [name for name in (output, prompts, given["trie"]) if name is not None]
    if len(set(written)) < len(written):
        raise UsageError("-o, --prompts and --trie name the same file", "give each its own")
    for name in written:
        check_file(name)
    if given["k"] < 1:
        raise UsageError(f"-k {given['k']}", "ask for at least one item")
    if given["beams"] < 1:
        raise UsageError(f"--beams {given['beams']}", "follow at least one prefix")
    SearchOptions(1, 1, given["length-penalty"])
    trie = given["trie"]
    if trie is not None and (trie.endswith(".gz") or is_stream(trie)):
        raise UsageError(f"--trie {trie}: a prefix tree is mapped from a plain file", "give it another name")
    if baseline is None:
        of_items = inputs["rec"] is not None and item_model_type(inputs["rec"]) is not None
        if inputs["rec"] is not None and not of_items and (Path(inputs["rec"]) / ITEMS).is_file():
            todo = "give a folder that `idgr train-sasrec` or `idgr train-two-tower` wrote"
            raise IdgrError(f"lists items, but its {CONFIG} is not one of a model of items", todo, where=inputs["rec"])
        if inputs["rec"] is None or (inputs["ids"] is None and not of_items):
            raise UsageError("a recommender needs --rec and --ids", "give both, or --baseline with --train")
        if of_items:
            check_item_model_options(given)
        if inputs["train"] is not None:
            raise UsageError("--train is for --baseline", "leave it out")
        return
    if inputs["train"] is None:
        raise UsageError(f"--baseline {baseline} needs --train", "give train.jsonl")
    asks = [given[name] for name in ("rec", "adapter", "prompts", "trie", "gen", "items")]
    if any(value is not None for value in asks):
        todo = "leave --rec, --adapter, --prompts, --trie, --gen and --items out"
        raise UsageError("--baseline asks no model", todo)


def _blocks(stream: Iterable[Query], size: int) -> Iterator[list[Query]]:
    stream = iter(stream)
    while block := list(islice(stream, size)):
        yield block
