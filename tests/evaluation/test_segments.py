"""Which user falls into which segment."""

from __future__ import annotations

from idgr.evaluation.segments import segments


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
