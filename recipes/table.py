"""The figures of metrics.json files side by side, as a Markdown table, with the first one's baselines.

A row is named after its file, or after its folder where the file is metrics.json itself.

Usage: python recipes/table.py [--no-baselines] metrics.json [metrics.json …]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10")


def name_of(file: str) -> str:
    path = Path(file)
    return path.parent.name if path.name == "metrics.json" else path.name.removesuffix("-metrics.json")


def main(*files: str) -> None:
    beside = "--no-baselines" not in files
    found = [(name_of(file), json.loads(Path(file).read_bytes())) for file in files if file != "--no-baselines"]
    rows = [*found, *(found[0][1]["baselines"].items() if beside else ())]
    print(f"| {found[0][1]['n_users']} users | {' | '.join(SHOWN)} |\n|---{'|---' * len(SHOWN)}|")
    for name, figures in rows:
        print(f"| {name} | {' | '.join(f'{figures[key]:.4f}' for key in SHOWN)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
