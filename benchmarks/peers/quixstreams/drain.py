"""The job on Quix Streams, exactly once."""

from __future__ import annotations

from typing import Any

import job
from quixstreams import Application, State


def meet(event: dict[str, Any], state: State) -> list[dict[str, Any]]:
    known = state.get("entity", {})
    changes = job.meet(known, event)
    state.set("entity", known)
    return changes


def add(change: dict[str, Any], state: State) -> dict[str, Any]:
    minute = job.add(state.get("minute"), change)
    state.set("minute", minute)
    return minute


def build(told: job.Job) -> Application:
    app = Application(
        broker_address=told.servers,
        consumer_group=told.output,
        auto_offset_reset="earliest",
        state_dir=told.state,
        processing_guarantee="exactly-once",
        loglevel="WARNING",
    )
    predictions, labels = (
        app.dataframe(app.topic(name, key_deserializer="str", value_deserializer="json"))
        for name in (told.predictions, told.labels)
    )
    changes = predictions.concat(labels).apply(meet, stateful=True, expand=True)
    minutes = changes.group_by(lambda change: f"{change['model']} {change['minute']}", name="minute")
    minutes.apply(add, stateful=True).to_topic(
        app.topic(told.output, key_serializer="str", value_serializer="json")
    )
    return app


if __name__ == "__main__":
    build(job.arguments()).run()
