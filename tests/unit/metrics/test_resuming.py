"""Which published snapshots a database lacks."""

from __future__ import annotations

from services.metrics.resuming import lacking
from tests.unit.alerting.builders import make_snapshot

A, B = ([make_snapshot(sequence, model=model) for sequence in range(1, 5)] for model in ("a", "b"))


def test_a_database_that_knows_what_was_published_lacks_nothing() -> None:
    assert lacking({"a": 4, "b": 7}, [*A, *B]) == []


def test_what_is_above_the_last_known_is_lacking_in_order_and_once() -> None:
    """The relay publishes at least once, and partitions are read in any order."""
    assert lacking({"a": 2}, [A[3], *A, B[0], *A, B[0]]) == [A[2], A[3], B[0]]


def test_a_new_database_lacks_everything() -> None:
    assert lacking({}, [*B, *A]) == [*A, *B]
