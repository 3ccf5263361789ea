"""The figures of metrics.json files side by side, as a Markdown table, with the first one's baselines.

Usage: python recipes/table.py metrics.json [metrics.json …]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10")


def main(*files: str) -> None:
    found = [
        (Path(file).name.removesuffix(".json").removesuffix("-metrics"), json.loads(Path(file).read_bytes()))
        for file in files
    ]
    rows = [*found, *found[0][1]["baselines"].items()]
    print(f"| {found[0][1]['n_users']} users | {' | '.join(SHOWN)} |\n|---{'|---' * len(SHOWN)}|")
    for name, figures in rows:
        print(f"| {name} | {' | '.join(f'{figures[key]:.4f}' for key in SHOWN)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
