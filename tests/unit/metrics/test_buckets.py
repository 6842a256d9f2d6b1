"""Buckets of time, and how they tile a window."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain.buckets import (
    BEGINNING,
    WINDOW_SECONDS,
    Tile,
    bucket_seconds,
    start_of,
    tiles,
    widths,
    window_tiles,
)

DAY = 86_400
NARROWEST = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60)


@pytest.mark.parametrize(
    ("interval", "width"),
    [
        (1, 1),
        (2, 2),
        (10, 10),
        (27, 3),
        (32, 4),
        (45, 15),
        (60, 60),
        (90, 30),
        (300, 60),
        (DAY, 60),
        (7 * DAY, 60),
    ],
)
def test_the_narrowest_bucket_divides_the_interval_and_the_minute(interval: int, width: int) -> None:
    assert bucket_seconds(interval) == width


@pytest.mark.parametrize("interval", [seconds for seconds in range(1, DAY + 1) if DAY % seconds == 0])
def test_every_allowed_interval_has_widths_that_nest(interval: int) -> None:
    kept = widths(bucket_seconds(interval))
    assert interval % kept[0] == 0
    assert kept[-3:] == (60, 3600, DAY)
    assert all(wider % narrower == 0 and wider > narrower for narrower, wider in pairwise(kept))


@pytest.mark.parametrize(
    ("moment", "width", "start"),
    [
        (0, 60, 0),
        (59_999_999, 60, 0),
        (60_000_000, 60, 60),
        (-1, 60, -60),
        (-60_000_000, 60, -60),
        (-60_000_001, 60, -120),
        (DAY * 1_000_000 - 1, DAY, 0),
        (DAY * 1_000_000, DAY, DAY),
    ],
)
def test_a_bucket_holds_its_start_and_not_its_end(moment: int, width: int, start: int) -> None:
    assert start_of(moment, width) == start


@given(st.integers(-(10**17), 10**17), st.sampled_from(NARROWEST), st.sampled_from([60, 3600, DAY]))
def test_a_moment_lies_in_its_bucket_and_buckets_nest(moment: int, narrowest: int, wider: int) -> None:
    start = start_of(moment, narrowest)
    assert start % narrowest == 0
    assert start * 1_000_000 <= moment < (start + narrowest) * 1_000_000
    assert start // wider * wider == start_of(moment, wider)


def assert_tiles_cover(found: tuple[Tile, ...], since: int, until: int, kept: tuple[int, ...]) -> None:
    """Disjoint, exact, each of whole buckets of a width that is kept."""
    position = since
    for tile in sorted(found, key=lambda tile: tile.since):
        assert tile.since == position
        assert tile.since < tile.until
        assert tile.width in kept
        assert tile.until % tile.width == 0
        assert tile.since % tile.width == 0 or tile.since == BEGINNING
        position = tile.until
    assert position == until


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int, tuple[int, ...]]:
    """A span between boundaries of the narrowest width, near to and far from those of the wider ones."""
    narrowest = draw(st.sampled_from(NARROWEST))
    steps = st.one_of(st.integers(-200, 200), st.integers(-(10**6), 10**6))
    anchor = draw(st.integers(-30_000, 30_000)) * DAY
    since, until = sorted(anchor + draw(steps) * narrowest for _ in range(2))
    return since, until, widths(narrowest)


@given(spans())
def test_tiles_cover_a_span_exactly_once(span: tuple[int, int, tuple[int, ...]]) -> None:
    since, until, kept = span
    assert_tiles_cover(tiles(since, until, kept) if since < until else (), since, until, kept)


@given(spans())
def test_tiles_are_as_wide_as_they_fit(span: tuple[int, int, tuple[int, ...]]) -> None:
    """No bucket of a tile lies in a wider one that fits into the span as a whole: queries stay short."""
    since, until, kept = span
    for tile in tiles(since, until, kept):
        wider = next((width for width in kept if width > tile.width), None)
        if wider is not None:
            first_whole = -(-since // wider) * wider
            last_whole = until // wider * wider
            assert tile.until <= first_whole or tile.since >= last_whole or first_whole >= last_whole


@pytest.mark.parametrize(("since", "until"), [(0, 0), (60, 0), (DAY, DAY)])
def test_an_empty_span_has_no_tiles(since: int, until: int) -> None:
    assert tiles(since, until, widths(60)) == ()


def test_a_span_from_the_middle_of_an_hour_to_the_middle_of_another_days_hour() -> None:
    since, until = DAY - 2 * 3600 - 120, 3 * DAY + 3600 + 60
    assert set(tiles(since, until, widths(60))) == {
        Tile(60, since, DAY - 2 * 3600),
        Tile(3600, DAY - 2 * 3600, DAY),
        Tile(DAY, DAY, 3 * DAY),
        Tile(3600, 3 * DAY, 3 * DAY + 3600),
        Tile(60, 3 * DAY + 3600, until),
    }


@pytest.mark.parametrize("window", WINDOW_SECONDS)
@given(data=st.data())
def test_a_window_reaches_from_its_length_before_as_of_up_to_it(window: str, data: st.DataObject) -> None:
    narrowest = data.draw(st.sampled_from(NARROWEST))
    as_of = data.draw(st.integers(0, 2 * 10**9 // narrowest)) * narrowest
    length = {"1h": 3600, "1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "all": None}[window]
    since = BEGINNING if length is None else as_of - length
    assert_tiles_cover(window_tiles(window, as_of, widths(narrowest)), since, as_of, widths(narrowest))


def test_the_beginning_is_before_everything_that_has_a_date() -> None:
    year_one = -62_135_596_800
    assert year_one - DAY > BEGINNING
