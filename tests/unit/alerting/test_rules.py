"""Every row of the table of rules, at, below and above each threshold, with the thresholds of the contract."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest

from services.alerting.domain.rules import (
    RULES_OF_KIND,
    AlertId,
    Breached,
    InsufficientData,
    Off,
    Outcome,
    Quiet,
    Severity,
    duration_in_words,
    evaluate,
)
from services.alerting.handlers import policy_of, snapshot_of
from shared.contracts.models import AccuracyRule, BrierRule, Rules, StalenessRule
from tests.unit.alerting.builders import DAY, make_snapshot

MICROSECOND = 1e-6
QUIET: None = None


def evaluations(**about: Any) -> dict[AlertId, Outcome]:
    snapshot = make_snapshot(1, **about)
    return dict(evaluate(policy_of(snapshot.policy), snapshot_of(snapshot).figures))


def below(value: float) -> float:
    return math.nextafter(value, -math.inf)


def above(value: float) -> float:
    return math.nextafter(value, math.inf)


TABLE = [
    ("accuracy_breach", "accuracy", 0.0, "high", 0.55),
    ("accuracy_breach", "accuracy", below(0.55), "high", 0.55),
    ("accuracy_breach", "accuracy", 0.55, QUIET, 0.55),
    ("accuracy_breach", "accuracy", above(0.55), QUIET, 0.55),
    ("accuracy_breach", "accuracy", 1.0, QUIET, 0.55),
    ("brier_breach", "brier_score", 0.0, QUIET, 0.25),
    ("brier_breach", "brier_score", below(0.25), QUIET, 0.25),
    ("brier_breach", "brier_score", 0.25, QUIET, 0.25),
    ("brier_breach", "brier_score", above(0.25), "medium", 0.25),
    ("brier_breach", "brier_score", below(0.33), "medium", 0.25),
    ("brier_breach", "brier_score", 0.33, "medium", 0.25),
    ("brier_breach", "brier_score", above(0.33), "high", 0.33),
    ("brier_breach", "brier_score", 1.0, "high", 0.33),
] + [
    (alert_id, figure, value, severity, threshold)
    for alert_id, figure in (
        ("data_stale", "data_freshness_seconds"),
        ("pipeline_stale", "pipeline_freshness_seconds"),
    )
    for value, severity, threshold in (
        (0.0, QUIET, 2 * DAY),
        (2 * DAY - MICROSECOND, QUIET, 2 * DAY),
        (2.0 * DAY, QUIET, 2 * DAY),
        (2 * DAY + MICROSECOND, "medium", 2 * DAY),
        (4 * DAY - MICROSECOND, "medium", 2 * DAY),
        (4.0 * DAY, "medium", 2 * DAY),
        (4 * DAY + MICROSECOND, "high", 4 * DAY),
        (400.0 * DAY, "high", 4 * DAY),
    )
]


@pytest.mark.parametrize(("alert_id", "figure", "value", "severity", "threshold"), TABLE)
def test_each_rule_around_each_of_its_thresholds(
    alert_id: AlertId, figure: str, value: float, severity: Severity | None, threshold: float
) -> None:
    outcome = evaluations(**{figure: value})[alert_id]
    assert (outcome.value, outcome.threshold) == (value, threshold)
    if severity is None:
        assert isinstance(outcome, Quiet)
    else:
        assert isinstance(outcome, Breached)
        assert outcome.severity == severity


def test_one_figure_out_of_bounds_concerns_its_own_rule_only() -> None:
    outcomes = evaluations(brier_score=0.9)
    assert [alert_id for alert_id, outcome in outcomes.items() if isinstance(outcome, Breached)] == [
        "brier_breach"
    ]


def test_every_rule_is_evaluated_in_the_order_of_the_rules() -> None:
    assert tuple(evaluations()) == RULES_OF_KIND["binary"]
    for rules in RULES_OF_KIND.values():
        assert rules == tuple(alert_id for alert_id in get_args(AlertId) if alert_id in rules)


@pytest.mark.parametrize("evaluated", [0, 29])
def test_quality_rules_need_min_evaluated_and_say_the_count(evaluated: int) -> None:
    outcomes = evaluations(evaluated_predictions=evaluated, accuracy=0.1, brier_score=0.9)
    for alert_id, value, threshold in (("accuracy_breach", 0.1, 0.55), ("brier_breach", 0.9, 0.25)):
        assert outcomes[alert_id] == InsufficientData(
            reason=f"{evaluated} evaluated predictions of the 30 that are needed",
            value=value,
            threshold=threshold,
            evaluated_predictions=evaluated,
        )


@pytest.mark.parametrize("evaluated", [30, 31])
def test_quality_rules_judge_from_min_evaluated_on(evaluated: int) -> None:
    outcomes = evaluations(evaluated_predictions=evaluated, accuracy=0.1, brier_score=0.9)
    assert isinstance(outcomes["accuracy_breach"], Breached)
    assert isinstance(outcomes["brier_breach"], Breached)


def test_min_evaluated_is_the_policys() -> None:
    few, enough = (
        evaluations(min_evaluated=5, evaluated_predictions=count, accuracy=0.1)["accuracy_breach"]
        for count in (4, 5)
    )
    assert isinstance(few, InsufficientData)
    assert isinstance(enough, Breached)


def test_staleness_rules_need_no_evaluated_predictions() -> None:
    outcomes = evaluations(
        evaluated_predictions=0,
        accuracy=None,
        brier_score=None,
        data_freshness_seconds=5.0 * DAY,
        pipeline_freshness_seconds=3.0 * DAY,
    )
    assert isinstance(outcomes["data_stale"], Breached)
    assert outcomes["data_stale"].severity == "high"
    assert isinstance(outcomes["pipeline_stale"], Breached)
    assert outcomes["pipeline_stale"].severity == "medium"


@pytest.mark.parametrize(
    ("alert_id", "figure", "reason"),
    [
        ("accuracy_breach", "accuracy", "accuracy is unknown"),
        ("brier_breach", "brier_score", "brier_score is unknown"),
        ("data_stale", "data_freshness_seconds", "the newest data is of unknown age"),
        (
            "pipeline_stale",
            "pipeline_freshness_seconds",
            "the newest successful pipeline run is of unknown age",
        ),
    ],
)
def test_an_unknown_value_is_insufficient_data(alert_id: AlertId, figure: str, reason: str) -> None:
    outcome = evaluations(**{figure: None})[alert_id]
    assert isinstance(outcome, InsufficientData)
    assert (outcome.reason, outcome.value, outcome.evaluated_predictions) == (reason, None, None)


def test_while_catching_up_staleness_is_insufficient_data_and_quality_is_judged() -> None:
    outcomes = evaluations(
        catching_up=True,
        accuracy=0.1,
        brier_score=0.9,
        data_freshness_seconds=9.0 * DAY,
        pipeline_freshness_seconds=9.0 * DAY,
    )
    assert {alert_id: type(outcome) for alert_id, outcome in outcomes.items()} == {
        "accuracy_breach": Breached,
        "brier_breach": Breached,
        "data_stale": InsufficientData,
        "pipeline_stale": InsufficientData,
    }
    assert outcomes["data_stale"].reason == "intake is catching up, so staleness cannot be told yet"


@pytest.mark.parametrize("alert_id", RULES_OF_KIND["binary"])
def test_a_rule_set_to_null_is_off_whatever_the_figures(alert_id: AlertId) -> None:
    outcomes = evaluations(
        rules=Rules(**{alert_id: None}),
        accuracy=0.1,
        brier_score=0.9,
        data_freshness_seconds=9.0 * DAY,
        pipeline_freshness_seconds=9.0 * DAY,
    )
    assert outcomes.pop(alert_id) == Off()
    assert all(isinstance(outcome, Breached) for outcome in outcomes.values())


def test_thresholds_are_the_policys() -> None:
    rules = Rules(
        accuracy_breach=AccuracyRule(below=0.9),
        brier_breach=BrierRule(above=0.05, high_above=0.1),
        data_stale=StalenessRule(above_seconds=10, high_above_seconds=59),
        pipeline_stale=StalenessRule(above_seconds=3599, high_above_seconds=3600),
    )
    outcomes = evaluations(rules=rules)
    assert {
        alert_id: (outcome.threshold, outcome.severity)
        for alert_id, outcome in outcomes.items()
        if isinstance(outcome, Breached)
    } == {
        "accuracy_breach": (0.9, "high"),
        "brier_breach": (0.05, "medium"),
        "data_stale": (59, "high"),
        "pipeline_stale": (3599, "medium"),
    }


@pytest.mark.parametrize(
    ("alert_id", "about", "reason"),
    [
        ("accuracy_breach", {"accuracy": 0.54}, "accuracy 0.54 is below 0.55"),
        ("accuracy_breach", {"accuracy": 0.55}, "accuracy 0.55 is not below 0.55"),
        ("accuracy_breach", {"accuracy": below(0.55)}, "accuracy 0.5499999999999999 is below 0.55"),
        ("brier_breach", {"brier_score": 0.25}, "brier_score 0.25 is not above 0.25"),
        ("brier_breach", {"brier_score": 0.26}, "brier_score 0.26 is above 0.25"),
        ("brier_breach", {"brier_score": 0.34}, "brier_score 0.34 is above 0.33"),
        ("data_stale", {"data_freshness_seconds": 90.5}, "the newest data is 1 min 30.5 s old, not more than 2 d"),
        (
            "data_stale",
            {"data_freshness_seconds": 4 * DAY + 3600.0},
            "the newest data is 4 d 1 h old, more than 4 d",
        ),
        (
            "pipeline_stale",
            {"pipeline_freshness_seconds": 2 * DAY + 0.000001},
            "the newest successful pipeline run is 2 d 0.000001 s old, more than 2 d",
        ),
    ],
)
def test_the_reason_says_the_comparison(alert_id: AlertId, about: dict[str, float], reason: str) -> None:
    assert evaluations(**about)[alert_id].reason == reason


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.25, "0.25 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3661, "1 h 1 min 1 s"),
        (2 * DAY, "2 d"),
        (172800.1, "2 d 0.1 s"),
        (-90.0, "-1 min 30 s"),
        (1e-7, "0.0000001 s"),
        (2.0**53 * DAY, f"{2**53} d"),
    ],
)
def test_durations_are_told_without_rounding(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words
