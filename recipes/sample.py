"""So many lines of a file (0: all), drawn from a seed, in their order.

Usage: python recipes/sample.py test.jsonl LINES SEED > some.jsonl
"""

from __future__ import annotations

import random
import sys
from pathlib import Path


def main(path: str, lines: str, seed: str) -> None:
    whole = Path(path).read_bytes().splitlines(keepends=True)
    places = range(len(whole))
    chosen = sorted(random.Random(int(seed)).sample(places, int(lines))) if 0 < int(lines) < len(whole) else places
    sys.stdout.buffer.writelines(whole[place] for place in chosen)


if __name__ == "__main__":
    main(*sys.argv[1:])
