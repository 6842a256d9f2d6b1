"""The registry of topics: their keys, contracts, writers, readers and retention.

Topics are created from this table, the AsyncAPI document is generated from it, and tests check the wiring
against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.contracts.alerts import AlertTransition
from shared.contracts.base import Contract
from shared.contracts.dead_letters import DeadLetter, DeadLetterReplay
from shared.contracts.models import ModelVersion, Policy
from shared.contracts.observations import Label, OpenLineageRunEvent, PipelineRun, Prediction, Tick
from shared.contracts.retraining import Decision, Job, JobUpdate, RetrainRequest
from shared.contracts.snapshots import Snapshot

DAY_MS = 86_400_000
FOR_EVER = -1
MAX_RECORD_BYTES = 1_048_576
"""The largest value that an input contract accepts, in bytes; topics take somewhat more, so that a larger
record becomes a dead letter with a reason instead of a bare refusal by the broker."""
MAX_MESSAGE_BYTES = 8 * MAX_RECORD_BYTES

Service = Literal["metrics", "alerting", "retrain", "gateway"]
Party = Literal["metrics", "alerting", "retrain", "gateway", "users", "trainers", "operators"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic. ``name`` is without the deployment's prefix; ``retention_ms`` -1 means for ever.

    ``also`` are the other contracts that a record of the topic may follow instead of ``contract``.
    """

    name: str
    key: str
    contract: type[Contract]
    summary: str
    writers: tuple[Party, ...]
    readers: tuple[Party, ...]
    also: tuple[type[Contract], ...] = ()
    retention_ms: int = 30 * DAY_MS
    partitions: int = 4

    @property
    def contracts(self) -> tuple[type[Contract], ...]:
        """Every contract that a record of the topic may follow, the topic's own first."""
        return (self.contract, *self.also)


PREDICTIONS = Topic(
    name="predictions",
    key="entity_id",
    contract=Prediction,
    also=(Tick,),
    summary="A model said something.",
    writers=("users",),
    readers=("metrics",),
)
LABELS = Topic(
    name="labels",
    key="entity_id",
    contract=Label,
    also=(Tick,),
    summary="What happened.",
    writers=("users",),
    readers=("metrics",),
)
PIPELINE_RUNS = Topic(
    name="pipeline-runs",
    key="pipeline",
    contract=PipelineRun,
    also=(OpenLineageRunEvent, Tick),
    summary="A data pipeline finished (plain form, or an OpenLineage RunEvent as it is).",
    writers=("users",),
    readers=("metrics",),
    partitions=1,
)
MODEL_VERSIONS = Topic(
    name="model-versions",
    key="model",
    contract=ModelVersion,
    summary="A model version was registered, promoted or retired.",
    writers=("users", "trainers"),
    readers=("metrics",),
    retention_ms=FOR_EVER,
    partitions=1,
)
POLICIES = Topic(
    name="policies",
    key="model",
    contract=Policy,
    summary="A policy comes into force.",
    writers=("operators",),
    readers=("metrics",),
    retention_ms=FOR_EVER,
    partitions=1,
)
SNAPSHOTS = Topic(
    name="snapshots",
    key="model",
    contract=Snapshot,
    summary="Rolling metrics at a moment.",
    writers=("metrics",),
    readers=("alerting", "retrain", "users"),
)
ALERTS = Topic(
    name="alerts",
    key="model",
    contract=AlertTransition,
    summary="Every change of an alert or of a model's escalation state; nothing when nothing changed.",
    writers=("alerting",),
    readers=("retrain", "users"),
)
RETRAIN_REQUESTS = Topic(
    name="retrain-requests",
    key="model",
    contract=RetrainRequest,
    summary="Please evaluate or run the policy now.",
    writers=("gateway", "operators"),
    readers=("retrain",),
)
RETRAIN_DECISIONS = Topic(
    name="retrain-decisions",
    key="model",
    contract=Decision,
    summary="What the policy said, and on what evidence.",
    writers=("retrain",),
    readers=("users",),
)
RETRAIN_JOBS = Topic(
    name="retrain-jobs",
    key="model",
    contract=Job,
    summary="A job's every change of state.",
    writers=("retrain",),
    readers=("trainers", "users"),
)
RETRAIN_JOB_UPDATES = Topic(
    name="retrain-job-updates",
    key="job_id",
    contract=JobUpdate,
    summary="A trainer says how a job goes.",
    writers=("trainers",),
    readers=("retrain",),
)
DEAD_LETTERS = Topic(
    name="dead-letters",
    key="as received",
    contract=DeadLetter,
    summary="Input that could not be accepted, byte for byte, with the reason.",
    writers=("metrics", "alerting", "retrain"),
    readers=("operators",),
    partitions=1,
)
DEAD_LETTER_REPLAYS = Topic(
    name="dead-letter-replays",
    key="letter_id",
    contract=DeadLetterReplay,
    summary="A dead letter's record was sent to its topic again.",
    writers=("operators",),
    readers=("operators",),
    partitions=1,
)

TOPICS: tuple[Topic, ...] = (
    PREDICTIONS,
    LABELS,
    PIPELINE_RUNS,
    MODEL_VERSIONS,
    POLICIES,
    SNAPSHOTS,
    ALERTS,
    RETRAIN_REQUESTS,
    RETRAIN_DECISIONS,
    RETRAIN_JOBS,
    RETRAIN_JOB_UPDATES,
    DEAD_LETTERS,
    DEAD_LETTER_REPLAYS,
)


def read_by(service: Service) -> tuple[Topic, ...]:
    """The topics that a service subscribes to."""
    return tuple(topic for topic in TOPICS if service in topic.readers)


def topic_named(name: str) -> Topic:
    """The topic of that name. Raises ``KeyError`` for a name that is not in the registry."""
    for topic in TOPICS:
        if topic.name == name:
            return topic
    raise KeyError(name)
