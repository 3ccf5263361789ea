"""The demo shop: its shape, its repeatability, and that what it hides is in the words."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.demo import DemoOptions, events, metadata
from idgr.corpus.demo_words import BRANDS, DEPARTMENTS, STYLES
from idgr.errors import UsageError
from idgr.evaluation.baselines import fit_markov
from idgr.evaluation.metrics import hit_rate, target_ranks


def histories(options: DemoOptions) -> dict[str, list[str]]:
    by_user: dict[str, list[str]] = defaultdict(list)
    for event in events(options):
        by_user[event["user_id"]].append(event["item_id"])
    return dict(by_user)


def test_departments_are_alike_and_words_are_distinct() -> None:
    assert {len(department.kinds) for department in DEPARTMENTS} == {10}
    kinds = [kind for department in DEPARTMENTS for kind in department.kinds]
    assert len(set(kinds)) == len(kinds)
    assert len(set(BRANDS)) == len(BRANDS)
    assert len({style[0] for style in STYLES}) == len(STYLES)


def test_a_record_holds_what_a_dump_would() -> None:
    records = metadata(DemoOptions(n_items=50, n_users=1))
    assert len(records) == 50
    assert [record["item_id"] for record in records] == sorted({record["item_id"] for record in records})
    for record in records:
        assert list(record) == ["item_id", "title", "brand", "style", "categories", "description"]
        assert record["title"].startswith(f"{record['brand']} {record['style']} ")
        assert record["title"].endswith(record["categories"][0][-1])
        assert record["description"].endswith(".")


def test_titles_are_unique_however_large_the_shop() -> None:
    titles = {record["title"] for record in metadata(DemoOptions(n_items=20_000, n_users=1))}
    assert len(titles) == 20_000


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(20, 300), st.integers(1, 30), st.integers(0, 5), st.sampled_from([5.0, 6.5, 12.0]))
def test_events_are_sound_at_any_size(n_items: int, n_users: int, seed: int, mean_length: float) -> None:
    options = DemoOptions(n_items=n_items, n_users=n_users, seed=seed, mean_length=mean_length)
    known = {record["item_id"] for record in metadata(options)}
    assert len(known) == n_items
    rows = events(options)
    assert [row["timestamp"] for row in rows] == sorted(row["timestamp"] for row in rows)
    times: dict[str, list[int]] = defaultdict(list)
    bought: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        times[row["user_id"]].append(row["timestamp"])
        bought[row["user_id"]].append(row["item_id"])
    assert len(bought) == n_users
    for user, items in bought.items():
        assert set(items) <= known
        assert len(set(items)) == len(items)
        assert 5 <= len(items) <= 20
        assert all(earlier < later for earlier, later in pairwise(times[user]))


def test_the_seed_decides_everything() -> None:
    one, same, other = (DemoOptions(n_items=80, n_users=20, seed=seed) for seed in (3, 3, 4))
    assert (metadata(one), events(one)) == (metadata(same), events(same))
    assert metadata(one) != metadata(other)
    assert events(one) != events(other)


def test_distracting_words_stand_first_and_change_nothing_else() -> None:
    plain, distracting = (DemoOptions(n_items=40, n_users=10, distracting=flag) for flag in (False, True))
    assert events(plain) == events(distracting)
    for before, after in zip(metadata(plain), metadata(distracting), strict=True):
        assert after["title"].endswith(f" - {before['title']}")
        assert after["description"].endswith(f". {before['description']}")
    openings = Counter(record["title"].split(" - ")[0] for record in metadata(distracting))
    assert len(openings) > 1
    assert max(openings.values()) > 1


def test_the_next_purchase_is_in_the_words_and_not_in_pairs_of_items() -> None:
    """The default shop: a rule on brand, style and kind finds what item bigrams and popularity cannot."""
    options = DemoOptions()
    sequences = list(histories(options).values())
    train = [sequence[:-2] for sequence in sequences]
    targets = [sequence[-1] for sequence in sequences]
    counts = Counter(item for sequence in sequences for item in sequence)
    assert sum(counts[item] >= 5 for item in counts) >= 0.95 * options.n_items
    assert 7.5 < sum(counts.values()) / len(sequences) < 8.5

    words = {record["item_id"]: record for record in metadata(options)}
    place = {kind.title(): (shelf, i) for shelf, one in enumerate(DEPARTMENTS) for i, kind in enumerate(one.kinds)}
    # An item's line (brand and style, which are one department's) and its place in the department's order.
    line = {item: (record["brand"], record["style"]) for item, record in words.items()}
    step = {item: place[record["categories"][0][-1]] for item, record in words.items()}
    at = {(line[item], step[item][1]): item for item in words}

    def by_rule(history: list[str]) -> list[str]:
        found: list[str] = []
        shelves = Counter(step[item][0] for item in history)
        for shelf, _ in shelves.most_common(2):
            mine = [item for item in history if step[item][0] == shelf]
            favourite, _ = Counter(line[item] for item in mine).most_common(1)[0]
            after = [at.get((favourite, kind)) for kind in range(step[mine[-1]][1] + 1, 10)]
            found += [item for item in after if item is not None and item not in history][:5]
        return found

    markov = fit_markov(train)
    rates = {
        name: hit_rate(target_ranks([recommend(sequence[:-1]) for sequence in sequences], targets), 10)
        for name, recommend in (
            ("rule", by_rule),
            ("markov", lambda history: markov.recommend(history, 10, leave_out=set(history))),
            ("popularity", lambda history: markov.popularity.recommend(history, 10, leave_out=set(history))),
        )
    }
    assert rates["rule"] > 0.5
    assert rates["markov"] < 0.15
    assert rates["popularity"] < 0.05

    bought_before = {item for sequence in train for item in sequence}
    new = sum(target not in bought_before for target in targets)
    assert 0.01 < new / len(targets) < 0.08


@pytest.mark.parametrize(
    "sizes", [{"n_items": 19}, {"n_users": 0}, {"mean_length": 4.9}, {"mean_length": float("nan")}, {"seed": -1}]
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        DemoOptions(**sizes)  # type: ignore[arg-type]
