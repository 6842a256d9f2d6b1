"""What is to be done about the triggers that fired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

from services.retrain.domain.coverage import Coverage
from services.retrain.domain.triggers import Trigger

Mode = Literal["observe", "enforce"]
Action = Literal["dry-run-noop", "noop", "queued-retrain", "already-queued"]


@dataclass(frozen=True, slots=True)
class BySnapshot:
    """The policy runs by itself, on a new snapshot: the mode says whether it acts."""

    mode: Mode

    @property
    def dry_run(self) -> bool:
        """Observing records what enforcing would do."""
        return self.mode == "observe"


@dataclass(frozen=True, slots=True)
class ByRequest:
    """Someone asked: an explicit run acts in either mode."""

    request_id: str
    dry_run: bool


Asked = BySnapshot | ByRequest


@dataclass(frozen=True, slots=True)
class DryRun:
    """Nothing is done; ``covered_by`` says which of the fired triggers a job already covers."""

    action: ClassVar[Action] = "dry-run-noop"
    covered_by: Mapping[Trigger, str]


@dataclass(frozen=True, slots=True)
class Noop:
    """No trigger fired."""

    action: ClassVar[Action] = "noop"


@dataclass(frozen=True, slots=True)
class QueuedRetrain:
    """A job is to be made for ``triggers``; fired ones that an earlier job covers are in ``covered_by``."""

    action: ClassVar[Action] = "queued-retrain"
    triggers: tuple[Trigger, ...]
    covered_by: Mapping[Trigger, str]


@dataclass(frozen=True, slots=True)
class AlreadyQueued:
    """``job_id`` answers for what fired: the model's queued or running job, else the job of the first cause."""

    action: ClassVar[Action] = "already-queued"
    job_id: str
    covered_by: Mapping[Trigger, str]


Outcome = DryRun | Noop | QueuedRetrain | AlreadyQueued


def decide(
    asked: Asked, fired: tuple[Trigger, ...], *, champion: str, as_of: datetime, coverage: Coverage
) -> Outcome:
    """Decide about one snapshot, of whose triggers ``fired`` did.

    While a job is queued or running it answers for every trigger that no other job covers: a model has at
    most one such job.
    """
    covered_by = coverage.jobs_for(champion, fired, as_of)
    if coverage.active_job is not None:
        covered_by = {trigger: covered_by.get(trigger, coverage.active_job) for trigger in fired}
    if asked.dry_run:
        return DryRun(covered_by)
    if not fired:
        return Noop()
    if coverage.active_job is not None:
        return AlreadyQueued(coverage.active_job, covered_by)
    uncovered = tuple(trigger for trigger in fired if trigger not in covered_by)
    if not uncovered:
        return AlreadyQueued(covered_by[fired[0]], covered_by)
    return QueuedRetrain(uncovered, covered_by)
