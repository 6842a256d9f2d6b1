"""The breaker's rule: what is a flood of dead letters, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.breaker import BreakerPolicy, Flood, Intake, Passing, State, judge, policy_of, told
from shared.errors import Refusal
from shared.records import Record
from shared.settings import Settings

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
POLICY = BreakerPolicy(min_refused=100, min_share=0.5, window=timedelta(minutes=10))
QUIET = Intake(records=1, refused=1)


@pytest.mark.parametrize(
    ("batch", "window", "reason"),
    [
        # A batch that is a flood by itself, whatever was before it.
        (Intake(100, 100), Intake(1_000_000, 100), "100 of 100 records were refused"),
        (Intake(200, 100), Intake(1_000_000, 100), "100 of 200 records were refused"),
        # Small batches that are one together.
        (QUIET, Intake(100, 100), "100 of 100 records were refused"),
        (QUIET, Intake(201, 101), "101 of 201 records were refused"),
    ],
)
def test_a_flood(batch: Intake, window: Intake, reason: str) -> None:
    assert judge(POLICY, State(), NOW, batch=batch, window=window) == Flood(reason)


@pytest.mark.parametrize(
    ("batch", "window"),
    [
        (QUIET, QUIET),
        (Intake(99, 99), Intake(99, 99)),  # too few
        (Intake(201, 100), Intake(201, 100)),  # less than half
        (Intake(10_000, 4_999), Intake(50_000, 20_000)),
        (Intake(0, 0), Intake(0, 0)),
    ],
)
def test_no_flood(batch: Intake, window: Intake) -> None:
    passing = Passing(f"{window.refused} of {window.records} records were refused")
    assert judge(POLICY, State(), NOW, batch=batch, window=window) == passing


def test_an_operator_may_let_everything_pass_until_a_moment() -> None:
    flood = Intake(1_000, 1_000)
    let = State(passes_until=NOW + timedelta(microseconds=1))
    over = State(passes_until=NOW)
    assert judge(POLICY, let, NOW, batch=flood, window=flood) == Passing(
        "an operator lets everything pass for now"
    )
    assert isinstance(judge(POLICY, over, NOW, batch=flood, window=flood), Flood)


def test_it_can_be_off() -> None:
    off = policy_of(Settings(breaker_min_refused=0))
    flood = Intake(10**6, 10**6)
    assert judge(off, State(), NOW, batch=flood, window=flood) == Passing("the breaker is off")


def test_by_default_it_is_on() -> None:
    assert policy_of(Settings()) == POLICY


def test_it_says_how_much_mostly_why_where_and_the_way_out() -> None:
    refused = [
        (Record("predictions", 2, offset, NOW, None, b"x"), Refusal("invalid", "probability", "must be at most 1"))
        for offset in range(7, 10)
    ]
    other = (Record("predictions", 0, 0, NOW, None, b"x"), Refusal("undecodable", None, "no JSON"))
    said = told("metrics", "predictions", Flood("4 of 4 records were refused"), [other, *refused])
    assert said == (
        "the dead-letter breaker has stopped the intake: of predictions 4 of 4 records were refused, 3 of the "
        "newest 4 as invalid, probability: must be at most 1 (such as partition 2, offset 7); mend the cause, "
        "then: trueward breaker reset --service metrics"
    )
