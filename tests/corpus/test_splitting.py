"""Nothing that is held out, and nothing after it, enters training."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from idgr.corpus.events import from_rows
from idgr.corpus.ordering import Histories, histories
from idgr.corpus.splitting import Split, by_date, leave_one_out
from idgr.formats.records import Query, Sequence

SECOND = 1_000_000
triples = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=50)


def whole_of(rows: list[tuple[int, int, int]]) -> Histories:
    return histories(from_rows("x", [{"user_id": f"u{u}", "item_id": f"i{i}", "timestamp": t} for u, i, t in rows]))


def by_user(rows: list[tuple[int, int, int]]) -> dict[str, list[tuple[int, str]]]:
    users: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for user, item, time in rows:
        users[f"u{user}"].append((time, f"i{item}"))
    return {user: sorted(took, key=lambda one: one[0]) for user, took in users.items()}


def parts(split: Split) -> tuple[list[Sequence], list[Query], list[Query]]:
    return list(split.train()), list(split.valid()), list(split.test())


@settings(derandomize=True, deadline=None)
@given(triples)
def test_leave_one_out_holds_out_the_last_two_of_three_or_more(rows: list[tuple[int, int, int]]) -> None:
    train, valid, test = parts(leave_one_out(whole_of(rows)))
    items = {user: [item for _, item in took] for user, took in by_user(rows).items()}
    long = {user: took for user, took in items.items() if len(took) >= 3}
    assert train == [Sequence(user, took[:-2] if user in long else took) for user, took in items.items()]
    assert valid == [Query(user, took[:-2], took[-2]) for user, took in long.items()]
    assert test == [Query(user, took[:-1], took[-1]) for user, took in long.items()]


@settings(derandomize=True, deadline=None)
@given(triples, st.integers(0, 20), st.integers(1, 8))
def test_by_date_takes_the_first_event_of_each_span(
    rows: list[tuple[int, int, int]], valid_from: int, days: int
) -> None:
    test_from = valid_from + days
    train, valid, test = parts(by_date(whole_of(rows), valid_from * SECOND, test_from * SECOND))
    expected_train, expected_valid, expected_test = [], [], []
    for user, took in by_user(rows).items():
        items = [item for _, item in took]
        old = sum(time < valid_from for time, _ in took)
        middle = sum(time < test_from for time, _ in took)
        if old:
            expected_train.append(Sequence(user, items[:old]))
            if middle > old:
                expected_valid.append(Query(user, items[:old], items[old]))
        if middle and len(items) > middle:
            expected_test.append(Query(user, items[:middle], items[middle]))
    assert (train, valid, test) == (expected_train, expected_valid, expected_test)


@settings(derandomize=True, deadline=None)
@given(triples, st.booleans())
def test_changing_what_is_held_out_changes_nothing_in_training(rows: list[tuple[int, int, int]], dated: bool) -> None:
    def split_of(some: list[tuple[int, int, int]]) -> Split:
        whole = whole_of(some)
        return by_date(whole, 10 * SECOND, 15 * SECOND) if dated else leave_one_out(whole)

    split = split_of(rows)
    train_end = dict(zip(split.histories.users, split.train_end.tolist(), strict=True))
    order = defaultdict(list)
    for place, (user, _, time) in enumerate(rows):
        order[f"u{user}"].append((time, place))
    held_out = {place for user, took in order.items() for _, place in sorted(took)[train_end[user] :]}
    changed = [(user, 99 if place in held_out else item, time) for place, (user, item, time) in enumerate(rows)]
    assert list(split_of(changed).train()) == list(split.train())
