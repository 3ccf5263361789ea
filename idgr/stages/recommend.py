"""`idgr recommend`: the best items after each history."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import IO, Annotated, Any, Literal

from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import check_file
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import STDIN, STDOUT, Lines, dump_line, is_stream, read_jsonl
from idgr.formats.part_files import is_folder
from idgr.formats.part_lines import open_part
from idgr.formats.records import Query
from idgr.ids.shards import Shard, parse_shard
from idgr.options import Role, argument, option, output_option
from idgr.progress import Progress, log
from idgr.stages.options import SkipFinished, run_info, skips
from idgr.stages.parts import manifest, missing_parts
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

    histories: str = argument(
        "test.jsonl, train.jsonl, any user_id and history a line, or a folder of parts (JSON Lines or Parquet); - for "
        "stdin.",
        "HISTORIES",
    )
    rec: str | None = None
    ids: str | None = None
    output: str = output_option(
        "File to write; - for standard output, NAME.parquet for Parquet; of a folder of parts a folder.", STDOUT
    )
    unknown: Literal["drop", "error"] = option(
        "An item of a history that is not in the catalogue: leave it out and count it, or stop.", "drop"
    )
    prompts: Annotated[str | None, Textual("Write what the model was shown here.", role=Role.OUTPUT)] = None
    shard: str | None = option("Only every Nth history or part, from the Ith.", None, metavar="I/N")
    skip_finished: SkipFinished = False

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
    if is_folder(options.histories):
        parts = HistoryParts(options)
        return sum(parts.make(name) for name in missing_parts("recommend", parts.manifest, options.shard))
    for name in filter(None, (options.output, options.prompts, options.trie)):
        check_file(name)
    options = complete(options)
    record = run_info("recommend", options)
    if options.baseline is not None:
        refuse_held_out({"train": options.train}, [options.histories])
    part = None if options.shard is None else parse_shard(options.shard)
    ranker = load_ranker(options)
    record.options |= ranker.settled
    if options.skip_finished and skips(record, options.output, options.prompts):
        return sum(1 for _ in Lines(options.output, allow_empty=True))
    record.inputs_read("histories")
    _tell_few(options, ranker)
    with ExitStack() as files:
        written = files.enter_context(record.replace_file(options.output))
        prompts = files.enter_context(record.replace_file(options.prompts)) if options.prompts is not None else None
        done = _answer(Lines(options.histories), options, ranker, written, prompts, part)
        if done and ranker.expanded is not None:
            record.facts["expansions"] = round(ranker.expanded() / done, 1)
    if "expansions" in record.facts:
        expansions = record.facts["expansions"]
        log(f"recommend: {expansions} prefixes expanded for each history, to prove its items the best")
    return done


class HistoryParts:
    """A folder of histories in parts, which are answered into a folder of parts of the same names.

    Several processes may answer parts of one folder; the model is loaded at the first that one makes.

    Raises:
        IdgrError: there are no parts, or the output was made with other options or inputs.
        UsageError: options do not go together.
    """

    def __init__(self, options: Options) -> None:
        if options.prompts is not None:
            raise UsageError("--prompts given with a folder of parts", "leave it out, or give one file of histories")
        self._options = complete(options)
        record = run_info("recommend", self._options)
        self.manifest = manifest(record, options.histories, options.output, "histories", "shard")
        self._ranker: Ranker | None = None

    def missing(self) -> list[str]:
        """The names of the parts that are to be made."""
        return self.manifest.missing()

    def make(self, name: str) -> int:
        """Answer a part, and note in the manifest that it is done.

        Returns:
            The number of its histories.

        Raises:
            IdgrError: an input is not what it should be, or the output cannot be written.
        """
        options, histories = self._options, self.manifest.source(name)
        if options.baseline is not None:
            refuse_held_out({"train": options.train}, [histories])
        if self._ranker is None:
            self._ranker = load_ranker(options)
            _tell_few(options, self._ranker)
        with self.manifest.part(name) as written:
            return _answer(open_part(histories), options, self._ranker, written)


def _tell_few(options: Options, ranker: Ranker) -> None:
    if options.k > ranker.n_items:
        log(f"recommend: -k {options.k} is more than the {ranker.n_items} items that there are to recommend")


def _answer(
    histories: Lines,
    options: Options,
    ranker: Ranker,
    written: IO[bytes],
    prompts: IO[bytes] | None = None,
    part: Shard | None = None,
) -> int:
    """Write the best items after each history, tell what is unusual, and return how many histories there were."""
    reader, batch = _Reader(ranker.known, ranker.cure, drop=options.unknown == "drop"), options.batch_size
    done = short = 0
    with Progress("recommend", total=_count(histories, part), unit="histories") as shown:
        for queries in _blocks(reader.read(histories, part), 1 if batch == 1 else batch * _BATCHES_A_BLOCK):
            for row in ranker.rank(queries, options.k, shown.advance):
                written.write(dump_line(row.row()))
                short += len(row.items) < options.k
                done += 1
            written.flush()
            if prompts is not None and ranker.shown is not None:
                prompts.writelines(dump_line(ranker.shown(query)) for query in queries)
        reader.check_some_known(histories.path)
    reader.tell(done)
    if short:
        log(f"recommend: {short} of {done} histories have fewer than {options.k} items")
    return done


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

    def read(self, lines: Lines, part: Shard | None) -> Iterator[Query]:
        """The histories of a file, or a part of them. Raises `IdgrError` at the first line that is wrong."""
        stream: Iterable[tuple[Query, int]] = read_jsonl(lines, self._parse)
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


def _count(lines: Lines, part: Shard | None) -> int | None:
    """How many histories a file holds, or a part of it; None where it can be read only once."""
    if lines.path == STDIN or is_stream(lines.path):
        return None
    n = sum(1 for _ in lines)
    return n if part is None else len(part.places(n))


def _blocks(stream: Iterable[Query], size: int) -> Iterator[list[Query]]:
    stream = iter(stream)
    while block := list(islice(stream, size)):
        yield block
