"""What a user may publish to an input topic: judged before it is sent as the services judge it when they read."""

from __future__ import annotations

import json

from shared.contracts.base import Contract
from shared.contracts.models import ModelVersion
from shared.contracts.observations import Label, OpenLineageRunEvent, PipelineRun, Prediction, Tick
from shared.decoding import decode
from shared.errors import Refusal
from shared.records import Record
from shared.topics import Topic


def decode_published(record: Record, topic: Topic) -> Contract | Refusal:
    """Read a record of an input topic as the services do; ``record.received_at`` is the moment of judgement.

    A tick is refused: it belongs to a partition, which a publisher of events does not choose.
    """
    event = decode(record, topic.contract)
    if not isinstance(event, Refusal) or event.reason != "invalid":
        return event
    document = json.loads(record.value or b"null")
    if isinstance(document, dict) and "tick" in document and Tick in topic.contracts:
        return Refusal("unsupported", "tick", "`trueward publish tick TIME` sends a tick, to every partition")
    if isinstance(document, dict) and "eventTime" in document and OpenLineageRunEvent in topic.contracts:
        return decode(record, OpenLineageRunEvent)
    return event


def key_of(event: Contract) -> str:
    """The key that the registry names for an event of an input topic."""
    match event:
        case Prediction():
            return event.entity
        case Label():
            return event.entity_id
        case PipelineRun():
            return event.pipeline
        case OpenLineageRunEvent():
            run = event.as_pipeline_run()
            return run.pipeline if run else f"{event.job.namespace}/{event.job.name}"
        case ModelVersion():
            return event.model
    raise TypeError(f"{type(event).__name__} is not published by users")


MOST_CLASSES = 1_000
"""Classes that a multiclass prediction may name and be evaluated."""


def unsupported(event: Prediction) -> Refusal | None:
    """Why a prediction that follows its contract is not evaluated; None where it is."""
    if event.probabilities is None or len(event.probabilities) <= MOST_CLASSES:
        return None
    detail = f"{len(event.probabilities)} classes; predictions of at most {MOST_CLASSES} are evaluated"
    return Refusal("unsupported", "probabilities", detail)
