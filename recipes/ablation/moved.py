"""The items whose new IDs gained most and least, beside their texts (Figure 3).

An item's gain is the sum, over the test users who bought it next, of how much NDCG@10 rose. Items that kept their ID
are left out.
Usage: python recipes/ablation/moved.py items.jsonl test.jsonl BEFORE-ids.jsonl BEFORE-users.jsonl AFTER-ids.jsonl
           AFTER-users.jsonl [N]    (users.jsonl of `idgr eval --per-user`)
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from idgr.formats.records import read_ids, read_items, read_queries

SHOWN = 70  # characters of a text


def figures(file: str) -> dict[str, float]:
    rows = map(json.loads, Path(file).read_text(encoding="utf-8").splitlines())
    return {row["user_id"]: row["ndcg@10"] for row in rows}


def main(items: str, test: str, ids: str, users: str, new_ids: str, new_users: str, n: str = "10") -> None:
    text_of = {item.item_id: item.text for item in read_items(items)}
    before, after = ({record.item_id: record.id for record in read_ids(file)} for file in (ids, new_ids))
    figure, new_figure = figures(users), figures(new_users)
    gains: dict[str, list[float]] = defaultdict(list)
    for query in read_queries(test, text_of, need_target=True):
        if before[str(query.target)] != after[str(query.target)]:
            gains[str(query.target)].append(new_figure[query.user_id] - figure[query.user_id])
    order = sorted(gains, key=lambda item: (-sum(gains[item]), item))
    print("| gain | users | before | after | text |\n|---|---|---|---|---|")
    for item in [*order[: int(n)], *order[max(int(n), len(order) - int(n)) :]]:
        mine, text = gains[item], text_of[item].replace("|", "/").replace("\n", " ")
        shown = text if len(text) <= SHOWN else text[:SHOWN] + "…"
        print(f"| {sum(mine):+.3f} | {len(mine)} | {before[item]} | {after[item]} | {shown} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
