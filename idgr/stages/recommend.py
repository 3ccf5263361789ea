"""`idgr recommend`: the best items after each history."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal

from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import check_file
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import STDIN, STDOUT, Lines, dump_line, is_stream, read_jsonl
from idgr.formats.records import Query
from idgr.formats.run_info import RunInfo
from idgr.ids.shards import Shard, parse_shard
from idgr.options import Role, argument, option
from idgr.progress import Progress, log
from idgr.stages.options import OutputFile, run_info
from idgr.stages.ranker import Ranker
from idgr.stages.ranker_options import RankerOptions, Textual, complete
from idgr.stages.rankers import load_ranker

# So many batches are read before they are sorted by length; a batch of one answers line by line.
_BATCHES_A_BLOCK = 16


@dataclass(frozen=True, kw_only=True)
class Options(RankerOptions):
    """Recommend items after each history, by a recommender's scores or a baseline's rule.

    Example: idgr recommend data/beauty/test.jsonl --rec rec/ --ids ids.jsonl -k 10 -o recs.jsonl
    """

    histories: str = argument("test.jsonl, train.jsonl, or any user_id and history a line; - for stdin.", "HISTORIES")
    rec: str | None = None
    ids: str | None = None
    output: OutputFile = STDOUT
    unknown: Literal["drop", "error"] = option(
        "An item of a history that is not in the catalogue: leave it out and count it, or stop.", "drop"
    )
    prompts: Annotated[str | None, Textual("Write what the model was shown here.", role=Role.OUTPUT)] = None
    shard: str | None = option("Only every Nth history, from the Ith.", None, metavar="I/N")

    def __post_init__(self) -> None:
        super().__post_init__()
        written = [name for name in (self.output, self.prompts, self.trie) if name is not None]
        if len(set(written)) < len(written):
            raise UsageError("-o, --prompts and --trie name the same file", "give each its own")


def run(options: Options) -> int:
    """Write the best items after each history to the output, as far as they are read.

    Returns:
        The number of histories.

    Raises:
        IdgrError: an input is not what it should be, or the output cannot be written.
        UsageError: options do not go together.
    """
    for name in filter(None, (options.output, options.prompts, options.trie)):
        check_file(name)
    options = complete(options)
    record = run_info("recommend", options)
    if options.baseline is not None:
        refuse_held_out({"train": options.train}, [options.histories])
    part = None if options.shard is None else parse_shard(options.shard)
    ranker = load_ranker(options)
    record.options |= ranker.settled
    record.inputs_read("histories")
    if options.k > ranker.n_items:
        log(f"recommend: -k {options.k} is more than the {ranker.n_items} items that there are to recommend")
    reader = _Reader(ranker.known, ranker.cure, drop=options.unknown == "drop")
    done, short = _write(options, record, ranker, reader, part)
    reader.tell(done)
    if short:
        log(f"recommend: {short} of {done} histories have fewer than {options.k} items")
    if "expansions" in record.facts:
        expansions = record.facts["expansions"]
        log(f"recommend: {expansions} prefixes expanded for each history, to prove its items the best")
    return done


def _write(options: Options, record: RunInfo, ranker: Ranker, reader: _Reader, part: Shard | None) -> tuple[int, int]:
    """How many histories were answered, and how many of them with fewer than k items."""
    histories, batch = options.histories, options.batch_size
    done = short = 0
    with ExitStack() as files:
        written = files.enter_context(record.replace_file(options.output))
        prompts = files.enter_context(record.replace_file(options.prompts)) if options.prompts is not None else None
        shown = files.enter_context(Progress("recommend", total=_count(histories, part), unit="histories"))
        for queries in _blocks(reader.read(histories, part), 1 if batch == 1 else batch * _BATCHES_A_BLOCK):
            for row in ranker.rank(queries, options.k, shown.advance):
                written.write(dump_line(row.row()))
                short += len(row.items) < options.k
                done += 1
            written.flush()
            if prompts is not None and ranker.shown is not None:
                prompts.writelines(dump_line(ranker.shown(query)) for query in queries)
        reader.check_some_known(histories)
        if done and ranker.expanded is not None:
            record.facts["expansions"] = round(ranker.expanded() / done, 1)
    return done, short


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

    def tell(self, done: int) -> None:
        """Say what was left out of so many histories."""
        if self.dropped:
            empty = f", {self.emptied} of which are empty now" if self.emptied else ""
            log(f"recommend: left {self.dropped} unknown items out of {self.changed} of {done} histories{empty}")

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


def _blocks(stream: Iterable[Query], size: int) -> Iterator[list[Query]]:
    stream = iter(stream)
    while block := list(islice(stream, size)):
        yield block
