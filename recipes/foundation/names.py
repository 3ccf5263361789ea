"""Names of items by several generators beside each other, for recipes/foundation/names.sh.

    python recipes/foundation/names.py cut DATA ITEMS OUT
    python recipes/foundation/names.py speed items.jsonl MODEL N
    python recipes/foundation/names.py table RUN items.jsonl ROW [ROW …]

`cut` writes a data set of the ITEMS items that are bought most in training: others are left out of histories, and users
without a target, or with a single item to train on, go.

`speed` gives a generator's items a second, in batches and one by one, on N items drawn at random, with the model loaded
and warm.

`table`: garbled is the share of an ID's words that are not in the item's text (`idgr.ids.quality`); items a second are
those of the whole command, loading included.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from idgr.formats.jsonl import read_jsonl, write_jsonl
from idgr.formats.records import read_ids, read_items
from idgr.ids.quality import id_quality

SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10")


def cut(data: str, n: str, out: str) -> None:
    place, to = Path(data), Path(out)
    train, items = (list(read_jsonl(place / name, dict)) for name in ("train.jsonl", "items.jsonl"))
    count = Counter(item for row in train for item in row["items"])
    order = sorted(items, key=lambda item: -count[item["item_id"]])  # equals stay in the catalogue's order
    kept = {item["item_id"] for item in order[: int(n) or None]}
    to.mkdir(parents=True, exist_ok=True)
    write_jsonl(to / "items.jsonl", (item for item in items if item["item_id"] in kept))
    short = [row | {"items": [item for item in row["items"] if item in kept]} for row in train]
    write_jsonl(to / "train.jsonl", (row for row in short if len(row["items"]) > 1))
    for name in ("valid.jsonl", "test.jsonl"):
        rows = [
            row | {"history": [item for item in row["history"] if item in kept]}
            for row in read_jsonl(place / name, dict)
            if row["target"] in kept
        ]
        write_jsonl(to / name, rows)


def speed(items: str, model: str, n: str) -> None:
    from idgr.ids.generation import generate_ids
    from idgr.ids.options import GenerationOptions
    from idgr.models.backbone import load_either

    backbone = load_either(model)
    backbone.model.eval()
    known = [item for item in read_items(items) if item.text]
    chosen = random.Random(0).sample(known, min(int(n), len(known)))
    found = {}
    for name, size in (
        ("warm", GenerationOptions().batch_size),
        ("batches", GenerationOptions().batch_size),
        ("alone", 1),
    ):
        some = chosen[:1] if name == "warm" else chosen
        began = time.monotonic()
        generate_ids(some, lambda: backbone, backbone.tokenizer, GenerationOptions(batch_size=size))
        found[name] = len(some) / (time.monotonic() - began)
    print(
        f"{Path(model).name}: {found['batches']:.2f} items a second in batches, {found['alone']:.2f} one by one "
        f"({len(chosen)} items)"
    )


def table(run: str, items: str, *rows: str) -> None:
    texts = {item.item_id: item.text for item in read_items(items)}
    heads = ("garbled", "repeat a word", "second attempts", "words an ID", "items a second", *SHOWN)
    print(f"| {len(texts)} items | {' | '.join(heads)} |\n|---{'|---' * len(heads)}|")
    for row in rows:
        file = Path(run) / row / "ids.jsonl"
        ids = read_ids(file)
        found = id_quality(ids, texts)
        seconds = json.loads(Path(f"{file}.run.json").read_bytes())["seconds"]
        metrics = json.loads((Path(run) / row / "metrics.json").read_bytes())
        words = sum(len(record.id.split()) for record in ids) / len(ids)
        tells = any(record.attempt is not None for record in ids)
        shares = (found.strange_words, found.repeating, found.second_attempts if tells else None)
        cells = ["–" if share is None else f"{share:.1%}" for share in shares]
        cells += [f"{words:.1f}", f"{len(ids) / max(seconds, 1e-3):.1f}", *(f"{metrics[key]:.4f}" for key in SHOWN)]
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    {"cut": cut, "speed": speed, "table": table}[sys.argv[1]](*sys.argv[2:])
