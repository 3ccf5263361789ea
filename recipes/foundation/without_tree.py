"""What others ask a causal language model instead of searching the prefix tree, for recipes/foundation/tree.sh.

    python recipes/foundation/without_tree.py draw test.jsonl --items items.jsonl [--n 20] [--seed 0] -o twenty.jsonl
    python recipes/foundation/without_tree.py free test.jsonl --rec DIR --ids ids.jsonl --told free.json -o recs.jsonl
    python recipes/foundation/without_tree.py rank twenty.jsonl --by tree|yes-no --rec DIR --ids ids.jsonl -o recs.jsonl
    python recipes/foundation/without_tree.py rank twenty.jsonl --by popularity --train train.jsonl -o recs.jsonl
    python recipes/foundation/without_tree.py table RUN ROW [ROW …]

`draw` gives each user candidates: the target and items drawn from those that are not in the history.

`free` (after BIGRec, Bao et al. 2023, "A Bi-Step Grounding Paradigm for Large Language Models in Recommendation
Systems"): the model goes on from the history without a tree, by four beams as there. Its answer and all IDs stand for
themselves by the model's last hidden state at their last token, and the items whose IDs are nearest (L2) are
recommended, but for those of the history. Popularity and collaborative filtering, which the paper adds in a second
step, are left out. `--told` gets the share of answers that are no item's ID.

`rank --by yes-no` (after TALLRec, Bao et al. 2023): the model reads the history and a candidate, and the candidate's
score is log P(yes) - log P(no). The model is not trained to answer so. `--by tree`: the score of the candidate's ID
behind the history, as `idgr recommend` has it, with every other item barred.

A folder of `idgr train-rec` is read as it was trained, any other as a list of IDs, one a line.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from idgr.errors import IdgrError
from idgr.formats.jsonl import read_jsonl, write_jsonl
from idgr.formats.records import Query, Recommendation, read_items, read_sequences

K = 10
SHOWN = ("hr@1", "hr@5", "ndcg@5", "hr@10", "ndcg@10")


def draw(options: argparse.Namespace) -> None:
    """Candidates of each user, in an order of its own, so that where a score ties the target is not the first."""
    keys = [item.item_id for item in read_items(options.items)]
    rows = []
    for query in read_jsonl(options.test, Query.parse):
        drawn = random.Random(f"{options.seed} {query.user_id}")
        barred = {*query.history, str(query.target)}
        left = [key for key in keys if key not in barred]
        candidates = [str(query.target), *drawn.sample(left, min(options.n - 1, len(left)))]
        drawn.shuffle(candidates)
        rows.append({"user_id": query.user_id, "history": query.history, "candidates": candidates})
    write_jsonl(options.output, rows)


def free(options: argparse.Namespace) -> None:
    from model_answers import grounded, load

    queries = list(read_jsonl(options.test, Query.parse))
    lists, told = grounded(load(options), queries, K, options.beams, options.batch_size)
    write_jsonl(options.output, (one.row() for one in lists))
    Path(options.told).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def rank(options: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = list(read_jsonl(options.candidates, dict))
    if options.by == "popularity":
        count = Counter(item for row in read_sequences(options.train) for item in row.items)
        scores = [{key: float(count[key]) for key in row["candidates"]} for row in rows]
    else:
        from model_answers import by_tree, by_yes_no, load

        score = by_tree if options.by == "tree" else by_yes_no
        scores = score(load(options), rows, options.batch_size)
    lists = []
    for row, score_of in zip(rows, scores, strict=True):
        best = sorted(row["candidates"], key=lambda key: -score_of[key])  # ties stay in the order of the draw
        lists.append(Recommendation(row["user_id"], best, [score_of[key] for key in best]))
    write_jsonl(options.output, (one.row() for one in lists))


def table(options: argparse.Namespace) -> None:
    run = Path(options.run)
    metrics = {row: json.loads((run / row / "metrics.json").read_bytes()) for row in options.rows}
    first = metrics[options.rows[0]]
    print(f"| {first['n_users']} users | ranks | {' | '.join(SHOWN)} | seconds |\n|---|---{'|---' * len(SHOWN)}|---|")
    for row, figures in metrics.items():
        ranks = f"all {first['n_items']} items"
        if (run / row / "twenty").is_file():
            ranks = f"{(run / row / 'twenty').read_text().strip()} candidates"
        seconds = (run / row / "seconds").read_text().strip()
        print(f"| {row} | {ranks} | {' | '.join(f'{figures[key]:.4f}' for key in SHOWN)} | {seconds} |")
    if (run / "free" / "free.json").is_file() and "free" in metrics:
        told = json.loads((run / "free" / "free.json").read_bytes())
        none, old = told["name_no_item"], told["name_an_item_of_the_history"]
        print(f"\nfree: of {told['answers']} answers {none:.1%} name no item, {old:.1%} one of the history.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(name: str, does: Any, given: str | None = None) -> argparse.ArgumentParser:
        made = commands.add_parser(name)
        made.set_defaults(does=does)
        if given is not None:
            made.add_argument(given)
            made.add_argument("-o", "--output", required=True)
        return made

    def of_a_model(made: argparse.ArgumentParser, *, required: bool) -> None:
        made.add_argument("--rec", required=required)
        made.add_argument("--ids", required=required)
        made.add_argument("--history", type=int, default=0, help="newest items that are shown; 0: as trained")
        made.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
        made.add_argument("--batch-size", type=int, default=32)
        made.add_argument("--device", default="auto")

    drawing = command("draw", draw, "test")
    drawing.add_argument("--items", required=True)
    drawing.add_argument("--n", type=int, default=20)
    drawing.add_argument("--seed", type=int, default=0)
    freely = command("free", free, "test")
    of_a_model(freely, required=True)
    freely.add_argument("--beams", type=int, default=4)
    freely.add_argument("--told", required=True)
    ranking = command("rank", rank, "candidates")
    of_a_model(ranking, required=False)
    ranking.add_argument("--by", choices=["tree", "yes-no", "popularity"], required=True)
    ranking.add_argument("--train")
    shown = command("table", table)
    shown.add_argument("run")
    shown.add_argument("rows", nargs="+")
    options = parser.parse_args()
    try:
        options.does(options)
    except IdgrError as fault:
        raise SystemExit(f"error: {fault}") from None


if __name__ == "__main__":
    main()
