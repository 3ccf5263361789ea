"""The calibration weight with the best NDCG@10, the mean over platforms; equals go to the smaller. A table beside it.

Usage: python recipes/foundation/best_weight.py FOLDER "NAME NAME" WEIGHT [WEIGHT …] > weight

The figures are those of FOLDER/NAME/WEIGHT/metrics.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path


def main(folder: str, platforms: str, *weights: str) -> None:
    names, mean_of = platforms.split(), dict[str, float]()
    print(f"| NDCG@10 | {' | '.join(names)} | mean |\n|---{'|---' * len(names)}|---|", file=sys.stderr)
    for weight in sorted(weights, key=float):
        files = [Path(folder) / name / weight / "metrics.json" for name in names]
        found = [json.loads(file.read_bytes())["ndcg@10"] for file in files]
        mean_of[weight] = statistics.mean(found)
        cells = [f"{value:.4f}" for value in (*found, mean_of[weight])]
        print(f"| {weight} | {' | '.join(cells)} |", file=sys.stderr)
    print(max(mean_of, key=lambda weight: mean_of[weight]))


if __name__ == "__main__":
    main(*sys.argv[1:])
