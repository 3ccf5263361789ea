"""Recommendations for a folder of parts by Ray Data: each worker holds a model and answers part after part.

Reads: HISTORIES, a folder of Parquet or JSON Lines, and what OPTIONS name. Writes: OUTPUT, a folder of parts of the
same names with a manifest, the bytes that `idgr recommend HISTORIES -o OUTPUT` writes; parts that are done are left.
Usage: python recipes/ray/recommend.py HISTORIES OUTPUT --workers 4 --options '{"rec": "rec/", "k": 20}'
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import ray

from idgr.api import history_parts


class Worker:
    """An actor of Ray: loads the model at its first part and keeps it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.parts = history_parts(**options)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"part": row["item"], "histories": self.parts.make(row["item"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("histories")
    parser.add_argument("output")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0, help="of each worker")
    parser.add_argument("--options", type=json.loads, default={}, help="of `idgr recommend`, as JSON")
    given = parser.parse_args()
    options = {"histories": given.histories, "output": given.output, **given.options}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without an address a small Ray of its own on this machine.
    own = {"num_cpus": given.workers, "include_dashboard": False, "object_store_memory": 100 << 20}
    ray.init(**({} if "RAY_ADDRESS" in os.environ else own))
    missing = history_parts(**options).missing()
    if missing:
        parts = ray.data.from_items(missing, override_num_blocks=len(missing))
        crew = ray.data.ActorPoolStrategy(size=min(given.workers, len(missing)))
        done = parts.map(Worker, fn_constructor_args=[options], compute=crew, num_cpus=1, num_gpus=given.gpus)
        for row in done.iter_rows():
            print(f"{row['part']}: {row['histories']} histories")


if __name__ == "__main__":
    main()
