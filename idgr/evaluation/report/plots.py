"""The plots of a report, as PNG files.

Drawn through matplotlib's figures alone, so nothing of its global state is touched and no display is needed. Every
function draws into a folder and returns the names of its files; what there is nothing of is not drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from idgr.errors import IdgrError
from idgr.evaluation.report.gathering import Gathered
from idgr.evaluation.report.learned_ids import IdsFile
from idgr.evaluation.report.results import DIVISIONS, TestSet
from idgr.evaluation.segments import TRANSITIONS

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#777777", "#000000")  # Okabe and Ito
_STYLES = ("-", "--", ":", "-.")
_DPI = 120
_DIVIDED_BY = {
    "history_length": "items in the history",
    "target_popularity": "times the target is in training",
    "transition": "the step to the target, by training",
}
MOST_SERIES = len(_COLOURS) * len(_STYLES)  # in one plot; more cannot be told apart


def check_packages() -> None:
    """Raise `IdgrError` where what a report needs is not installed."""
    if find_spec("matplotlib") is None:
        raise IdgrError("matplotlib, which a report needs, is not installed", "pip install 'idgr[report]'")


def draw(found: Gathered, folder: Path) -> dict[str, list[str]]:
    """Draw everything that there is.

    Returns:
        The names of the files by section: `recommenders`, `first_generators`, `generators`, `rounds`, `segments` and
        `lengths`; those of segments are as many as the test sets, with an empty name where one has no segments.
    """
    loss = ("loss", "training loss")
    recommender = (loss, ("ndcg@10", "validation NDCG@10"))
    copying = (loss, ("held_out_loss", "loss on held-out pairs"))
    return {
        "recommenders": _curves(found, folder, "train-rec", "learning-recommender.png", *recommender),
        # Their losses are of different things: the IDs that are taught, and the recommender's on its target.
        "first_generators": _curves(found, folder, "init-gen", "learning-first-generator.png", *copying),
        "generators": _curves(found, folder, "train-gen", "learning-generator.png", loss),
        "rounds": _rounds(found, folder),
        "segments": [_segments(one, folder, f"segments-{n}.png") for n, one in enumerate(found.test_sets, 1)],
        "lengths": _lengths(found.ids, folder),
    }


def _curves(found: Gathered, folder: Path, command: str, name: str, *panels: tuple[str, str]) -> list[str]:
    by_points: dict[str, tuple[list[str], list[dict[str, Any]]]] = {}
    for curve in found.curves:
        if curve.command == command and curve.epochs:
            drawn = str([_points(curve.epochs, key) for key, _ in panels])
            by_points.setdefault(drawn, ([], curve.epochs))[0].append(curve.name)
    # Equal curves, such as those of the first round of two runs, would hide each other.
    curves = [(" = ".join(names), epochs) for names, epochs in by_points.values()][:MOST_SERIES]
    told = [(key, label) for key, label in panels if any(_points(epochs, key) for _, epochs in curves)]
    if not told:
        return []
    with _figure(folder / name, len(told), len(curves)) as axes:
        for ax, (key, label) in zip(axes, told, strict=True):
            for place, (names, epochs) in enumerate(curves):
                ax.plot(*_columns(_points(epochs, key)), label=names, marker="o", markersize=4, **_look(place))
            _axis(ax, "epoch", label)
            ax.xaxis.get_major_locator().set_params(integer=True)
    return [name]


def _rounds(found: Gathered, folder: Path) -> list[str]:
    runs = {name: lines for name, lines in found.rounds.items() if lines}
    if not runs:
        return []
    # Runs of another mode lack phases; the phases of all in their order, the generator's before the recommender's.
    phases = sorted({(line["round"], str(line.get("phase"))) for lines in runs.values() for line in lines})
    place_of = {phase: place for place, phase in enumerate(phases)}
    panels = (("ndcg@10", "validation NDCG@10"), ("ids_changed", "IDs changed by the phase"))
    with _figure(folder / "rounds.png", len(panels), len(runs)) as axes:
        for ax, (key, label) in zip(axes, panels, strict=True):
            for place, lines in enumerate(list(runs.values())[:MOST_SERIES]):
                points = [
                    (place_of[line["round"], str(line.get("phase"))], line[key])
                    for line in lines
                    if isinstance(line.get(key), (int, float))
                ]
                look = _look(place) | ({} if key == "ndcg@10" else {"linestyle": ""})  # a change is no course
                ax.plot(*_columns(points), label=list(runs)[place], marker="o", clip_on=False, **look)
            ax.set_xticks(range(len(phases)), [f"{number} {phase}" for number, phase in phases])
            ax.margins(x=0.1)
            _axis(ax, "round and phase", label)
            ax.set_ylim(bottom=0)
    return ["rounds.png"]


def _segments(one: TestSet, folder: Path, name: str) -> str:
    told = [result for result in one.results if result.segments][:MOST_SERIES]
    panels = [division for division in DIVISIONS if any(division in result.segments for result in told)]
    if not panels:
        return ""
    with _figure(folder / name, len(panels), len(told)) as axes:
        for ax, division in zip(axes, panels, strict=True):
            users = {part: n for result in told for part, (_, n) in result.segments.get(division, {}).items()}
            parts = sorted(users, key=_place)
            width = 0.84 / len(told)
            for place, result in enumerate(told):
                shares = [result.segments.get(division, {}).get(part, (0.0, 0))[0] for part in parts]
                left = [x - 0.42 + (place + 0.5) * width for x in range(len(parts))]
                look = {"color": _look(place)["color"], "hatch": "" if place < len(_COLOURS) else "//"}
                ax.bar(left, shares, width, label=result.name, edgecolor="white", linewidth=0.4, **look)
            ax.set_xticks(range(len(parts)), [f"{part}\nn={users[part]:,}" for part in parts])
            ax.tick_params(axis="x", labelsize=8)
            _axis(ax, _DIVIDED_BY[division], one.hit_rate.upper())
    return name


def _place(segment: str) -> int:
    """Of a segment among those of its division: intervals by their lowest value."""
    return TRANSITIONS.index(segment) if segment in TRANSITIONS else int(segment.rstrip("+").partition("-")[0])


def _lengths(files: Sequence[IdsFile], folder: Path) -> list[str]:
    shown = files[:MOST_SERIES]
    panels = [("words", [(one, one.words) for one in shown])]
    tokens = [(one, one.tokens) for one in shown if one.tokens is not None]
    panels += [("tokens", tokens)] if tokens else []
    if not shown:
        return []
    with _figure(folder / "id-lengths.png", len(panels), len(shown)) as axes:
        for ax, (unit, rows) in zip(axes, panels, strict=True):
            shortest = min(min(lengths) for _, lengths in rows)
            places = range(max(0, shortest - 1), max(max(lengths) for _, lengths in rows) + 2)
            for one, lengths in rows:
                shares = [lengths.count(length) / len(lengths) for length in places]
                ax.step(places, shares, where="mid", label=one.name, **_look(shown.index(one)))
            _axis(ax, f"{unit} of the ID", "share of items")
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.set_ylim(bottom=0)
    return ["id-lengths.png"]


def _points(epochs: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(one["epoch"], one[key]) for one in epochs if isinstance(one.get(key), (int, float))]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _look(place: int) -> dict[str, Any]:
    return {"color": _COLOURS[place % len(_COLOURS)], "linestyle": _STYLES[place // len(_COLOURS) % len(_STYLES)]}


def _axis(ax: Any, x: str, y: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


@contextmanager
def _figure(path: Path, n_panels: int, n_series: int) -> Iterator[list[Any]]:
    """Panels side by side with one legend below them, saved when they are drawn."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Names are of files and may hold a `$`, which is no formula.
    with rc_context({"text.parse_math": False, "font.size": 10}):
        legend_rows = -(-n_series // 2)
        height = 3.4 + 0.22 * legend_rows
        figure = Figure(figsize=(5.2 * n_panels if n_panels > 1 else 6.4, height), layout="constrained")
        axes = list(figure.subplots(1, n_panels, squeeze=False)[0])
        yield axes
        drawn: dict[str, Any] = {}
        for ax in axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                drawn.setdefault(label, handle)
        columns = 2 if n_panels > 1 else 1
        figure.legend(
            list(drawn.values()), list(drawn), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
        )
        figure.savefig(path, dpi=_DPI, metadata={"Software": None})
