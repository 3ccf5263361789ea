"""The tables of `eval`, `zeroshot` and `compare`, on standard error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from idgr.cli.show.tables import console
from idgr.formats.jsonl import STDIN


def evaluation(metrics: dict[str, Any], options: Any) -> None:
    """The metrics of `eval`."""
    _metrics("stdin" if options.recs == STDIN else Path(options.recs).name, metrics, options.ks)


def zeroshot(metrics: dict[str, Any], options: Any) -> None:
    _metrics("recs.jsonl", metrics, options.ks)


def _metrics(name: str, metrics: dict[str, Any], ks: list[int]) -> None:
    from rich.table import Table

    out = console(120)
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
    out.print(table)

    shown = f"hr@{ks[-1]}"
    for division, parts in metrics.get("segments", {}).items():
        table = Table(title=f"{shown} by {division.replace('_', ' ')}", title_justify="left")
        for column in ("", "users", name, *rivals):
            table.add_column(column, justify="right" if column else "left")
        for segment, figures in parts.items():
            everyone = [figures, *(figures["baselines"][rival] for rival in rivals)]
            table.add_row(segment, f"{figures['n_users']:,}", *(f"{one[shown]:.4f}" for one in everyone))
        out.print(table)


def comparison(tests: dict[str, Any], options: Any) -> None:
    """The tests of `compare`."""
    from rich.table import Table

    rows, correction = tests["comparisons"], tests["correction"]
    told = "not corrected" if correction == "none" else f"{correction.capitalize()}, {len(rows)} tests of a kind"
    name = "stdin" if tests["reference"] == STDIN else tests["reference"]
    title = f"against {name}, {tests['n_users']:,} users; p-values {told}"
    table = Table("", "metric", title=title, title_justify="left")
    for column in (
        "reference",
        "mean",
        "difference",
        f"{tests['level']:.4g} interval",
        "better/worse",
        "p t-test",
        "p random.",
    ):
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
    console(160).print(table)


def _p(value: float) -> str:
    return "<.0001" if value < 0.0001 else f"{value:.4f}"
