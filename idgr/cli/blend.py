"""`idgr blend`: two recommenders' lists as one, with a weight that validation chooses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import check_file
from idgr.formats.jsonl import STDOUT, dump_line, replace_file, write_json
from idgr.formats.records import Recommendation, read_queries, read_recommendations
from idgr.formats.run_info import RunInfo
from idgr.progress import log

if TYPE_CHECKING:
    from idgr.evaluation.blending import Candidates

# The weights that are tried on validation.
_STEPS = 20
_K = 10


def blend(
    first: Annotated[str, typer.Argument(metavar="RECS", help="recs.jsonl of a recommender, with more than 10 items.")],
    second: Annotated[str, typer.Argument(metavar="OTHER", help="That of another one, for the same users.")],
    weight: Annotated[
        str | None, typer.Option("--weight", help="Of the second, from 0 to 1; or a file that --truth wrote.")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option("--truth", help="valid.jsonl: find the weight with the best NDCG@10 instead, and write it to -o."),
    ] = None,
    by: Annotated[
        Literal["score", "rank"], typer.Option("--by", help="What is summed: scores, or 1 / (60 + place).")
    ] = "score",
    k: Annotated[int, typer.Option("-k", min=1, help="Items for each user.")] = _K,
    output: Annotated[str, typer.Option("-o", "--output", help="Recommendations; with --truth, the weight.")] = STDOUT,
) -> None:
    """Blend two recommenders' lists by a weighted sum of scores.

    Example: idgr blend valid-a.jsonl valid-b.jsonl --truth data/beauty/valid.jsonl -o weight.json

    Example: idgr blend test-a.jsonl test-b.jsonl --weight weight.json -o recs.jsonl
    """
    if (weight is None) == (truth is None):
        raise UsageError("a blend needs either --weight or --truth", "find a weight with --truth, then give it")
    if [first, second, truth, weight].count("-") > 1:
        raise UsageError("standard input (-) given for several inputs", "give `-` once")
    share = None if weight is None else _weight(weight)
    check_file(output)

    from idgr.evaluation.blending import blended_lists, candidates

    inputs: dict[str, str | os.PathLike[str] | None] = {"first": first, "second": second, "truth": truth}
    inputs |= {"weight": weight if weight is not None and Path(weight).is_file() else None}
    run = RunInfo("blend", {"weight": weight, "by": by, "k": k}, inputs)
    lists = list(read_recommendations(first))
    found = candidates(lists, _same_users(second, lists), by_rank=by == "rank")
    if truth is not None:
        chosen = _choose(found, lists, truth)
        log(f"blend: weight {chosen['weight']:g}, NDCG@10 {chosen['ndcg@10']:.4f}")
        write_json(output, chosen)
        run.write(output)
        return
    run.facts["weight"] = share
    assert share is not None
    rows = zip(lists, blended_lists(found, share, k), strict=True)
    with replace_file(output) as written:
        written.writelines(dump_line(Recommendation(one.user_id, *best).row()) for one, best in rows)
    run.write(output)


def _weight(given: str) -> float:
    path = Path(given)
    if not path.is_file():
        try:
            weight = float(given)
        except ValueError:
            raise UsageError(f"--weight {given} is neither a number nor a file", "give a number from 0 to 1") from None
        if not 0 <= weight <= 1:
            raise UsageError(f"--weight {given}", "give a number from 0 to 1")
        return weight
    try:
        return float(orjson.loads(path.read_bytes())["weight"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise IdgrError("holds no weight", "give a file that `idgr blend --truth` wrote", where=path) from None


def _same_users(path: str, lists: list[Recommendation]) -> list[Recommendation]:
    """The lists of a file in the order of others, of which it must have the users."""
    of = {one.user_id: one for one in read_recommendations(path, users={one.user_id for one in lists})}
    missing = [one.user_id for one in lists if one.user_id not in of]
    if missing:
        raise IdgrError(
            f"has no recommendations for {len(missing)} users of the other file, such as {missing[0]!r}",
            "recommend to the same users with both",
            where=path,
        )
    return [of[one.user_id] for one in lists]


def _choose(found: Candidates, lists: list[Recommendation], truth: str) -> dict[str, Any]:
    """The weight with the best NDCG@10, the lowest of equals, with the figures of all that were tried."""
    from idgr.evaluation.blending import blended_ranks
    from idgr.evaluation.metrics import hit_rate, ndcg

    target_of = {query.user_id: str(query.target) for query in read_queries(truth, need_target=True)}
    strange = next((one.user_id for one in lists if one.user_id not in target_of), None)
    if strange is not None:
        raise IdgrError(f"has no user {strange!r}", "recommend to the users of this file", where=truth)
    targets = [target_of[one.user_id] for one in lists]
    tried = []
    for step in range(_STEPS + 1):
        ranks = blended_ranks(found, targets, step / _STEPS)
        tried.append({"weight": step / _STEPS, "hr@10": hit_rate(ranks, _K), "ndcg@10": ndcg(ranks, _K)})
    best = max(tried, key=lambda row: row["ndcg@10"])
    return {**best, "n_users": len(targets), "tried": tried}
