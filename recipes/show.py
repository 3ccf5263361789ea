"""Print a few users' histories and recommendations by their textual IDs.

Usage: python recipes/show.py test.jsonl ids.jsonl recs.jsonl [USERS]
"""

from __future__ import annotations

import sys
from itertools import islice

from idgr.formats.records import read_ids, read_queries, read_recommendations

SHOWN = 5


def main(test: str, ids: str, recs: str, users: str = "3") -> None:
    words = {record.item_id: record.id for record in read_ids(ids)}
    lists = {record.user_id: record.items for record in read_recommendations(recs)}
    for query in islice(read_queries(test, words), int(users)):
        print(f"\nUser {query.user_id} had")
        for item in query.history[-SHOWN:]:
            print(f"      {words[item]}")
        print("  and idgr recommends")
        for place, item in enumerate(lists[query.user_id][:SHOWN], 1):
            print(f"   {place}. {words[item]}{'   <- what came next' if item == query.target else ''}")
        if query.target is not None and query.target not in lists[query.user_id][:SHOWN]:
            print(f"  What came next: {words[query.target]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
