"""Two lists or more as one: by hand, against a plain sum over dictionaries, and from the command line."""

from __future__ import annotations

import math
import random
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import idgr
from idgr.cli.main import run
from idgr.evaluation.blending import blended_lists, blended_ranks, candidates, simplex, target_places
from idgr.evaluation.metrics import target_ranks
from idgr.formats.jsonl import write_jsonl
from idgr.formats.records import Recommendation

A = Recommendation("u", ["x", "y"], [-1.0, -2.0])
B = Recommendation("u", ["y", "z"], [-1.0, -4.0])


@pytest.mark.parametrize(
    ("weight", "items", "scores"),
    [
        (0.0, ["x", "y", "z"], [-1.0, -2.0, -2.0]),
        (0.5, ["y", "x", "z"], [-1.5, -2.5, -3.0]),
        (1.0, ["y", "x", "z"], [-1.0, -4.0, -4.0]),
    ],
)
def test_an_item_that_a_list_does_not_hold_is_as_good_as_its_last(
    weight: float, items: list[str], scores: list[float]
) -> None:
    assert blended_lists(candidates([A], [B], by_rank=False), [weight], 3) == [(items, scores)]


def test_by_place() -> None:
    (items, scores), = blended_lists(candidates([A], [B], by_rank=True), [0.5], 2)  # fmt: skip
    assert items == ["y", "x"]
    assert scores == pytest.approx([(1 / 62 + 1 / 61) / 2, 1 / 61 / 2])


lists = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(-9, 0)), max_size=6, unique_by=lambda pair: pair[0]),
    min_size=4,
    max_size=4,
)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(lists, lists, st.sampled_from([0.0, 0.25, 0.7, 1.0]), st.booleans())
def test_ranks_are_those_of_the_lists(
    one: list[list[tuple[str, int]]], two: list[list[tuple[str, int]]], weight: float, by_rank: bool
) -> None:
    def recs(rows: list[list[tuple[str, int]]]) -> list[Recommendation]:
        ordered = [sorted(row, key=lambda pair: -pair[1]) for row in rows]
        return [
            Recommendation(str(u), [i for i, _ in row], [float(s) for _, s in row]) for u, row in enumerate(ordered)
        ]

    found = candidates(recs(one), recs(two), by_rank=by_rank)
    whole = [items for items, _ in blended_lists(found, [weight], 99)]
    for row, first, second in zip(whole, one, two, strict=True):
        assert sorted(row) == sorted({item for item, _ in [*first, *second]})
    for target in "ah":
        targets = [target] * 4
        assert (
            blended_ranks(found, target_places(found, targets), [weight]).tolist()
            == target_ranks(whole, targets).tolist()
        )


C = Recommendation("u", ["z", "w"], [-0.5, -8.0])


def test_three_lists_by_hand() -> None:
    found = candidates([A], [B], [C], by_rank=False)
    assert found.items == ["x", "y", "z", "w"]
    # .5 of A, .25 of B and C: x -.5 -1 -2, y -1 -.25 -2, z -1 -1 -.125, w -1 -1 -2
    assert blended_lists(found, [0.25, 0.25], 4) == [(["z", "y", "x", "w"], [-2.125, -3.25, -3.5, -4.0])]
    assert blended_lists(found, [0.0, 1.0], 2) == [(["z", "x"], [-0.5, -8.0])]
    assert blended_ranks(found, target_places(found, ["w"]), [0.25, 0.25]).tolist() == [4]


def test_a_share_that_rounding_makes_more_than_one_leaves_nothing_for_the_first() -> None:
    lists = [[Recommendation("u", ["x"], [-1.0])] for _ in range(4)]
    ((_, scores),) = blended_lists(candidates(*lists, by_rank=False), [0.7, 0.2, 0.1], 1)
    assert scores == pytest.approx([-1.0])


def test_the_grid_of_the_simplex() -> None:
    assert list(simplex(2, 20)) == [[step / 20] for step in range(21)]
    steps = [(b / 10, c / 10) for b in range(11) for c in range(11) if b + c <= 10]
    assert [tuple(weights) for weights in simplex(3, 10)] == steps
    assert len(list(simplex(4, 10))) == 286


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The first list is right about user u, the second about v; half and half is right about both."""
    rows = {
        "a": [("u", ["t", "x"], [-1, -9]), ("v", ["x", "t"], [-1, -2])],
        "b": [("v", ["t", "x"], [-1, -9]), ("u", ["x", "t"], [-1, -2])],
    }
    for name, lines in rows.items():
        write_jsonl(tmp_path / f"{name}.jsonl", ({"user_id": u, "items": i, "scores": s} for u, i, s in lines))
    write_jsonl(tmp_path / "valid.jsonl", ({"user_id": u, "history": ["h"], "target": "t"} for u in "uv"))
    return tmp_path


def blend(files: Path, *options: str) -> int:
    return run(["blend", str(files / "a.jsonl"), str(files / "b.jsonl"), *options])


def test_validation_finds_a_weight_and_test_takes_it(files: Path) -> None:
    weight, recs = files / "weight.json", files / "recs.jsonl"
    assert blend(files, "--truth", str(files / "valid.jsonl"), "-o", str(weight)) == 0
    found = orjson.loads(weight.read_bytes())
    assert (found["hr@10"], found["ndcg@10"], found["n_users"], len(found["tried"])) == (1.0, 1.0, 2, 21)
    assert 0.1 < found["weight"] < 0.9
    assert found["tried"][0]["ndcg@10"] < 1
    assert blend(files, "--weight", str(weight), "-k", "1", "-o", str(recs)) == 0
    assert [orjson.loads(line)["items"] for line in recs.read_bytes().splitlines()] == [["t"], ["t"]]
    assert orjson.loads((files / "recs.jsonl.run.json").read_bytes())["weight"] == found["weight"]


@pytest.mark.parametrize(("chosen", "other"), [("score", "rank"), ("rank", "score")])
def test_a_weight_is_of_the_sum_that_it_was_chosen_for(
    chosen: str, other: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight, recs = files / "weight.json", files / "recs.jsonl"
    assert blend(files, "--truth", str(files / "valid.jsonl"), "--by", chosen, "-o", str(weight)) == 0
    assert blend(files, "--weight", str(weight), "--by", other, "-o", str(recs)) == 1
    told = f"{weight}: holds a weight that was chosen with --by {chosen}, not {other}; give --by {chosen}"
    assert told in capsys.readouterr().err
    assert not recs.exists()
    assert blend(files, "--weight", str(weight), "--by", chosen, "-o", str(recs)) == 0
    found = orjson.loads(weight.read_bytes())
    assert found.pop("by") == chosen
    weight.write_bytes(orjson.dumps(found))  # as older versions wrote it
    assert blend(files, "--weight", str(weight), "--by", other, "-o", str(recs)) == 0


def blend_three(files: Path, *options: str) -> int:
    return run(["blend", *(str(files / f"{name}.jsonl") for name in "abc"), *options])


def plain_best(rows: list[dict[str, dict[str, float]]], targets: dict[str, str]) -> tuple[list[float], float]:
    """The weights with the best NDCG@10, by dictionaries; every weight a multiple of .1, the lowest of equals."""
    best = ([-1.0], -1.0)
    for b in range(11):
        for c in range(11 - b):
            total = 0.0
            for user, target in targets.items():
                own = [row[user] for row in rows]
                items = list(dict.fromkeys(item for scores in own for item in scores))
                shares = (1 - math.fsum([b / 10, c / 10]), b / 10, c / 10)
                sums = dict.fromkeys(items, 0.0)
                for share, scores in zip(shares, own, strict=True):
                    for item in items:
                        sums[item] += share * scores.get(item, min(scores.values()))
                place = sorted(items, key=lambda item: -sums[item]).index(target) + 1 if target in items else 99
                total += 1 / math.log2(place + 1) if place <= 10 else 0
            if total / len(targets) > best[1] + 1e-12:
                best = ([b / 10, c / 10], total / len(targets))
    return best


def test_validation_finds_the_weights_of_three(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(3)
    rows, users = [], [f"u{n}" for n in range(12)]
    for name in "abc":
        scores = {user: {item: -rng.random() for item in rng.sample("abcdefghijklmnop", 12)} for user in users}
        rows.append({user: dict(sorted(own.items(), key=lambda pair: -pair[1])) for user, own in scores.items()})
        lines = [{"user_id": u, "items": list(own), "scores": list(own.values())} for u, own in rows[-1].items()]
        write_jsonl(files / f"{name}.jsonl", lines if name == "a" else reversed(lines))
    targets = {user: rng.choice("abcdefghijklmnop") for user in users}
    write_jsonl(files / "valid.jsonl", ({"user_id": u, "history": ["h"], "target": t} for u, t in targets.items()))
    weight, recs = files / "weight.json", files / "recs.jsonl"
    assert blend_three(files, "--truth", str(files / "valid.jsonl"), "-o", str(weight)) == 0
    found = orjson.loads(weight.read_bytes())
    weights, ndcg = plain_best(rows, targets)
    assert (found["weight"], found["ndcg@10"], len(found["tried"])) == (weights, pytest.approx(ndcg), 66)
    assert found["tried"][0]["weight"] == [0.0, 0.0]
    spelled = ",".join(f"{one:g}" for one in weights)
    assert f"blend: weight {spelled}, NDCG@10" in capsys.readouterr().err
    assert blend_three(files, "--weight", str(weight), "-o", str(recs)) == 0
    lists = recs.read_bytes()
    assert len(lists.splitlines()) == 12
    record = orjson.loads((files / "recs.jsonl.run.json").read_bytes())
    assert record["weight"] == weights
    assert set(record["inputs"]) == {"first", "second", "more-1", "weight"}
    assert blend_three(files, "--weight", spelled, "-o", str(recs)) == 0
    assert recs.read_bytes() == lists
    assert idgr.blend(
        first=str(files / "a.jsonl"), second=str(files / "b.jsonl"), more=[str(files / "c.jsonl")],
        truth=str(files / "valid.jsonl"), output=str(weight),
    ) == found  # fmt: skip


@pytest.mark.parametrize(
    ("weight", "code", "hint"),
    [
        ("0.5", 2, "--weight 0.5; give 2 numbers from 0 to 1, with commas between them, of at most 1 together"),
        ("0.5,0.6", 2, "of at most 1 together"),
        ("0.5,-0.1", 2, "of at most 1 together"),
        ("0.5,", 2, "--weight 0.5, is neither 2 numbers nor a file; give 2 numbers"),
        ("{}/of-two.json", 1, "of-two.json: holds the weight of 2 lists, and 3 are given"),
        ("{}/heavy.json", 1, "holds no weight from 0 to 1"),
    ],
)
def test_wrong_weights_of_three(
    files: Path, weight: str, code: int, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "of-two.json").write_text('{"weight": 0.5}')
    (files / "heavy.json").write_text('{"weight": [0.7, 0.5]}')
    write_jsonl(files / "c.jsonl", [{"user_id": u, "items": ["x"]} for u in "uv"])
    assert blend_three(files, "--weight", weight.format(files)) == code
    assert hint in capsys.readouterr().err


def test_the_third_file_is_of_the_same_users(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(files / "c.jsonl", [{"user_id": "u", "items": ["x"]}])
    assert blend_three(files, "--weight", "0.3,0.3") == 1
    told = capsys.readouterr().err
    assert "c.jsonl: has no recommendations for 1 of the 2 users" in told
    assert "recommend to the same users with all" in told


@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        ([], 2, "either --weight or --truth"),
        (["--weight", "half"], 2, "neither a number nor a file"),
        (["--weight", "2"], 2, "from 0 to 1"),
        (["--weight", "{}/valid.jsonl"], 1, "holds no weight"),
        (["--weight", "{}/heavy.json"], 1, "holds no weight from 0 to 1"),
        (["--weight", "nan"], 2, "give a number from 0 to 1"),
        (["--weight", "inf"], 2, "give a number from 0 to 1"),
        (["--weight", "0.5", "-k", "0"], 2, "-k"),
        (["--weight", "0.5", "-k", str(2**63)], 2, "-k"),
    ],
)
def test_wrong_weights(
    files: Path, options: list[str], code: int, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "heavy.json").write_text('{"weight": 1.5}')
    assert blend(files, *(option.format(files) for option in options)) == code
    assert hint in capsys.readouterr().err


def test_other_users_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*options: str) -> str:
        assert blend(files, *options, "-o", str(files / "out")) == 1
        assert not (files / "out").exists()
        told = capsys.readouterr().err
        assert told.count("\n") == 1, "one line"
        return told

    valid = ["--truth", str(files / "valid.jsonl")]
    write_jsonl(files / "b.jsonl", [{"user_id": "u", "items": ["x"]}])
    for options in (["--weight", "0.5"], valid):
        told = f"b.jsonl: has no recommendations for 1 of the 2 users of {files}/a.jsonl, such as 'v'"
        assert told in said(*options)
    write_jsonl(files / "b.jsonl", [{"user_id": u, "items": ["x"]} for u in "uvw"])
    told = f"a.jsonl: has no recommendations for 1 of the 3 users of {files}/b.jsonl, such as 'w'"
    assert told in said("--weight", "0.5")
    write_jsonl(files / "b.jsonl", [{"user_id": u, "items": ["x"]} for u in "uv"])
    for users, lacking in (("w", "no target for 2 of the 2 users"), ("vw", "no target for 1 of the 2 users")):
        write_jsonl(files / "valid.jsonl", [{"user_id": u, "history": ["h"], "target": "t"} for u in users])
        assert f"valid.jsonl: has {lacking} of {files}/a.jsonl, such as 'u'" in said(*valid)
    write_jsonl(files / "valid.jsonl", [{"user_id": u, "history": ["h"], "target": "t"} for u in "uvw"])
    told = f"a.jsonl: has no recommendations for 1 of the 3 users of {files}/valid.jsonl, such as 'w'"
    assert told in said(*valid)


def test_a_weight_is_not_chosen_where_no_list_holds_a_target(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Users of another data set may have the same keys."""
    write_jsonl(files / "valid.jsonl", [{"user_id": u, "history": ["h"], "target": "other"} for u in "uv"])
    assert blend(files, "--truth", str(files / "valid.jsonl"), "-o", str(files / "out")) == 1
    assert "valid.jsonl: has no target of its 2 users among the first 10 of any blend" in capsys.readouterr().err
    assert not (files / "out").exists()
