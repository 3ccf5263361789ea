"""`idgr blend`: two recommenders' lists as one, with a weight that validation chooses."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import check_file
from idgr.formats.held_out import refuse_held_out, refuse_made_on_test
from idgr.formats.jsonl import STDIN, STDOUT, dump_line, write_json
from idgr.formats.records import Recommendation, read_queries, read_recommendations
from idgr.options import Role, StageOptions, argument, option
from idgr.progress import log
from idgr.stages.options import K, OutputFile, run_info

if TYPE_CHECKING:
    from idgr.evaluation.blending import Candidates

# The weights that are tried on validation.
_STEPS = 20
_K = 10


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Blend two recommenders' lists by a weighted sum of scores.

    Example: idgr blend valid-a.jsonl valid-b.jsonl --truth data/beauty/valid.jsonl -o weight.json

    Example: idgr blend test-a.jsonl test-b.jsonl --weight weight.json -o recs.jsonl
    """

    first: str = argument("recs.jsonl of a recommender, with more than 10 items.", "RECS")
    second: str = argument("That of another one, for the same users.", "OTHER")
    weight: str | None = option("Of the second, from 0 to 1; or a file that --truth wrote.", None)
    truth: str | None = option(
        "valid.jsonl: find the weight with the best NDCG@10 instead, and write it to -o.", None, role=Role.INPUT
    )
    by: Literal["score", "rank"] = option("What is summed: scores, or 1 / (60 + place).", "score")
    k: K = _K
    output: OutputFile = STDOUT

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.weight is None) == (self.truth is None):
            raise UsageError("a blend needs either --weight or --truth", "find a weight with --truth, then give it")


def run(options: Options) -> dict[str, Any] | None:
    """Write the blended lists, or with `truth` the best weight.

    Returns:
        The weight that was chosen, with its figures; None where lists are written.

    Raises:
        IdgrError: an input is not what it should be; the two files are of different users; test.jsonl would choose the
            weight, or has chosen it.
    """
    first, second = options.first, options.second
    share = None if options.weight is None else _weight(options.weight)
    check_file(options.output)
    of_file = options.weight if options.weight is not None and Path(options.weight).is_file() else None
    record = run_info("blend", options, weight=of_file)
    _refuse_test(first, second, of_file, options.truth)

    from idgr.evaluation.blending import blended_lists, candidates

    lists = list(read_recommendations(first))
    found = candidates(lists, _same_users(second, lists, first), by_rank=options.by == "rank")
    if share is None:
        chosen = _choose(found, lists, first, str(options.truth))
        log(f"blend: weight {chosen['weight']:g}, NDCG@10 {chosen['ndcg@10']:.4f}")
        record.check_unchanged()
        write_json(options.output, chosen)
        record.write(options.output)
        return chosen
    record.facts["weight"] = share
    rows = zip(lists, blended_lists(found, share, options.k), strict=True)
    with record.replace_file(options.output) as written:
        written.writelines(dump_line(Recommendation(one.user_id, *best).row()) for one, best in rows)
    return None


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
        found = orjson.loads(path.read_bytes())["weight"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        found = None
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not 0 <= found <= 1:
        raise IdgrError("holds no weight from 0 to 1", "give a file that `idgr blend --truth` wrote", where=path)
    return float(found)


def _refuse_test(first: str, second: str, weight: str | None, truth: str | None) -> None:
    """Raise `IdgrError` where test.jsonl would choose the weight, or has chosen it."""
    if truth is not None:
        refuse_held_out({"truth": truth}, [first, second])
        for lists in dict.fromkeys((first, second)):
            todo = "recommend to the users of valid.jsonl, and choose the weight on those lists"
            refuse_made_on_test(lists, "histories", "holds the lists that are to be tested, of", todo)
    elif weight is not None:
        todo = "choose the weight with --truth valid.jsonl"
        refuse_made_on_test(weight, "truth", "holds a weight that was chosen on", todo)


def _same_users(path: str, lists: list[Recommendation], other: str) -> list[Recommendation]:
    """The lists of a file in the order of those of `other`. Raises `IdgrError` where their users are not the same."""
    of = {one.user_id: one for one in read_recommendations(path)}
    users = {one.user_id for one in lists}
    for where, there, name, wanted in ((path, of.keys(), other, users), (other, users, path, of.keys())):
        _check_users(where, there, name, wanted, "recommendations", "recommend to the same users with both")
    return [of[one.user_id] for one in lists]


def _check_users(where: str, there: Set[str], name: str, wanted: Set[str], what: str, todo: str) -> None:
    """Raise `IdgrError` where a file, which has the users `there`, lacks some that another one has."""
    if missing := sorted(wanted - there):
        name = "standard input" if name == STDIN else name
        told = f"has no {what} for {len(missing)} of the {len(wanted)} users of {name}, such as {missing[0]!r}"
        raise IdgrError(told, todo, where=where)


def _choose(found: Candidates, lists: list[Recommendation], first: str, truth: str) -> dict[str, Any]:
    """The weight with the best NDCG@10, the lowest of equals, with the figures of all that were tried.

    Raises:
        IdgrError: lists and truth are of different users, or no list holds its user's target.
    """
    from idgr.evaluation.blending import blended_ranks
    from idgr.evaluation.metrics import hit_rate, ndcg

    target_of = {query.user_id: str(query.target) for query in read_queries(truth, need_target=True)}
    users, todo = {one.user_id for one in lists}, "recommend to the users of this truth with both"
    _check_users(truth, target_of.keys(), first, users, "target", todo)
    _check_users(first, users, truth, target_of.keys(), "recommendations", todo)
    targets = [target_of[one.user_id] for one in lists]
    tried = []
    for step in range(_STEPS + 1):
        ranks = blended_ranks(found, targets, step / _STEPS)
        tried.append({"weight": step / _STEPS, "hr@10": hit_rate(ranks, _K), "ndcg@10": ndcg(ranks, _K)})
    best = max(tried, key=lambda row: row["ndcg@10"])
    if best["ndcg@10"] == 0:
        what = f"has no target of its {len(targets)} users among the first {_K} of any blend, so no weight is the best"
        raise IdgrError(what, "recommend longer lists, to just these histories, with both", where=truth)
    return {**best, "n_users": len(targets), "tried": tried}
