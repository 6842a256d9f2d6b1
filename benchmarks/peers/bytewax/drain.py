"""The job on Bytewax, one worker, without recovery, which about halves its speed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import bytewax.operators as op
import job
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.run import cli_main


def meet(
    state: dict[str, Any] | None, event: dict[str, Any]
) -> tuple[dict[str, Any] | None, Iterable[dict[str, Any]]]:
    state = {} if state is None else state
    return state, job.meet(state, event)


class Minute(StatefulBatchLogic[dict[str, Any], dict[str, Any], dict[str, Any] | None]):
    """A minute of a model: says what it has become once a batch, not once a change."""

    def __init__(self, known: dict[str, Any] | None) -> None:
        self.known = known

    def on_batch(self, changes: list[dict[str, Any]]) -> tuple[Iterable[dict[str, Any]], bool]:
        for change in changes:
            self.known = job.add(self.known, change)
        return [self.known], StatefulBatchLogic.RETAIN

    def snapshot(self) -> dict[str, Any] | None:
        return self.known


def as_message(keyed: tuple[str, dict[str, Any]]) -> KafkaSinkMessage[bytes, bytes]:
    key, minute = keyed
    return KafkaSinkMessage(key.encode(), json.dumps(minute).encode())


def build(told: job.Job) -> Dataflow:
    flow = Dataflow("drain")
    read = kop.input(
        "read", flow, brokers=[told.servers], topics=[told.predictions, told.labels], batch_size=5_000
    )
    events = op.map("decode", read.oks, lambda message: json.loads(message.value))
    by_entity = op.key_on("by_entity", events, lambda event: event.get("entity_id") or event["prediction_id"])
    changes = op.stateful_flat_map("meet", by_entity, meet)
    by_minute = op.map("by_minute", changes, lambda keyed: (f"{keyed[1]['model']} {keyed[1]['minute']}", keyed[1]))
    minutes = op.stateful_batch("add", by_minute, Minute)
    kop.output("write", op.map("encode", minutes, as_message), brokers=[told.servers], topic=told.output)
    return flow


if __name__ == "__main__":
    cli_main(build(job.arguments()))
