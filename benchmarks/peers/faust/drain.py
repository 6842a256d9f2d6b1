"""The job on Faust: the join by hand on tables kept in changelogs; that of the minutes is what is read."""

from __future__ import annotations

import logging
from typing import Any

import faust
import job

PARTITIONS = 16


def build(told: job.Job) -> faust.App:
    app = faust.App(
        told.output + "-app",
        broker=f"kafka://{told.servers}",
        store="memory://",
        datadir=told.state,
        topic_partitions=PARTITIONS,
        web_enabled=False,
        producer_linger=0.05,
        stream_buffer_maxsize=131_072,
    )
    events = app.topic(told.predictions, told.labels, key_type=str, key_serializer="raw", value_serializer="json")
    changes = app.topic(
        told.output + "-changes", key_type=str, value_serializer="json", partitions=PARTITIONS, internal=True
    )
    entities = app.Table("entities", partitions=PARTITIONS)
    minutes = app.Table(
        "minutes",
        partitions=PARTITIONS,
        changelog_topic=app.topic(told.output, key_serializer="json", value_serializer="json"),
    )

    @app.agent(events)
    async def meet(stream: faust.StreamT[Any]) -> None:
        async for event in stream:
            entity = event.get("entity_id") or event["prediction_id"]
            known = entities.get(entity) or {}
            for change in job.meet(known, event):
                changes.send_soon(key=f"{change['model']} {change['minute']}", value=change)
            entities[entity] = known

    @app.agent(changes)
    async def add(stream: faust.StreamT[Any]) -> None:
        async for change in stream:
            key = f"{change['model']} {change['minute']}"
            minutes[key] = job.add(minutes.get(key), change)

    return app


if __name__ == "__main__":
    app = build(job.arguments())
    # The worker lets its Kafka client build a record for the log of every message, which nobody reads.
    app.on_worker_init.connect(
        lambda *_args, **_rest: logging.getLogger("aiokafka").setLevel(logging.WARNING), weak=False
    )
    faust.Worker(app, loglevel="warning").execute_from_commandline()
