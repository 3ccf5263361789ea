"""`idgr blend`: several recommenders' lists as one, with weights that validation chooses."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from math import comb, fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from idgr.errors import IdgrError, UsageError
from idgr.formats.claims import check_file
from idgr.formats.held_out import refuse_held_out, refuse_made_on_test
from idgr.formats.jsonl import STDIN, STDOUT, dump_line, write_json
from idgr.formats.records import Recommendation, read_queries, read_recommendations
from idgr.options import Role, StageOptions, argument, option
from idgr.progress import Progress, log
from idgr.stages.options import K, OutputFile, run_info

if TYPE_CHECKING:
    from idgr.evaluation.blending import Candidates

# The weights that are tried on validation are multiples of one by so many: of two lists, and of more.
_STEPS, _STEPS_OF_MORE = 20, 10
_K = 10
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Options(StageOptions):
    """Blend recommenders' lists by a weighted sum of scores.

    The weights of three lists or more are tried in steps of 0.1, that of two in steps of 0.05.

    Example: idgr blend valid-a.jsonl valid-b.jsonl --truth data/beauty/valid.jsonl -o weight.json

    Example: idgr blend test-a.jsonl test-b.jsonl --weight weight.json -o recs.jsonl
    """

    first: str = argument("recs.jsonl of a recommender, with more than 10 items.", "RECS")
    second: str = argument("That of another one, for the same users.", "OTHER")
    more: list[str] | None = argument("Those of further ones.", "MORE…", None)
    weight: str | None = option(
        "Of the second, from 0 to 1, and of further ones, as 0.3,0.2; the first has the rest. Or a file of --truth.",
        None,
    )
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

    @property
    def files(self) -> list[str]:
        """All lists that are blended."""
        return [self.first, self.second, *(self.more or ())]


def run(options: Options) -> dict[str, Any] | None:
    """Write the blended lists, or with `truth` the best weight.

    Returns:
        The weight that was chosen, with its figures; None where lists are written.

    Raises:
        IdgrError: an input is not what it should be; the files are of different users; test.jsonl would choose the
            weight, or has chosen it.
    """
    files = options.files
    weights = None if options.weight is None else _weights(options.weight, len(files) - 1, options.by)
    check_file(options.output)
    of_file = options.weight if options.weight is not None and Path(options.weight).is_file() else None
    record = run_info("blend", options, weight=of_file)
    _refuse_test(files, of_file, options.truth)

    from idgr.evaluation.blending import blended_lists, candidates

    lists = list(read_recommendations(files[0]))
    every = "both" if len(files) == 2 else "all"
    others = [_same_users(path, lists, files[0], every) for path in files[1:]]
    found = candidates(lists, *others, by_rank=options.by == "rank")
    if weights is None:
        chosen = {"by": options.by, **_choose(found, lists, files[0], str(options.truth))}
        log(f"blend: weight {_spelled(chosen['weight'])}, NDCG@10 {chosen['ndcg@10']:.4f}")
        record.check_unchanged()
        write_json(options.output, chosen)
        record.write(options.output)
        return chosen
    record.facts["weight"] = _recorded(weights)
    rows = zip(lists, blended_lists(found, weights, options.k), strict=True)
    with record.replace_file(options.output) as written:
        written.writelines(dump_line(Recommendation(one.user_id, *best).row()) for one, best in rows)
    return None


def _weights(given: str, n: int, by: str) -> list[float]:
    """The weights of the n lists after the first, from the command line or a file.

    Raises:
        UsageError: they are not n shares of 1.
        IdgrError: the file holds no such weights, or tells that they are of another sum than `by`.
    """
    todo = "give a number from 0 to 1" if n == 1 else f"give {n} numbers from 0 to 1, with commas between them"
    path = Path(given)
    if path.is_file():
        try:
            found = orjson.loads(path.read_bytes())
            told = found["weight"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            told = None
        listed = told if isinstance(told, list) else [told]
        if all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in listed):
            weights = [float(one) for one in listed]
            if _are_shares(weights, len(weights)):
                if len(weights) != n:
                    what = f"holds the weight of {len(weights) + 1} lists, and {n + 1} are given"
                    raise IdgrError(what, "give the lists of the same recommenders, in the same order", where=path)
                if (chosen_by := found.get("by", by)) != by:
                    what = f"holds a weight that was chosen with --by {chosen_by}, not {by}"
                    raise IdgrError(what, f"give --by {chosen_by}, or choose a weight with --by {by}", where=path)
                return weights
        raise IdgrError("holds no weight from 0 to 1", "give a file that `idgr blend --truth` wrote", where=path)
    try:
        weights = [float(one) for one in given.split(",")]
    except ValueError:
        kind = "a number" if n == 1 else f"{n} numbers"
        raise UsageError(f"--weight {given} is neither {kind} nor a file", todo) from None
    if not _are_shares(weights, n):
        raise UsageError(f"--weight {given}", todo if n == 1 else f"{todo}, of at most 1 together")
    return weights


def _are_shares(weights: list[float], n: int) -> bool:
    return len(weights) == n and all(0 <= one <= 1 for one in weights) and fsum(weights) <= 1 + _ROUNDING


def _recorded(weights: list[float]) -> float | list[float]:
    """A number for two lists."""
    return weights[0] if len(weights) == 1 else weights


def _spelled(weight: float | list[float]) -> str:
    """As `--weight` takes it."""
    return ",".join(f"{one:g}" for one in (weight if isinstance(weight, list) else [weight]))


def _refuse_test(files: list[str], weight: str | None, truth: str | None) -> None:
    """Raise `IdgrError` where test.jsonl would choose the weight, or has chosen it."""
    if truth is not None:
        refuse_held_out({"truth": truth}, files)
        for lists in dict.fromkeys(files):
            todo = "recommend to the users of valid.jsonl, and choose the weight on those lists"
            refuse_made_on_test(lists, "histories", "holds the lists that are to be tested, of", todo)
    elif weight is not None:
        todo = "choose the weight with --truth valid.jsonl"
        refuse_made_on_test(weight, "truth", "holds a weight that was chosen on", todo)


def _same_users(path: str, lists: list[Recommendation], other: str, every: str) -> list[Recommendation]:
    """The lists of a file in the order of those of `other`. Raises `IdgrError` where their users are not the same."""
    of = {one.user_id: one for one in read_recommendations(path)}
    users = {one.user_id for one in lists}
    for where, there, name, wanted in ((path, of.keys(), other, users), (other, users, path, of.keys())):
        _check_users(where, there, name, wanted, "recommendations", f"recommend to the same users with {every}")
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
    from idgr.evaluation.blending import blended_ranks, simplex, target_places
    from idgr.evaluation.metrics import hit_rate, ndcg

    n_lists = len(found.scores)
    every = "both" if n_lists == 2 else "all"
    target_of = {query.user_id: str(query.target) for query in read_queries(truth, need_target=True)}
    users, todo = {one.user_id for one in lists}, f"recommend to the users of this truth with {every}"
    _check_users(truth, target_of.keys(), first, users, "target", todo)
    _check_users(first, users, truth, target_of.keys(), "recommendations", todo)
    targets = [target_of[one.user_id] for one in lists]
    places = target_places(found, targets)
    steps = _STEPS if n_lists == 2 else _STEPS_OF_MORE
    tried = []
    with Progress("blend", total=comb(steps + n_lists - 1, steps), unit="weights") as shown:
        for weights in simplex(n_lists, steps):
            ranks = blended_ranks(found, places, weights)
            tried.append({"weight": _recorded(weights), "hr@10": hit_rate(ranks, _K), "ndcg@10": ndcg(ranks, _K)})
            shown.advance(1)
    best = max(tried, key=lambda row: row["ndcg@10"])
    if best["ndcg@10"] == 0:
        what = f"has no target of its {len(targets)} users among the first {_K} of any blend, so no weight is the best"
        raise IdgrError(what, f"recommend longer lists, to just these histories, with {every}", where=truth)
    return {**best, "n_users": len(targets), "tried": tried}
