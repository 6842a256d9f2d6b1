"""The newest label of a bucket, kept exact while labels come and go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.newest import Newest, after


@pytest.mark.parametrize(
    ("standing", "changes", "expected"),
    [
        (Newest(), {}, Newest()),
        (Newest(), {5: 0}, Newest()),
        (Newest(), {5: 2}, Newest(5, 2)),
        (Newest(5, 2), {}, Newest(5, 2)),
        (Newest(5, 2), {5: 1}, Newest(5, 3)),
        (Newest(5, 2), {5: -1}, Newest(5, 1)),
        (Newest(5, 2), {7: 1}, Newest(7, 1)),
        (Newest(5, 2), {7: 1, 5: -2}, Newest(7, 1)),
        (Newest(5, 2), {3: 4}, Newest(5, 2)),
        (Newest(5, 2), {3: -1}, Newest(5, 2)),
        # All of the newest have gone; how old the next one is, these numbers do not know.
        (Newest(5, 2), {5: -2}, None),
        (Newest(5, 2), {5: -2, 3: 1}, None),
    ],
)
def test_the_newest_after_labels_came_and_went(
    standing: Newest, changes: dict[int, int], expected: Newest | None
) -> None:
    assert after(standing, changes) == expected


moments = st.integers(0, 5)


@given(st.lists(st.tuples(moments, st.one_of(st.none(), moments)), max_size=30), st.data())
def test_it_is_the_newest_of_those_that_remain(steps: list[tuple[int, int | None]], data: st.DataObject) -> None:
    """Labels come, or move from the bucket's moments to another; batches are of any size."""
    remaining: Counter[int] = Counter()
    standing = Newest()
    while steps:
        size = data.draw(st.integers(1, len(steps)))
        batch, steps = steps[:size], steps[size:]
        changes: Counter[int] = Counter()
        for arrived, left in batch:
            changes[arrived] += 1
            if left is not None and (remaining + changes)[left] > 0:
                changes[left] -= 1
        remaining.update(changes)
        remaining = +remaining
        expected = Newest(max(remaining), remaining[max(remaining)]) if remaining else Newest()
        found = after(standing, changes)
        assert found in (expected, None)
        if found is None:
            assert standing.moment is not None
            assert remaining[standing.moment] == 0
        standing = expected
