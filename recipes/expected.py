"""Whether the figures of metrics.json files are those that a recipe is known to give: OK or FAIL for each cell.

The file of expected values has lines `run <tab> row <tab> metric <tab> value <tab> tolerance`; lines that begin with #
are comments. A run that it does not know is said to be so, which is no fault. A sixth cell names who published the
value: then the line is NEAR or AWAY, by how much, and no fault either, since theirs is not what the recipe is known to
give.

Usage: python recipes/expected.py expected.tsv RUN metrics.json [metrics.json …]
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from table import name_of


def main(table: str, run: str, *files: str) -> int:
    with open(table, encoding="utf-8", newline="") as lines:
        cells = [cell for cell in csv.reader(lines, delimiter="\t") if cell and not cell[0].startswith("#")]
    wanted = [
        (row, metric, float(value), float(by), *source) for of, row, metric, value, by, *source in cells if of == run
    ]
    if not wanted:
        print(f"{Path(table).name} has no values for {run}, so nothing is compared")
    found = {name_of(file): json.loads(Path(file).read_bytes()) for file in files}
    failed = 0
    for row, metric, value, tolerance, *source in wanted:
        if row not in found:
            continue
        figure = found[row][metric]
        fails = abs(figure - value) > tolerance
        if source:
            verdict = "AWAY" if fails else "NEAR"
            print(f"{verdict} {row} {metric} {figure:.4f}, {figure - value:+.4f} to {value:.4f} of {source[0]}")
            continue
        failed += fails
        print(f"{'FAIL' if fails else 'OK  '} {row} {metric} {figure:.4f}, expected {value:.4f} ± {tolerance:.4f}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
