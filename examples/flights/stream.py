"""What is published of each day: plain JSON records, as any client could write them.

The stream's days are UTC's. A day holds the flights scheduled to depart in it, each with its prediction, the
labels of those that land in it (of flights predicted that day or before), and the run of the pipeline that
brought them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
from numpy.typing import NDArray

from examples.flights.data import Flights, Matrix, Moments
from examples.flights.model import MODEL, rfc_3339

PREDICTIONS, LABELS, PIPELINE_RUNS = "predictions", "labels", "pipeline-runs"
INPUT_TOPICS = (PREDICTIONS, LABELS, PIPELINE_RUNS)
"""The topics whose partitions the event clock waits for."""
FIRST_DAY = date(2013, 3, 1)
LAST_MONTH = 12
PIPELINE = "flights-daily"
DAY = timedelta(days=1)
PIPELINE_RUNS_AT = timedelta(hours=23, minutes=50)


@dataclass(frozen=True, slots=True)
class Message:
    """A record to publish. ``topic`` is without the deployment's prefix."""

    topic: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the stream: rows of the flights that depart, and of those that land, in [start, end)."""

    start: datetime
    end: datetime
    departing: NDArray[np.intp]
    landing: NDArray[np.intp]


def midnight(day: date) -> datetime:
    """The beginning of a day in UTC."""
    return datetime.combine(day, time(), UTC)


def days_of(months: int) -> int:
    """How many days the first ``months`` months from 1 March on have."""
    end_month = FIRST_DAY.month + months
    end = date(FIRST_DAY.year + (end_month - 1) // 12, (end_month - 1) % 12 + 1, 1)
    return (end - FIRST_DAY).days


def days(flights: Flights, count: int) -> Iterator[Day]:
    """The first ``count`` days of the stream, in order."""
    first = midnight(FIRST_DAY)
    predicted_from = flights.scheduled_within(first, first + DAY)[0]
    for number in range(count):
        start = first + number * DAY
        end = start + DAY
        landing = flights.landed_within(start, end)
        yield Day(start, end, flights.scheduled_within(start, end), landing[landing >= predicted_from])


def messages(flights: Flights, day: Day, probability: Matrix, version: str) -> list[Message]:
    """Everything that is published of a day, in the order of event time within each topic."""
    return [
        *_predictions(flights, day.departing, probability, version),
        *_labels(flights, day.landing),
        _pipeline_run(day),
    ]


def tick(moment: datetime) -> bytes:
    """The record that says that event time has come to ``moment`` on the partition it is written to."""
    return _json({"tick": rfc_3339(moment)})


def prediction_id(entity_id: str) -> str:
    """The id of the one prediction that is made about a flight."""
    return f"{MODEL}-{entity_id}"


def _predictions(flights: Flights, rows: NDArray[np.intp], probability: Matrix, version: str) -> Iterator[Message]:
    predicted_at = _spelled(flights.scheduled_at[rows])
    weather_at = _spelled(flights.weather_at[rows])
    for row, at, seen, positive in zip(rows, predicted_at, weather_at, probability.tolist(), strict=True):
        entity_id = flights.entity_id[row]
        prediction = {
            "prediction_id": prediction_id(entity_id),
            "model": MODEL,
            "model_version": version,
            "predicted_at": at,
            "probability": positive,
            "entity_id": entity_id,
            "segment": {"carrier": flights.carrier[row], "origin": flights.origin[row]},
        }
        if seen is not None:
            prediction["data_as_of"] = seen
        yield Message(PREDICTIONS, entity_id.encode(), _json(prediction))


def _labels(flights: Flights, rows: NDArray[np.intp]) -> Iterator[Message]:
    for row, at in zip(rows, _spelled(flights.landed_at[rows]), strict=True):
        entity_id = flights.entity_id[row]
        label = {"entity_id": entity_id, "outcome": int(flights.late[row]), "observed_at": at}
        yield Message(LABELS, entity_id.encode(), _json(label))


def _pipeline_run(day: Day) -> Message:
    run = {
        "pipeline": PIPELINE,
        "model": MODEL,
        "completed_at": rfc_3339(day.start + PIPELINE_RUNS_AT),
        "status": "success",
        "records": len(day.landing),
        "run_id": f"{PIPELINE}-{day.start:%Y-%m-%d}",
    }
    return Message(PIPELINE_RUNS, PIPELINE.encode(), _json(run))


def _spelled(moments: Moments) -> list[str | None]:
    """Moments as the topics spell them; None for NaT."""
    texts = np.datetime_as_string(moments, unit="s").tolist()
    return [None if text == "NaT" else f"{text}Z" for text in texts]


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
