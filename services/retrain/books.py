"""What is known of models and jobs while a batch is decided: loaded once, changed in memory, saved once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.retrain.domain.coverage import Cause, Coverage
from shared.contracts.alerts import AlertId
from shared.contracts.retraining import CitedAlert, Decision, Job
from shared.contracts.snapshots import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a batch needs to know.

    ``told`` are models that snapshots and alerts tell of; ``asked`` are the requests, as (model, request_id);
    ``judged`` are the models with snapshots, with the first and last ``as_of`` of each; ``updated`` are job ids.
    """

    told: frozenset[str] = frozenset()
    asked: frozenset[tuple[str, str]] = frozenset()
    judged: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    updated: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class ModelBook:
    """One model, locked. ``snapshot`` is the newest, where it was asked for or came with the batch."""

    model: str
    snapshot_sequence: int = 0
    alert_sequence: int = 0
    decision_sequence: int = 0
    as_of: datetime | None = None
    standing_alerts: dict[AlertId, CitedAlert] = field(default_factory=dict)
    latest_decision_id: str | None = None
    snapshot: Snapshot | None = None
    active_job: str | None = None
    causes: list[Cause] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    """Ids of the requests that have been decided."""
    awaiting_aftermath: dict[str, None] = field(default_factory=dict)
    """Ids of completed jobs without a verdict, oldest first."""
    changed: bool = False
    has_new_snapshot: bool = False

    def coverage(self) -> Coverage:
        """What answers for the model's causes now."""
        return Coverage(self.active_job, tuple(self.causes))

    def standing(self) -> tuple[CitedAlert, ...]:
        """The standing alerts, in the order of their ids."""
        return tuple(self.standing_alerts[alert_id] for alert_id in sorted(self.standing_alerts))


@dataclass(frozen=True, slots=True)
class NewCause:
    """A cause that a job of this batch was made for."""

    model: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that could not be decided."""

    model: str
    request_id: str
    detail: str


@dataclass(slots=True)
class KeptJob:
    """A job, and what the batch does to it."""

    job: Job
    awaits_aftermath: bool = False
    is_new: bool = False
    changed: bool = False


@dataclass(slots=True)
class Ledger:
    """Everything that a batch reads and writes."""

    models: dict[str, ModelBook] = field(default_factory=dict)
    jobs: dict[str, KeptJob] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    causes: list[NewCause] = field(default_factory=list)
    refused_requests: list[RefusedRequest] = field(default_factory=list)
