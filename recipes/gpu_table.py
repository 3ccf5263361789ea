"""What recipes/gpu.sh has measured, as lines of JSON in its folder (results.jsonl) and as a Markdown table, printed.

Usage: python recipes/gpu_table.py OUT
       python recipes/gpu_table.py --epochs MINUTES forecast.json   (how many epochs so many minutes take, at least one)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The figure of a record, and what it counts.
RATES = {
    "users_per_s": "users/s",
    "items_per_s": "items/s",
    "target_tokens_per_s": "target tokens/s",
    "slots_per_s": "history slots/s",
    "waits": "waits a step",
    "ndcg@10": "NDCG@10",
}
# What is told beside it.
MORE = (
    "batch_size",
    "same_lists_as_transformers",
    "same_lists_as_cpu",
    "same_ids",
    "largest_score_gap",
    "others_within_rounding",
    "constraint_overhead",
    "time_ratio_to_unconstrained",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "mfu",
    "device_mib",
    "peak_gpu_mib",
    "hr@10",
    "epoch",
    "users",
    "why",
)


def main(*words: str) -> None:
    if words[0] == "--epochs":
        print(epochs(float(words[1]), json.loads(Path(words[2]).read_bytes())))
        return
    out = Path(words[0])
    found = list(records(out))
    place = out / "results.jsonl"
    part = place.with_suffix(".part")
    part.write_text("".join(json.dumps(record) + "\n" for record in found))
    os.replace(part, place)
    print("| measurement | contender | figure | ratio | more |\n|---|---|---|---|---|")
    for record in found:
        key = next((key for key in RATES if key in record), None)
        if key is None:
            continue
        told = [name for name in MORE if record.get(name) not in (None, "") and name != key]
        more = "; ".join(f"{name} {record[name]}" for name in told)
        ratio = record.get("ratio", "")
        print(f"| {record['measurement']} | {record['contender']} | {record[key]} {RATES[key]} | {ratio} | {more} |")


def epochs(minutes: float, forecast: dict[str, float]) -> int:
    each = forecast["seconds_per_epoch"] + forecast["validation_seconds"]
    return max(1, min(1000, int(60 * minutes / max(each, 1e-3))))


def records(out: Path) -> Iterator[dict[str, Any]]:
    """The lines of each measurement, the validation of each training, and the test figures."""
    for file in sorted(out.glob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        yield from ({"measurement": file.stem, **line} for line in lines if "contender" in line and "bench" in line)
    for file in sorted(out.glob("*/run.json")):
        record = json.loads(file.read_bytes())
        if "kept" in record and record.get("command") == "train-rec":
            options = record["options"]
            told = {"bf16": record.get("bf16"), "epochs": options["epochs"], "precision": options["precision"]}
            contender = "idgr train-rec, validation"
            yield {"measurement": file.parent.name, "contender": contender, **told, **record["kept"]}
    metrics = out / "metrics.json"
    if metrics.exists():
        record = json.loads(metrics.read_bytes())
        rows = {"idgr train-rec, test": record, **record.get("baselines", {})}
        for name, figures in rows.items():
            numbers = {key: figure for key, figure in figures.items() if isinstance(figure, int | float)}
            yield {"measurement": "beauty", "contender": name, "users": record["n_users"], **numbers}


if __name__ == "__main__":
    main(*sys.argv[1:])
