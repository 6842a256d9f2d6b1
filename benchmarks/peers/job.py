"""What every peer's program is told, and the rule of the join for those that are written in Python.

Standard library alone: it runs in the virtual environments of all of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

EVEN_CHANCE = 0.5
LENGTH_OF_A_MINUTE = 16
"""Of ``2026-01-01T00:00`` in a time's text: reading no more of it than this is in the peers' favour."""


@dataclass(frozen=True)
class Job:
    """Where to read and write. ``state`` is an empty folder for what the peer keeps."""

    servers: str
    predictions: str
    labels: str
    output: str
    state: str


def arguments() -> Job:
    """The job, as the command line tells it."""
    parser = argparse.ArgumentParser()
    for name in ("servers", "predictions", "labels", "output", "state"):
        parser.add_argument(f"--{name}", required=True)
    return Job(**vars(parser.parse_args()))


def meet(state: dict[str, Any], event: dict[str, Any]) -> list[dict[str, Any]]:
    """Take an event into what is known of its entity; returns what changes in which minutes.

    A prediction that comes again, and a label that is not newer than the one that stands, change nothing.
    """
    before = _contribution(state)
    if "prediction_id" in event:
        state.setdefault("prediction", [event["model"], event["predicted_at"], event["probability"]])
    else:
        arrived = [event["observed_at"], event["outcome"]]
        if arrived > state.get("label", ["", 0]):
            state["label"] = arrived
    after = _contribution(state)
    if before == after:
        return []
    return [
        {**found, **{name: sign * found[name] for name in ("evaluated", "correct", "squared_error")}}
        for found, sign in ((before, -1), (after, 1))
        if found is not None
    ]


def _contribution(state: dict[str, Any]) -> dict[str, Any] | None:
    if "prediction" not in state or "label" not in state:
        return None
    model, predicted_at, probability = state["prediction"]
    observed_at, outcome = state["label"]
    return {
        "model": model,
        "minute": max(predicted_at, observed_at)[:LENGTH_OF_A_MINUTE],
        "evaluated": 1,
        "correct": int((probability >= EVEN_CHANCE) == (outcome == 1)),
        "squared_error": (probability - outcome) ** 2,
    }


def add(minute: dict[str, Any] | None, change: dict[str, Any]) -> dict[str, Any]:
    """A minute of a model after a change of it."""
    if minute is None:
        return change
    return {
        **minute,
        **{name: minute[name] + change[name] for name in ("evaluated", "correct", "squared_error")},
    }
