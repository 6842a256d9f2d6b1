import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from examples.flights import stream, verify
from examples.flights.data import Flights
from examples.flights.verify import MILLION, Recomputed, Report

START = datetime(2013, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def flight(predicted: float, observed: float | None, outcome: int | None, millionths: int) -> dict[str, Any]:
    """A flight by the hours after the start of its prediction and of its label."""
    return {
        "predicted_at": START + predicted * HOUR,
        "observed_at": pd.NaT if observed is None else START + observed * HOUR,
        "outcome": outcome,
        "millionths": millionths,
    }


def recomputed(*flights: dict[str, Any]) -> Recomputed:
    table = pd.DataFrame(flights)
    for column in ("predicted_at", "observed_at"):
        table[column] = pd.to_datetime(table[column], utc=True)
    return Recomputed(table)


def figures(true: Recomputed, hours: float, days: int | None) -> verify.Figures:
    return true.figures(np.ones(len(true.flights), dtype=bool), START + hours * HOUR, days)


def test_figures_of_a_few_flights() -> None:
    true = recomputed(
        flight(0, 2, 1, 500_000),  # positive from 0.5 on: correct
        flight(1, 3, 1, 499_999),
        flight(2, 4, 0, 0),
        flight(3, None, None, 900_000),
    )
    shown = figures(true, 24, 1)
    assert shown.pop("log_loss") == pytest.approx((math.log(1 / 0.5) + math.log(1 / 0.499999)) / 3)
    assert shown == {
        "predictions": 4,
        "labels_awaited": 1,
        "label_coverage": 0.75,
        "evaluated_predictions": 3,
        "accuracy": 2 / 3,
        "brier_score": (500_000**2 + 500_001**2) / (3 * MILLION**2),
        "positive_rate": 2 / 3,
        "predicted_positive_rate": 1 / 3,
    }


def test_unknown_is_none() -> None:
    nothing = figures(recomputed(flight(0, None, None, 1)), 0, 1)
    assert nothing["predictions"] == 0
    assert nothing["evaluated_predictions"] == 0
    assert all(nothing[name] is None for name in ("label_coverage", "accuracy", "brier_score", "positive_rate"))


@pytest.mark.parametrize(
    ("hours", "days", "predictions", "awaited", "evaluated"),
    [
        (10, 1, 1, 1, 0),  # the label comes at the end of the window, which is not in it
        (10.01, 1, 1, 0, 1),
        (24, 1, 1, 0, 1),  # the prediction stands at the window's beginning, which is in it
        (24.01, 1, 0, 0, 1),
        (34, 1, 0, 0, 1),
        (34.01, 1, 0, 0, 0),
        (34.01, None, 1, 0, 1),
    ],
)
def test_windows_are_half_open(hours: float, days: int, predictions: int, awaited: int, evaluated: int) -> None:
    shown = figures(recomputed(flight(0, 10, 1, 1)), hours, days)
    assert (shown["predictions"], shown["labels_awaited"], shown["evaluated_predictions"]) == (
        predictions,
        awaited,
        evaluated,
    )


def test_only_the_selected_count() -> None:
    true = recomputed(flight(0, 1, 1, MILLION), flight(0, 1, 1, 0))
    alone = true.figures(np.array([True, False]), START + 24 * HOUR, 1)
    assert (alone["evaluated_predictions"], alone["accuracy"], alone["brier_score"]) == (1, 1.0, 0.0)


def test_new_labels_are_later_than_the_training() -> None:
    true = recomputed(flight(0, 5, 1, 1), flight(0, 6, 1, 1), flight(0, None, None, 1))
    assert true.labelled_after(START + 5 * HOUR, START + 24 * HOUR) == 1
    assert true.labelled_after(START + 4 * HOUR, START + 6 * HOUR) == 1
    assert true.labelled_after(START, START + 24 * HOUR) == 2


@pytest.mark.parametrize(
    ("shown", "true", "equal"),
    [
        (3, 3, True),
        (3, 4, False),
        (0.5, 0.5 + 9e-10, True),
        (0.5, 0.5 + 2e-9, False),
        (None, None, True),
        (None, 0, False),
        (0, None, False),
    ],
)
def test_counts_are_compared_exactly_and_scores_closely(
    shown: float | None, true: float | None, equal: bool
) -> None:
    report = Report()
    report.compare("all", {"figure": shown}, {"figure": true})
    assert (not report.differences) is equal
    assert report.line().startswith("verified" if equal else "WRONG: 1 of 1")


@pytest.fixture(scope="module")
def two_days(flights: Flights) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the demo publishes in two days."""
    records = [
        message
        for day in stream.days(flights, 2)
        for message in stream.messages(flights, day, np.full(len(day.departing), 0.25), "v1")
    ]
    predictions = [json.loads(each.value) for each in records if each.topic == "predictions"]
    return predictions, [json.loads(each.value) for each in records if each.topic == "labels"]


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return verify.expected(2)


def test_what_the_demo_publishes_follows_from_the_raw_data(
    two_days: tuple[list[Any], list[Any]], expected: pd.DataFrame
) -> None:
    report = Report()
    table = verify.held_against(report, expected, *two_days)
    assert report.differences == []
    assert len(table) == len(two_days[0])
    assert set(table["millionths"]) == {250_000}
    assert set(table["version"]) == {"v1"}


def test_the_whole_year_of_landings_follows_from_the_raw_data(flights: Flights) -> None:
    table = verify.expected(306)
    rows = flights.scheduled_within(START, datetime(2014, 1, 1, tzinfo=UTC))
    table = table.loc[flights.entity_id[rows]]
    assert (table["predicted_at"].dt.tz_localize(None).to_numpy() == flights.scheduled_at[rows]).all()
    end = np.datetime64("2014-01-01")
    landed = np.where(flights.landed_at[rows] < end, flights.landed_at[rows], np.datetime64("NaT"))
    assert np.array_equal(table["observed_at"].dt.tz_localize(None).to_numpy(), landed, equal_nan=True)


@pytest.mark.parametrize("spoilt", ["missing", "unknown", "moved", "conflicting", "outcome", "repeated"])
def test_what_was_published_wrongly_is_found(
    spoilt: str, two_days: tuple[list[Any], list[Any]], expected: pd.DataFrame
) -> None:
    predictions, labels = list(two_days[0]), list(two_days[1])
    first = predictions[0]
    if spoilt == "missing":
        predictions.pop()
    elif spoilt == "unknown":
        predictions.append(first | {"entity_id": "2013-03-01-XX-1-JFK", "prediction_id": "x"})
    elif spoilt == "moved":
        predictions[0] = first | {"predicted_at": "2013-03-01T00:00:01Z"}
    elif spoilt == "conflicting":
        predictions.append(first | {"probability": 0.5})
    elif spoilt == "outcome":
        labels[0] = labels[0] | {"outcome": 1 - labels[0]["outcome"]}
    else:
        predictions.append(first)
        labels.append(labels[0])
    report = Report()
    verify.held_against(report, expected, predictions, labels)
    assert len(report.differences) == (0 if spoilt == "repeated" else 1)
