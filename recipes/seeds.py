"""A row of a table over several seeds, mean ± standard deviation, and HR@10 on the targets that are hardly known.

Usage: python recipes/seeds.py NAME users.jsonl [users.jsonl …]    (of `idgr eval --per-user`, one a seed)
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10")
NEW = 3  # training interactions of a target that is hardly known, at most


def cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


def main(name: str, *files: str) -> None:
    seeds = [[json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()] for file in files]
    columns = [[statistics.mean(row[key] for row in rows) for rows in seeds] for key in SHOWN]
    new = [[row["hr@10"] for row in rows if row["target_count"] <= NEW] for rows in seeds]
    columns.append([statistics.mean(rows) if rows else 0.0 for rows in new])
    print(f"| {name} | {' | '.join(map(cell, columns))} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
