"""Every event type, by its name and version: one JSON Schema and one folder of golden examples each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from shared.contracts.alerts import AlertTransition
from shared.contracts.base import Contract
from shared.contracts.dead_letters import DeadLetter, DeadLetterReplay
from shared.contracts.models import ModelVersion, Policy
from shared.contracts.observations import Label, OpenLineageRunEvent, PipelineRun, Prediction, Tick
from shared.contracts.retraining import Decision, Job, JobUpdate, RetrainRequest
from shared.contracts.snapshots import Snapshot

CATALOGUE: Mapping[str, type[Contract]] = MappingProxyType(
    {
        "prediction.v1": Prediction,
        "label.v1": Label,
        "pipeline-run.v1": PipelineRun,
        "openlineage-run-event.v1": OpenLineageRunEvent,
        "tick.v1": Tick,
        "model-version.v1": ModelVersion,
        "policy.v1": Policy,
        "snapshot.v1": Snapshot,
        "alert-transition.v1": AlertTransition,
        "retrain-request.v1": RetrainRequest,
        "retrain-decision.v1": Decision,
        "retrain-job.v1": Job,
        "retrain-job-update.v1": JobUpdate,
        "dead-letter.v1": DeadLetter,
        "dead-letter-replay.v1": DeadLetterReplay,
    }
)


def name_of(contract: type[Contract]) -> str:
    """The name and version of an event type. Raises ``KeyError`` for a contract that is no event's."""
    for name, listed in CATALOGUE.items():
        if listed is contract:
            return name
    raise KeyError(contract.__name__)
