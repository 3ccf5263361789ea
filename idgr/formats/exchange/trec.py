"""Truth and recommendations as the files of TREC: qrels and runs, for trec_eval, pytrec_eval, ir-measures and ranx.

Those programs order a run by score, which trec_eval holds in 32 bits, and break ties by the item's name, so the scores
written here are made of ranks: n for the first of n items, down to 1 for the last. A user with no recommended item has
no line in a run; averages over the users of the qrels (`trec_eval -c`, as ir-measures does) count such a user with 0,
as `idgr eval` does.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from idgr.errors import IdgrError
from idgr.formats.exchange.keys import to_key, to_token
from idgr.formats.exchange.prepared import PreparedData, Target
from idgr.formats.jsonl import Lines, replace_file
from idgr.formats.records import Recommendation

_LARGEST = sys.float_info.max  # JSON has no infinity


def write_trec(folder: Path, data: PreparedData, recommendations: Iterable[Recommendation] | None) -> None:
    """Write `valid.qrels` and `test.qrels` into a folder, and `run.trec` where there are recommendations."""
    _write_qrels(folder / "valid.qrels", data.valid)
    _write_qrels(folder / "test.qrels", data.test)
    if recommendations is not None:
        with replace_file(folder / "run.trec") as stream:
            for row in recommendations:
                user = to_token(row.user_id)
                for rank, item in enumerate(row.items):
                    line = f"{user} Q0 {to_token(item)} {rank + 1} {len(row.items) - rank} idgr\n"
                    stream.write(line.encode())


def _write_qrels(path: Path, targets: list[Target]) -> None:
    with replace_file(path) as stream:
        for target in targets:
            stream.write(f"{to_token(target.user_id)} 0 {to_token(target.item_id)} 1\n".encode())


def read_run(path: str | os.PathLike[str], users: Iterable[str] = ()) -> Iterator[Recommendation]:
    """The recommendations of a run, ordered as trec_eval does: by score in 32 bits, ties by the token, last first.

    Scores are given as they stand in the run, but where different ones are the same in 32 bits: those get that value.

    Args:
        path: lines of user, `Q0`, item, rank, score and name, white space between; the rank is not looked at.
        users: whose lists are wanted even if the run has no line of them; those get empty ones, behind the others.

    Returns:
        A list for each user, in the order of the users' first lines.

    Raises:
        IdgrError: naming the line that is malformed or repeats an item of a user.
    """
    lists: dict[str, dict[str, float]] = {}
    lines = Lines(path)
    for number, line in lines:
        words = line.split()
        try:
            user, _, item, _, score, _ = (word.decode() for word in words)
            plain = score.isascii() and "_" not in score  # Python reads 1_0 as 10, and the digits of any script
            value = float(score) if plain else math.nan
        except ValueError:  # too few or too many words, no number, or no text
            value = math.nan
        if math.isnan(value):
            raise IdgrError(
                "not a line of a TREC run",
                "write user, Q0, item, rank, score and a name, white space between",
                where=lines.path,
                line=number,
            )
        scores = lists.setdefault(user, {})
        if item in scores:
            raise IdgrError(
                f"item {to_key(item)!r} is recommended to user {to_key(user)!r} twice",
                "write each item once",
                where=lines.path,
                line=number,
            )
        scores[item] = value
    for user, scores in lists.items():
        best_first, values = _as_trec_eval(scores)
        yield Recommendation(to_key(user), [to_key(item) for item in best_first], values)
    named = {to_key(user) for user in lists}
    for user in users:
        if user not in named:
            yield Recommendation(user, [], [])


def _as_trec_eval(scores: dict[str, float]) -> tuple[list[str], list[float]]:
    """The tokens of a user's items in trec_eval's order, and their scores, which fall or stay the same."""
    rounded = {item: _in_32_bits(score) for item, score in scores.items()}
    best_first = sorted(scores, key=lambda item: (rounded[item], item), reverse=True)
    said: dict[float, set[float]] = {}
    for item, score in scores.items():
        said.setdefault(rounded[item], set()).add(score)
    values = [scores[item] if len(said[rounded[item]]) == 1 else rounded[item] for item in best_first]
    return best_first, [max(-_LARGEST, min(_LARGEST, value)) for value in values]


def _in_32_bits(score: float) -> float:
    """The score as a C float; beyond the largest of those it is infinite."""
    return ctypes.c_float(score).value
