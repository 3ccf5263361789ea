"""`idgr eval`: recommendations against the truth, beside popularity and Markov."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idgr.errors import UsageError
from idgr.formats.claims import check_file
from idgr.formats.held_out import refuse_held_out
from idgr.formats.jsonl import STDIN, STDOUT, read_jsonl, write_json, write_jsonl
from idgr.formats.records import key, read_queries, read_sequences
from idgr.options import Role, StageOptions, argument, option
from idgr.progress import log
from idgr.stages.options import OutputFile, run_info

if TYPE_CHECKING:
    from idgr.formats.records import Query


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Score recommendations against held-out targets, beside popularity and Markov.

    Beside accuracy, for each cutoff k: coverage@k, the share of the catalogue that is recommended to anyone; gini@k,
    how unequally recommendations fall on the items, from 0, all alike, to 1, all on one; short@k, the share of users
    whose list has fewer than k items.

    The transition tells what a hit takes: memorised, where some training sequence has the target right after the last
    item of the history; generalised, where none has, but training has the target more than 3 times; new otherwise.

    Example: idgr eval recs.jsonl --truth data/beauty/test.jsonl --train data/beauty/train.jsonl -o metrics.json
    """

    recs: str = argument("Recommendations, recs.jsonl, or - for standard input.", "RECS")
    truth: str = option("valid.jsonl or test.jsonl: histories with targets.", role=Role.INPUT)
    train: str | None = option("train.jsonl, for the baselines and segments.", None, role=Role.INPUT)
    output: OutputFile = STDOUT
    cutoffs: list[int] | None = option("Cutoff; may be repeated (default: 5 and 10).", None, flags=("-k",), at_least=1)
    items: str | None = option(
        "The catalogue: JSONL with item_id (default: items.jsonl beside the truth).", None, role=Role.INPUT
    )
    per_user: str | None = option("Write a row a user here.", None, role=Role.OUTPUT)
    segments: bool = option(
        "Score by history length, target popularity, new items and transition, which --per-user tells too.", False
    )
    keep_history: bool = option("Let baselines recommend items of the history.", False)
    no_baselines: bool = option("Leave out popularity and Markov; --train is not needed.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output == self.per_user:
            raise UsageError("-o and --per-user name the same file or standard output", "give each its own")
        if self.train is None and not self.no_baselines:
            raise UsageError("the baselines need --train", "give train.jsonl, or --no-baselines to go without them")
        if self.train is None and self.segments:
            raise UsageError("--segments needs --train", "give train.jsonl")

    @property
    def ks(self) -> list[int]:
        """The cutoffs, in ascending order."""
        return sorted(set(self.cutoffs or (5, 10)))


def run(options: Options) -> dict[str, Any]:
    """Score recommendations, and write the metrics.

    Returns:
        The metrics.

    Raises:
        IdgrError: an input is not what it should be, or lists and truth are of different users.
    """
    for written in filter(None, (options.output, options.per_user)):
        check_file(written)
    truth, train, items = options.truth, options.train, options.items
    beside = Path(truth).with_name("items.jsonl")
    if items is None and truth != STDIN and beside.is_file():
        items = str(beside)
    record = run_info("eval", options, items=items)
    record.options["k"] = options.ks
    refuse_held_out({"train": train}, [truth])

    from idgr.evaluation.scoring import baseline_lists, read_lists, score

    known = None if items is None else set(read_jsonl(items, lambda row: key(row, "item_id")))
    queries = list(read_queries(truth, known, need_target=True))
    sequences = [] if train is None else [sequence.items for sequence in read_sequences(train, known)]
    catalogue = known if known is not None else _named(queries, sequences)
    lists = read_lists(options.recs, queries, catalogue)
    _warn(options, lists, queries)
    baselines = None
    if not options.no_baselines:
        baselines = baseline_lists(queries, sequences, options.ks[-1], keep_history=options.keep_history)
    scores = score(
        lists,
        queries,
        len(catalogue),
        options.ks,
        baselines=baselines,
        train=None if train is None else sequences,
        by_segment=options.segments,
    )
    record.check_unchanged()
    if options.per_user is not None:
        write_jsonl(options.per_user, scores.per_user)
        record.write(options.per_user)
    write_json(options.output, scores.metrics)
    record.write(options.output)
    return scores.metrics


def _warn(options: Options, lists: list[list[str]], queries: list[Query]) -> None:
    """Say where the figures tell less than they seem to."""
    longest = max(map(len, lists))
    for k in options.ks:
        if longest < k:
            log(f"eval: no list holds {k} items, so @{k} tells of the first {longest}; recommend with -k {k} for more")
    if options.keep_history:
        return
    repeats = sum(not set(row).isdisjoint(query.history) for row, query in zip(lists, queries, strict=True))
    if repeats and not options.no_baselines:
        log(f"eval: {repeats} lists hold items of the history, which the baselines leave out; see --keep-history")
    in_history = sum(query.target in query.history for query in queries)
    if in_history:
        log(
            f"eval: {in_history} of {len(queries)} targets stand in their own histories, so lists that leave the "
            "history out, as those of recommend and the baselines do, can never hit them; see --keep-history"
        )


def _named(queries: list[Any], sequences: list[list[str]]) -> set[str]:
    """The items that the truth and training name: the catalogue, where no file gives one."""
    named = {item for sequence in sequences for item in sequence}
    for query in queries:
        named.update(query.history, [query.target])
    return named
