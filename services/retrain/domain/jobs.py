"""A retraining job's life, as trainers tell of it and as its lease ends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Literal

JobStatus = Literal["queued", "running", "completed", "failed", "cancelled", "expired"]
Update = Literal["started", "heartbeat", "completed", "failed", "cancelled"]

ACTIVE: frozenset[JobStatus] = frozenset({"queued", "running"})

TRANSITIONS: Mapping[tuple[JobStatus, Update], JobStatus] = MappingProxyType(
    {
        ("queued", "started"): "running",
        ("queued", "failed"): "failed",  # the trainer could not begin
        ("queued", "cancelled"): "cancelled",
        ("running", "completed"): "completed",
        ("running", "failed"): "failed",
        ("running", "cancelled"): "cancelled",
    }
)
"""Every change of status that an update may bring. A running job expires by its lease, never by an update."""

REPEATED_BY: Mapping[Update, JobStatus] = MappingProxyType(
    {"started": "running", "completed": "completed", "failed": "failed", "cancelled": "cancelled"}
)
"""The status in which an update says what is already so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """Where a job stands. Times are wall times of the service that keeps it."""

    status: JobStatus
    lease_seconds: int
    trainer: str | None = None
    model_version: str | None = None
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    lease_expires_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a trainer said: ``model_version`` names what a completed job has made."""

    update: Update
    trainer: str | None = None
    model_version: str | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """The job's status is another one now."""

    life: Life


@dataclass(frozen=True, slots=True)
class Renewed:
    """A heartbeat: the lease runs anew, the status is the same."""

    life: Life


@dataclass(frozen=True, slots=True)
class Repeat:
    """The update says what is already so; nothing changes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Illegal:
    """The job's state does not allow the update."""

    reason: str


def advance(life: Life, news: News, now: datetime) -> Changed | Renewed | Repeat | Illegal:
    """What an update makes of a job."""
    if news.update == "heartbeat":
        if life.status != "running":
            return Illegal(f"a {life.status} job takes no heartbeat")
        renewed = replace(life, heartbeat_at=now, lease_expires_at=lease_end(life, now))
        return Renewed(replace(renewed, trainer=life.trainer or news.trainer))
    if REPEATED_BY[news.update] == life.status:
        return _repeat(life, news)
    status = TRANSITIONS.get((life.status, news.update))
    if status is None:
        return Illegal(f"a {life.status} job cannot become {REPEATED_BY[news.update]}")
    changed = replace(
        life,
        status=status,
        trainer=life.trainer or news.trainer,
        model_version=news.model_version if status == "completed" else None,
    )
    if status == "running":
        return Changed(replace(changed, started_at=now, lease_expires_at=lease_end(life, now)))
    return Changed(replace(changed, finished_at=now, lease_expires_at=None))


def expire(life: Life, now: datetime) -> Changed | None:
    """End a running job whose lease is over: the trainer was silent for all of it. Others are left alone."""
    if life.status != "running" or life.lease_expires_at is None or now < life.lease_expires_at:
        return None
    return Changed(replace(life, status="expired", finished_at=now, lease_expires_at=None))


def lease_end(life: Life, now: datetime) -> datetime:
    """When a lease that begins now is over."""
    return now + timedelta(seconds=life.lease_seconds)


def _repeat(life: Life, news: News) -> Repeat | Illegal:
    """An update that names the present status: the same again, unless it contradicts what was said before."""
    if news.update == "started" and life.trainer and news.trainer and news.trainer != life.trainer:
        return Illegal(f"the job is run by {life.trainer}")
    if news.update == "completed" and news.model_version not in (None, life.model_version):
        return Illegal(f"the job has completed with model version {life.model_version}")
    return Repeat(f"the job is {life.status} already")
