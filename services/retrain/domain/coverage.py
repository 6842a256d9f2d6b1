"""Which job already answers for a cause of retraining.

A cause is (model, champion, trigger). The rule stands here in words of the domain; that it holds, whatever
instances do at the same moment, is the database's exclusion constraint on ``causes``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.retrain.domain.triggers import Trigger

COVERED_FOR = timedelta(hours=12)
"""For so long after its ``as_of`` a covered cause makes no second job; at exactly so long it may."""

NO_CHAMPION = ""
"""The champion of a model whose champion was never named (a version's name is never empty)."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A trigger that a job was made for, under a champion; ``as_of`` is that of the snapshot judged."""

    champion: str
    trigger: Trigger
    as_of: datetime
    job_id: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """What already answers for a model's causes: its queued or running job, and the causes of its jobs."""

    active_job: str | None
    causes: tuple[Cause, ...]

    def job_for(self, champion: str, trigger: Trigger, as_of: datetime) -> str | None:
        """The job whose cause covers ``as_of``, whatever became of that job; the newest where there are two."""
        covering = [
            cause
            for cause in self.causes
            if (cause.champion, cause.trigger) == (champion, trigger) and abs(as_of - cause.as_of) < COVERED_FOR
        ]
        return max(covering, key=lambda cause: cause.as_of).job_id if covering else None

    def jobs_for(self, champion: str, triggers: Iterable[Trigger], as_of: datetime) -> dict[Trigger, str]:
        """The covered ones of the triggers, with the job of each."""
        found = {trigger: self.job_for(champion, trigger, as_of) for trigger in triggers}
        return {trigger: job_id for trigger, job_id in found.items() if job_id is not None}
