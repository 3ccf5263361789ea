"""The page of a report, in Markdown: tables and sentences around the plots.

What could not be found is told in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import mean
from typing import Any

from idgr.errors import one_line
from idgr.evaluation.audit.checks import FAIL, PASS, SKIP, WARN
from idgr.evaluation.report.gathering import Audit, Gathered, Made
from idgr.evaluation.report.learned_ids import IdsFile, LearnedIds
from idgr.evaluation.report.results import INTERVAL, Result, TestSet

_TEXT = 160  # characters of an item's text that are shown
_LINE = 100  # characters of a line of a command, where it can be broken


def page(found: Gathered, plots: dict[str, list[str]], command_line: Callable[[Made], list[str]]) -> str:
    """The whole page.

    Args:
        plots: names of files by section, as `idgr.evaluation.report.plots.draw` gives them.
        command_line: the words that a user would type to run a command again.
    """
    parts: list[str] = ["# Report", f"On {', '.join(_code(folder) for folder in found.folders)}."]
    parts += ["## Results", *_results(found.test_sets)]
    parts += ["## Learning curves", *_curves(found, plots)]
    parts += [
        "## Hit rate by history length, target popularity and transition",
        *_segments(found.test_sets, plots["segments"]),
    ]
    parts += ["## Length of the IDs", *_lengths(found.ids, plots["lengths"])]
    parts += ["## IDs before and after training", *_learned(found.learned)]
    parts += ["## Audit", *_audits(found.audits)]
    parts += ["## Commands", *_commands(found.made, command_line)]
    return "\n\n".join(parts) + "\n"


def _results(test_sets: Sequence[TestSet]) -> Iterator[str]:
    if not test_sets:
        yield "No metrics of `idgr eval` or `idgr zeroshot` were found."
        return
    with_interval = any(result.intervals for one in test_sets for result in one.results)
    told = "All items are ranked. The best of a column is bold; rows in italics are the baselines of `idgr eval`."
    if with_interval:
        told += f" In brackets: {INTERVAL.level:.0%} bootstrap intervals over users, where per-user rows are there."
    else:
        told += " There are no intervals, since no per-user rows (`idgr eval --per-user`) are there."
    yield f"{told} Whether two rows differ by more than chance is told by `idgr compare`."
    for one in test_sets:
        yield f"**{_code(one.path)}**: {one.n_users:,} users, {one.n_items:,} items"
        best = {metric: max(result.figures.get(metric, 0.0) for result in one.results) for metric in one.metrics}
        rows = [
            [_name(result), *(_figure(result, metric, best[metric]) for metric in one.metrics)]
            for result in one.results
        ]
        yield _table(["", *(metric.upper() for metric in one.metrics)], rows, right=len(one.metrics))


def _name(result: Result) -> str:
    return f"*{_cell(result.name)}*" if result.baseline else _cell(result.name)


def _figure(result: Result, metric: str, best: float) -> str:
    if metric not in result.figures:
        return "–"
    value = result.figures[metric]
    text = f"**{value:.4f}**" if value == best else f"{value:.4f}"
    if metric in result.intervals:
        low, high = result.intervals[metric]
        text += f" [{low:.4f}, {high:.4f}]"
    return text


def _curves(found: Gathered, plots: dict[str, list[str]]) -> Iterator[str]:
    for section, told, missing in (
        ("recommenders", "Recommenders, by epoch.", "No training of a recommender with a `log.jsonl` was found."),
        ("first_generators", "First ID generators, by epoch.", "No training by `idgr init-gen` was found."),
        (
            "generators",
            "ID generators, by epoch: the recommender's loss.",
            "No training by `idgr train-gen` was found.",
        ),
        ("rounds", "Runs of `idgr alternate`, by round and phase.", "No run of `idgr alternate` was found."),
    ):
        if not plots[section]:
            yield missing
            continue
        yield told
        yield from (_image(told, plot) for plot in plots[section])
    for name, lines in found.rounds.items():
        yield f"Phases of {_code(name)}, on {lines[0].get('n_users', 0):,} users of the validation set:"
        columns = ("loss", "hr@10", "ndcg@10", "ids_changed", "ids_second_attempt", "ids_longer")
        rows = [
            [f"{line['round']} {_cell(str(line.get('phase')))}", *(_number(line.get(key)) for key in columns)]
            for line in lines
        ]
        heads = ("loss", "HR@10", "NDCG@10", "IDs changed", "second attempt", "longer")
        yield _table(["round and phase", *heads], rows, right=len(heads))


def _segments(test_sets: Sequence[TestSet], plots: Sequence[str]) -> Iterator[str]:
    if not test_sets:
        yield "No results to divide."
    for one, plot in zip(test_sets, plots, strict=True):
        lacking = [result.name for result in one.results if not result.segments and not result.baseline]
        if plot:
            yield f"{one.hit_rate.upper()} on {_code(one.path)}; n is the number of users."
            yield _image(f"{one.hit_rate.upper()} by segment", plot)
        if lacking:
            names = ", ".join(_code(name) for name in lacking)
            yield f"Not divided, for want of `idgr eval --segments` or `--per-user` with `--train`: {names}."


def _lengths(files: Sequence[IdsFile], plots: Sequence[str]) -> Iterator[str]:
    if not files:
        yield "No IDs of `idgr gen-ids` were found."
        return
    yield "Of equal files the first is shown."
    yield from (_image("Length of the IDs", plot) for plot in plots)
    rows = [
        [_cell(one.name), f"{len(one.words):,}", *_mean_and_most(one.words), *_mean_and_most(one.tokens)]
        for one in files
    ]
    heads = ["", "items", "words, mean", "most", "tokens, mean", "most"]
    yield _table(heads, rows, right=5)
    if any(one.tokens is None for one in files):
        yield "Tokens are not counted where neither a recommender trained on the IDs nor their generator is at hand."


def _mean_and_most(lengths: Sequence[int] | None) -> list[str]:
    return ["–", "–"] if lengths is None else [f"{mean(lengths):.2f}", f"{max(lengths):,}"]


def _learned(runs: Sequence[LearnedIds]) -> Iterator[str]:
    if not runs:
        yield "No run of `idgr alternate` with the IDs of two rounds was found."
    for one in runs:
        told = f"{_code(one.name)}, from round-0 to {one.last}: {one.n_changed:,} of {one.n_items:,} items"
        if not one.n_changed:
            yield f"{told} have another ID."
            continue
        some = "all of them" if one.n_changed == len(one.shown) else f"the first {len(one.shown)} of them"
        yield f"{told} have another ID; {some}, in the order of the catalogue:"
        rows = [[_cell(text, _TEXT), _cell(before), _cell(after)] for text, before, after in one.shown]
        yield _table(["item", "ID before", "ID after"], rows)


def _audits(audits: Sequence[Audit]) -> Iterator[str]:
    if not audits:
        yield "Not asked for (`--no-audit`)."
    for one in audits:
        if one.reason:
            yield f"{_code(one.folder)} could not be audited: {_cell(one.reason)}."
            continue
        counts = {
            verdict: sum(check.verdict == verdict for check in one.checks) for verdict in (PASS, FAIL, SKIP, WARN)
        }
        verdict = f"**{FAIL if counts[FAIL] else PASS}**"
        told = f"{counts[PASS]} checks passed, {counts[FAIL]} failed, {counts[SKIP]} could not be made"
        told += f", {counts[WARN]} warned" if counts[WARN] else ""
        rest = [check for check in one.checks if check.verdict != PASS]
        yield f"{_code(one.folder)}: {verdict}; {told}{', these:' if rest else '.'}"
        if rest:
            rows = [
                [check.verdict, _cell(check.name), _cell(check.subject), _cell(check.evidence)]
                for check in sorted(rest, key=lambda check: check.verdict)
            ]
            yield _table(["", "check", "where", "evidence"], rows)
        yield f"Every check: `idgr audit {one.folder}`."


def _commands(made: Sequence[Made], command_line: Callable[[Made], list[str]]) -> Iterator[str]:
    if not made:
        yield "No records of commands were found."
        return
    yield "In the order of their start, from the records beside the outputs; options not shown were off or not given."
    whole = [one for one in made if one.run is None]
    versions = [_versions(one) for one in whole]
    for one, version in zip(whole, versions, strict=True):
        record = one.record
        told = [f"{_code(one.name)}", f"started {_cell(str(record.get('started')))}", _duration(record.get("seconds"))]
        told += [f"seed {record['seed']}"] if record.get("seed") is not None else []
        told += [f"versions: {version}"] if len(set(versions)) > 1 else []
        yield ", ".join(told)
        yield f"```sh\n{_wrapped(command_line(one))}\n```"
        parts = [part for part in made if part.run == one.name and record.get("command") == "alternate"]
        if parts:
            yield "Its parts:"
            rows = [
                [_cell(str(part.record.get("command"))), _cell(part.name), _duration(part.record.get("seconds"))]
                for part in parts
            ]
            yield _table(["command", "output", "time"], rows)
    if len(set(versions)) == 1:
        yield f"Versions of all: {versions[0]}."


def _versions(made: Made) -> str:
    versions = made.record.get("versions")
    return ", ".join(f"{name} {one}" for name, one in versions.items()) if isinstance(versions, dict) else "not told"


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return "time not told"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"


def _wrapped(words: Sequence[str]) -> str:
    """Words on lines of a bounded length, each but the last ended by a backslash."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + 3 > _LINE and lines[-1]:
            lines.append(f"  {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: int = 0) -> str:
    """A Markdown table whose last `right` columns are set to the right."""
    rule = ["---"] * (len(heads) - right) + ["---:"] * right
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def _image(told: str, name: str) -> str:
    return f"![{told}]({name})"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else "–"


def _cell(text: str, width: int = 400) -> str:
    """Data as it is, whatever Markdown or HTML it would be."""
    text = one_line(text if len(text) <= width else f"{text[: width - 1]}…")
    for letter in "\\`*_|[]<>":
        text = text.replace(letter, f"\\{letter}" if letter not in "<>" else {"<": "&lt;", ">": "&gt;"}[letter])
    return text


def _code(text: str) -> str:
    plain = one_line(text).replace("`", "'")
    return f"`{plain}`"
