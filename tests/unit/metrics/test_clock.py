"""The boundaries of both clocks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.clock import (
    ClockName,
    Gate,
    first_boundary,
    holder,
    missed_boundaries,
    newest_boundary,
    why_not_this_clock,
)

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("now", "as_of"),
    [
        (600 * SECOND, 600),
        (659 * SECOND + 999_999, 600),
        (660 * SECOND - 1, 600),
        (660 * SECOND, 660),
        (-1, -60),
    ],
)
def test_the_wall_clocks_boundary_is_the_newest_that_has_passed(now: int, as_of: int) -> None:
    assert newest_boundary(now, 60) == as_of


@pytest.mark.parametrize(
    ("as_of", "interval", "last", "missed"),
    [
        (600, 60, None, 0),
        (600, 60, 540, 0),
        (600, 60, 480, 1),
        (600, 60, 0, 9),
        # The interval was changed: boundaries of the present interval are counted, wherever the last cut lay.
        (600, 300, 540, 0),
        (600, 300, 300, 0),
        (600, 300, 240, 1),
        (600, 300, 300 - 60, 1),
        (660, 60, 600, 0),
    ],
)
def test_missed_boundaries(as_of: int, interval: int, last: int | None, missed: int) -> None:
    assert missed_boundaries(as_of, interval, last) == missed


@given(
    st.sampled_from([1, 7, 60, 300, 3_600, 86_400]),
    st.lists(st.integers(0, 10**6), min_size=2, max_size=20, unique=True).map(sorted),
)
def test_every_boundary_is_cut_or_counted_as_missed(interval: int, moments: list[int]) -> None:
    """However late the clock is looked at, as a snapshot's sequence must account for all time since the first."""
    last, accounted = None, 0
    for moment in moments:
        as_of = newest_boundary(moment * SECOND, interval)
        if last is not None and as_of <= last:
            continue
        assert as_of <= moment < as_of + interval
        if last is not None:
            accounted += 1 + missed_boundaries(as_of, interval, last)
        last = as_of
    assert last is not None
    assert accounted == last // interval - moments[0] // interval


@given(st.integers(0, 10**5), st.integers(1, 10**5), st.sampled_from([60, 300, 3_600, 86_400]))
def test_missed_boundaries_are_those_that_lie_between(last: int, later: int, interval: int) -> None:
    """Whatever interval the last cut was made on."""
    as_of = ((last + later) // interval + 1) * interval
    between = [boundary for boundary in range(0, as_of, interval) if boundary > last]
    assert missed_boundaries(as_of, interval, last) == len(between)


@pytest.mark.parametrize(
    ("reached", "interval", "boundary"),
    [
        ([0], 60, 60),
        ([59_999_999], 60, 60),
        ([60 * SECOND], 60, 120),
        ([500 * SECOND, 61 * SECOND, 10**15], 60, 120),
        ([-1], 60, 0),
        ([86_399 * SECOND], 86_400, 86_400),
    ],
)
def test_the_first_boundary_is_the_first_after_the_earliest_partition(
    reached: list[int], interval: int, boundary: int
) -> None:
    assert first_boundary(reached, interval) == boundary


@pytest.mark.parametrize(
    ("boundary", "occurred_at", "held"),
    [
        (None, 5, True),
        (None, -5, True),
        (60, 59_999_999, False),
        (60, 60 * SECOND, True),
        (60, 10**15, True),
        (60, -1, False),
        (0, -1, False),
        (0, 0, True),
    ],
)
def test_a_record_that_has_reached_the_boundary_waits(boundary: int | None, occurred_at: int, held: bool) -> None:
    assert Gate(boundary).holds(occurred_at) is held


def test_what_waits_is_released_by_a_later_boundary_alone() -> None:
    """The rule of release is: the tag is below the boundary reached."""
    assert Gate(None).tag < Gate(-(10**12)).tag
    assert Gate(60).tag == 60
    assert not Gate(60).tag < 60


@pytest.mark.parametrize(
    ("begun_with", "clock", "seconds", "reason"),
    [
        (("wall", 60), "wall", 60, None),
        (("event", 60), "event", 60, None),
        (("wall", 60), "event", 60, "begun with the wall clock"),
        (("event", 60), "wall", 60, "begun with the event clock"),
        (("wall", 60), "wall", 10, "begun with buckets of 60 s"),
        (("wall", 10), "wall", 60, "begun with buckets of 10 s"),
    ],
)
def test_a_database_goes_on_with_the_clock_and_the_buckets_it_was_begun_with(
    begun_with: tuple[str, int], clock: ClockName, seconds: int, reason: str | None
) -> None:
    found = why_not_this_clock(begun_with, clock, seconds)
    assert found is None if reason is None else reason in (found or "")


L0, L1, P0 = ("labels", 0), ("labels", 1), ("predictions", 0)
PLACES = [L0, L1, P0]


@pytest.mark.parametrize(
    ("reached", "boundary", "held_by"),
    [
        ({}, None, L0),
        ({L0: 1}, None, L1),
        ({L0: 1, L1: 2, P0: 3}, None, None),
        (
            {L0: 60 * SECOND, L1: 60 * SECOND - 1, P0: 5},
            60,
            P0,
        ),
        (
            {L0: 60 * SECOND, L1: 60 * SECOND - 1, P0: 10**9},
            60,
            L1,
        ),
        ({L0: 60 * SECOND, L1: 10**9, P0: 10**9}, 60, None),
        # One that was never heard of holds before one that is merely behind.
        ({L0: 60 * SECOND, P0: 5}, 60, L1),
    ],
)
def test_the_partition_that_holds_the_clock(
    reached: dict[tuple[str, int], int], boundary: int | None, held_by: tuple[str, int] | None
) -> None:
    assert holder(PLACES, reached, boundary) == held_by


def test_a_partition_that_is_gone_holds_nothing() -> None:
    assert holder([L0], {L0: 60 * SECOND, L1: 0}, 60) is None


def test_boundaries_of_a_year_of_days_are_in_order() -> None:
    boundaries = [first_boundary([day * 86_400 * SECOND], 86_400) for day in range(365)]
    assert all(after - before == 86_400 for before, after in pairwise(boundaries))
