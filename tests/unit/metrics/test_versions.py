"""Which version is in service and which policy in force."""

from __future__ import annotations

from itertools import permutations

import pytest

from services.metrics.domain.versions import (
    PolicyEvent,
    VersionEvent,
    all_retired,
    champion,
    in_force,
    new_labels_after,
)


def event(version: str, stage: str, since: int) -> VersionEvent:
    return VersionEvent(version, stage, since)  # type: ignore[arg-type]  # a stage


@pytest.mark.parametrize(
    ("events", "as_of", "expected"),
    [
        ([], 10, None),
        ([event("1", "candidate", 1), event("2", "retired", 2)], 10, None),
        ([event("1", "champion", 10)], 9, None),
        ([event("1", "champion", 10)], 10, "1"),
        ([event("1", "champion", 1), event("2", "champion", 2)], 10, "2"),
        ([event("1", "champion", 1), event("2", "champion", 20)], 10, "1"),
        # Named again: the newest naming counts.
        ([event("1", "champion", 1), event("2", "champion", 2), event("1", "champion", 3)], 10, "1"),
        # Only champion events name a champion: what else became of a version does not unname it.
        ([event("1", "champion", 1), event("1", "retired", 5)], 10, "1"),
        ([event("1", "champion", 1), event("2", "candidate", 5)], 10, "1"),
        # At one time the greater name, so that the order of arrival does not matter.
        ([event("1", "champion", 1), event("2", "champion", 1)], 10, "2"),
        ([event("10", "champion", 1), event("9", "champion", 1)], 10, "9"),
    ],
)
def test_the_champion(events: list[VersionEvent], as_of: int, expected: str | None) -> None:
    for order in permutations(events):
        found = champion(order, as_of)
        assert (found.version if found else None) == expected


@pytest.mark.parametrize(
    ("events", "predicting", "as_of", "retired"),
    [
        ([], [], 10, False),
        ([], ["1"], 10, False),
        ([event("1", "retired", 1)], ["1"], 10, True),
        ([event("1", "retired", 1)], [], 10, True),
        ([event("1", "retired", 10)], ["1"], 10, True),
        ([event("1", "retired", 11)], ["1"], 10, False),
        ([event("1", "champion", 1), event("1", "retired", 2)], ["1"], 10, True),
        # Retired, then taken back into service.
        ([event("1", "retired", 2), event("1", "champion", 3)], ["1"], 10, False),
        ([event("1", "retired", 2), event("1", "candidate", 3)], ["1"], 10, False),
        ([event("1", "retired", 2), event("2", "candidate", 1)], ["1"], 10, False),
        ([event("1", "retired", 2), event("2", "retired", 1)], ["1", "2"], 10, True),
        # One that predicts and was never registered is not retired; nor is one registered only later.
        ([event("1", "retired", 2)], ["1", "2"], 10, False),
        ([event("1", "retired", 2), event("2", "retired", 11)], ["1", "2"], 10, False),
        # At one time retired outranks champion, champion candidate.
        ([event("1", "champion", 2), event("1", "retired", 2)], ["1"], 10, True),
    ],
)
def test_a_model_is_retired_when_its_every_version_is(
    events: list[VersionEvent], predicting: list[str], as_of: int, retired: bool
) -> None:
    for order in permutations(events):
        assert all_retired(order, predicting, as_of) is retired


@pytest.mark.parametrize(
    ("policies", "as_of", "expected"),
    [
        ([], 10, None),
        ([PolicyEvent(0, None)], 10, 0),
        ([PolicyEvent(0, 11)], 10, None),
        ([PolicyEvent(0, 10)], 10, 0),
        ([PolicyEvent(0, None), PolicyEvent(1, 11)], 10, 0),
        ([PolicyEvent(0, None), PolicyEvent(1, 9)], 10, 1),
        # The one received last, not the one with the latest time.
        ([PolicyEvent(0, 9), PolicyEvent(1, 5)], 10, 1),
        ([PolicyEvent(0, 9), PolicyEvent(1, None)], 10, 1),
        ([PolicyEvent(0, 5), PolicyEvent(1, 11), PolicyEvent(2, 12)], 10, 0),
    ],
)
def test_the_policy_in_force_is_the_last_received_of_those_whose_time_has_come(
    policies: list[PolicyEvent], as_of: int, expected: int | None
) -> None:
    for order in permutations(policies):
        found = in_force(order, as_of)
        assert (found.order if found else None) == expected


@pytest.mark.parametrize(
    ("trained_through", "champion_since", "limit"),
    [(None, None, None), (None, 5, 5), (3, 5, 3), (7, 5, 7), (0, 5, 0), (None, 0, 0)],
)
def test_labels_are_new_after_the_training_else_after_the_promotion_else_ever(
    trained_through: int | None, champion_since: int | None, limit: int | None
) -> None:
    assert new_labels_after(trained_through, champion_since) == limit
