"""`idgr eval`: recommendations against the truth, beside popularity and Markov."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from idgr.errors import UsageError
from idgr.formats.held_out import refuse_held_out
from idgr.options import MOST_INT


def eval_command(
    recs: Annotated[str, typer.Argument(help="Recommendations, recs.jsonl, or - for standard input.")],
    truth: Annotated[str, typer.Option(help="valid.jsonl or test.jsonl: histories with targets.")],
    train: Annotated[str | None, typer.Option(help="train.jsonl, for the baselines and segments.")] = None,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write the metrics.")] = "-",
    cutoffs: Annotated[
        list[int] | None, typer.Option("-k", min=1, max=MOST_INT, help="Cutoff; may be repeated (default: 5 and 10).")
    ] = None,
    items: Annotated[
        str | None, typer.Option(help="The catalogue: JSONL with item_id (default: items.jsonl beside the truth).")
    ] = None,
    per_user: Annotated[str | None, typer.Option(help="Write a row a user here.")] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="Score by history length, target popularity, new items.")
    ] = False,
    keep_history: Annotated[
        bool, typer.Option("--keep-history", help="Let baselines recommend items of the history.")
    ] = False,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Leave out popularity and Markov; --train is not needed.")
    ] = False,
) -> None:
    """Score recommendations against held-out targets, beside popularity and Markov.

    Beside accuracy, for each cutoff k: coverage@k, the share of the catalogue that is recommended to anyone; gini@k,
    how unequally recommendations fall on the items, from 0, all alike, to 1, all on one; short@k, the share of users
    whose list has fewer than k items.

    Example: idgr eval recs.jsonl --truth data/beauty/test.jsonl --train data/beauty/train.jsonl -o metrics.json
    """
    _check(recs, truth, train, output, items, per_user, segments, no_baselines)
    from idgr.formats.claims import check_file

    for written in filter(None, (output, per_user)):
        check_file(written)
    catalogue_file = items
    if catalogue_file is None and truth != "-" and Path(truth).with_name("items.jsonl").is_file():
        catalogue_file = str(Path(truth).with_name("items.jsonl"))

    from idgr.evaluation.scoring import baseline_lists, read_lists, score
    from idgr.formats.jsonl import read_jsonl, write_json, write_jsonl
    from idgr.formats.records import key, read_queries, read_sequences
    from idgr.formats.run_info import RunInfo
    from idgr.progress import log

    refuse_held_out({"train": train}, [truth])
    ks = sorted(set(cutoffs or (5, 10)))
    info = RunInfo(
        "eval",
        {"k": ks, "segments": segments, "keep-history": keep_history, "no-baselines": no_baselines},
        {"recs": recs, "truth": truth, "train": train, "items": catalogue_file},
        outputs=[output, per_user],
    )
    known = None
    if catalogue_file is not None:
        known = set(read_jsonl(catalogue_file, lambda row: key(row, "item_id")))
    queries = list(read_queries(truth, known, need_target=True))
    sequences = [] if train is None else [sequence.items for sequence in read_sequences(train, known)]
    catalogue = known if known is not None else _named(queries, sequences)
    lists = read_lists(recs, queries, catalogue)
    longest = max(map(len, lists))
    for k in ks:
        if longest < k:
            log(f"eval: no list holds {k} items, so @{k} tells of the first {longest}; recommend with -k {k} for more")
    repeats = sum(not set(row).isdisjoint(query.history) for row, query in zip(lists, queries, strict=True))
    if repeats and not keep_history and not no_baselines:
        log(f"eval: {repeats} lists hold items of the history, which the baselines leave out; see --keep-history")
    in_history = sum(query.target in query.history for query in queries)
    if in_history and not keep_history:
        log(
            f"eval: {in_history} of {len(queries)} targets stand in their own histories, so lists that leave the "
            "history out, as those of recommend and the baselines do, can never hit them; see --keep-history"
        )
    scores = score(
        lists,
        queries,
        len(catalogue),
        ks,
        baselines=None if no_baselines else baseline_lists(queries, sequences, ks[-1], keep_history=keep_history),
        train=None if train is None else sequences,
        by_segment=segments,
    )
    info.check_unchanged()
    if per_user is not None:
        write_jsonl(per_user, scores.per_user)
        info.write(per_user)
    write_json(output, scores.metrics)
    info.write(output)
    _show("stdin" if recs == "-" else Path(recs).name, scores.metrics, ks)


def _check(
    recs: str,
    truth: str,
    train: str | None,
    output: str,
    items: str | None,
    per_user: str | None,
    segments: bool,
    no_baselines: bool,
) -> None:
    if [recs, truth, train, items].count("-") > 1:
        raise UsageError("two inputs are standard input", "give a file for all but one")
    if output == "-" and per_user == "-":
        raise UsageError(
            "metrics and per-user rows would both go to standard output", "give a file to -o or --per-user"
        )
    if output == per_user:
        raise UsageError("-o and --per-user name the same file", "give each its own")
    if train is None and not no_baselines:
        raise UsageError("the baselines need --train", "give train.jsonl, or --no-baselines to go without them")
    if train is None and segments:
        raise UsageError("--segments needs --train", "give train.jsonl")


def _named(queries: list[Any], sequences: list[list[str]]) -> set[str]:
    """The items that the truth and training name: the catalogue, where no file gives one."""
    named = {item for sequence in sequences for item in sequence}
    for query in queries:
        named.update(query.history, [query.target])
    return named


def _show(name: str, metrics: dict[str, Any], ks: list[int]) -> None:
    """Print the metrics as tables on standard error."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 120
    accuracy = [f"{metric}@{k}" for k in ks for metric in ("hr", "ndcg")] + [f"mrr@{ks[-1]}"]
    columns = [*accuracy, *(f"{metric}@{ks[-1]}" for metric in ("coverage", "gini", "short"))]
    table = Table(
        title=f"{metrics['n_users']:,} users, {metrics['n_items']:,} items",
        title_justify="left",
        caption=f"short@{ks[-1]}: the share of users whose list has fewer than {ks[-1]} items",
        caption_justify="left",
    )
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    rivals = metrics.get("baselines", {})
    for row, figures in {name: metrics, **rivals}.items():
        table.add_row(row, *(f"{figures[column]:.4f}" for column in columns))
    console.print(table)

    shown = f"hr@{ks[-1]}"
    for division, parts in metrics.get("segments", {}).items():
        table = Table(title=f"{shown} by {division.replace('_', ' ')}", title_justify="left")
        for column in ("", "users", name, *rivals):
            table.add_column(column, justify="right" if column else "left")
        for segment, figures in parts.items():
            everyone = [figures, *(figures["baselines"][rival] for rival in rivals)]
            table.add_row(segment, f"{figures['n_users']:,}", *(f"{one[shown]:.4f}" for one in everyone))
        console.print(table)
