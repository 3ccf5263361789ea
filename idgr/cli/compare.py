"""`idgr compare`: whether results differ by more than chance, tested user by user."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from idgr.errors import UsageError, check_utf8
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDIN, STDOUT, write_json
from idgr.formats.run_info import RunInfo
from idgr.options import MOST_INT
from idgr.progress import log

METRICS = ["hr@5", "ndcg@5", "hr@10", "ndcg@10"]


def compare(
    results: Annotated[
        list[str], typer.Argument(metavar="USERS…", help="Two or more files of `idgr eval --per-user`.")
    ],
    reference: Annotated[
        str | None, typer.Option("--reference", help="The file that the others are held against (default: the first).")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="A column of the files; may be repeated (default: HR and NDCG at 5, 10)."),
    ] = None,
    correction: Annotated[
        Literal["holm", "bonferroni", "none"],
        typer.Option("--correction", help="For many comparisons: over all systems and metrics, for each kind of test."),
    ] = "holm",
    resamples: Annotated[
        int,
        typer.Option("--resamples", min=99, max=10**9, help="Of the randomisation test and the bootstrap, each."),
    ] = 9_999,
    level: Annotated[
        float, typer.Option("--level", min=0.5, max=0.9999, help="Confidence of the interval of the difference.")
    ] = 0.95,
    interval: Annotated[
        Literal["percentile", "basic", "BCa"],
        typer.Option("--interval", help="Kind of bootstrap interval; BCa is slow for many users."),
    ] = "percentile",
    common: Annotated[
        bool, typer.Option("--common", help="Test on the users that all files hold, instead of refusing others.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_INT, help="Of all that is drawn.")] = 0,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write the tests.")] = STDOUT,
) -> None:
    """Test whether results differ from a reference: Student's t, Fisher's randomisation, bootstrap interval.

    Example: idgr compare runs/sasrec/users.jsonl runs/idgr/users.jsonl -o significance.json
    """
    if len(results) < 2:
        raise UsageError("one file has nothing to be compared with", "give two files or more")
    if len(set(results)) < len(results):
        raise UsageError("a file is named twice", "give each result once")
    base = results[0] if reference is None else reference
    if base not in results:
        raise UsageError(f"--reference {base} is none of the files", "name one of those that are compared")
    chosen = list(dict.fromkeys(metrics or METRICS))
    check_file(output)
    check_utf8("names in the output", *results)

    from idgr.evaluation.comparison import compare_results, read_results
    from idgr.evaluation.significance import Resampling

    options = {"reference": base, "metric": chosen, "correction": correction, "resamples": resamples}
    options |= {"level": level, "interval": interval, "common": common}
    info = RunInfo(
        "compare", options, {f"results-{place}": file for place, file in enumerate(results, 1)}, seed, outputs=[output]
    )
    found = read_results([base, *(file for file in results if file != base)], chosen, common=common)
    if found.left_out:
        log(f"compare: {found.left_out} users that not all files hold are left out")
    rows = compare_results(found, base, Resampling(resamples, seed, level, interval), correction)
    head = {"reference": base, "n_users": len(found.users), "users_left_out": found.left_out}
    info.check_unchanged()
    write_json(output, {**head, **options, "seed": seed, "comparisons": rows})
    info.write(output)
    _show(rows, base, len(found.users), correction, level)


def _show(rows: list[dict[str, Any]], reference: str, n_users: int, correction: str, level: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    told = "not corrected" if correction == "none" else f"{correction.capitalize()}, {len(rows)} tests of a kind"
    name = "stdin" if reference == STDIN else reference
    title = f"against {name}, {n_users:,} users; p-values {told}"
    table = Table("", "metric", title=title, title_justify="left")
    for column in ("reference", "mean", "difference", f"{level:.4g} interval", "better/worse", "p t-test", "p random."):
        table.add_column(column, justify="right")
    for row in rows:
        low, high = row["interval"]
        table.add_row(
            "stdin" if row["system"] == STDIN else row["system"],
            row["metric"],
            f"{row['reference_mean']:.4f}",
            f"{row['mean']:.4f}",
            f"{row['difference']:+.4f}",
            f"{low:+.4f} to {high:+.4f}",
            f"{row['better']:,}/{row['worse']:,}",
            _p(row["p_t_test_corrected"]),
            _p(row["p_randomisation_corrected"]),
        )
    console.print(table)


def _p(value: float) -> str:
    return "<.0001" if value < 0.0001 else f"{value:.4f}"
