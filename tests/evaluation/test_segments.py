"""Which user falls into which segment."""

from __future__ import annotations

from idgr.evaluation.segments import segments, transitions


def test_every_user_is_in_one_segment_of_each_division() -> None:
    lengths = [0, 1, 4, 5, 9, 10, 19, 20, 300]
    counts = [0, 0, 1, 4, 5, 19, 20, 99, 100]
    divisions = segments(lengths, counts)
    members = {
        division: {name: mask.nonzero()[0].tolist() for name, mask in parts.items()}
        for division, parts in divisions.items()
    }
    assert members == {
        "history_length": {"0": [0], "1-4": [1, 2], "5-9": [3, 4], "10-19": [5, 6], "20+": [7, 8]},
        "target_popularity": {
            "0": [0, 1],
            "1-4": [2, 3],
            "5-9": [4],
            "10-19": [5],
            "20-49": [6],
            "50-99": [7],
            "100+": [8],
        },
        "new_items": {"new": [0, 1], "seen": [2, 3, 4, 5, 6, 7, 8]},
    }


def test_segments_without_users_are_left_out() -> None:
    divisions = segments([3], [7])
    assert {division: list(parts) for division, parts in divisions.items()} == {
        "history_length": ["1-4"],
        "target_popularity": ["5-9"],
        "new_items": ["seen"],
    }


def test_what_a_transition_takes() -> None:
    """Neighbours in their order, not the other way around, nor with an item between, nor across sequences."""
    train = [["a", "b", "c"], ["c", "a"], [], ["d"], ["x"] * 4, ["y", "c", "b", "b"]]
    asked = [("a", "b"), ("b", "a"), ("a", "c"), ("b", "b"), ("d", "x"), (None, "x"), ("a", "z"), ("x", "x")]
    count_of = {"a": 2, "b": 4, "c": 3, "x": 4, "z": 0}
    found = transitions([last for last, _ in asked], [to for _, to in asked], [count_of[to] for _, to in asked], train)
    assert found == ["memorised", "new", "new", "memorised", "generalised", "generalised", "new", "memorised"]
    divided = segments([1] * 8, [count_of[to] for _, to in asked], found)["transition"]
    assert {name: mask.nonzero()[0].tolist() for name, mask in divided.items()} == {
        "memorised": [0, 3, 7],
        "generalised": [4, 5],
        "new": [1, 2, 6],
    }
    assert list(segments([1], [9], ["generalised"])["transition"]) == ["generalised"]
