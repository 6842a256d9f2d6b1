from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import get_args

import pytest

from services.retrain.domain.jobs import (
    TRANSITIONS,
    Changed,
    Illegal,
    JobStatus,
    Life,
    News,
    Renewed,
    Repeat,
    Update,
    advance,
    expire,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=900)
MICROSECOND = timedelta(microseconds=1)
QUEUED = Life(status="queued", lease_seconds=900)
RUNNING = replace(QUEUED, status="running", trainer="trainer-1", started_at=NOW, lease_expires_at=NOW + LEASE)
COMPLETED = replace(RUNNING, status="completed", model_version="v2", finished_at=NOW, lease_expires_at=None)
LIVES: dict[JobStatus, Life] = {
    "queued": QUEUED,
    "running": RUNNING,
    "completed": COMPLETED,
    "failed": replace(COMPLETED, status="failed", model_version=None),
    "cancelled": replace(COMPLETED, status="cancelled", model_version=None),
    "expired": replace(COMPLETED, status="expired", model_version=None),
}
REPEATS = {("running", "started"), ("completed", "completed"), ("failed", "failed"), ("cancelled", "cancelled")}


@pytest.mark.parametrize(("status", "update"), list(product(get_args(JobStatus), get_args(Update))))
def test_every_update_in_every_state_is_a_change_a_repeat_or_refused(status: JobStatus, update: Update) -> None:
    outcome = advance(LIVES[status], News(update=update), NOW)

    match outcome:
        case Changed(life):
            assert life.status == TRANSITIONS[status, update]
        case Renewed(life):
            assert (status, update) == ("running", "heartbeat")
            assert life.status == "running"
        case Repeat():
            assert (status, update) in REPEATS
        case Illegal(reason):
            assert (status, update) not in TRANSITIONS
            assert (status, update) not in REPEATS
            assert status in reason


def test_a_job_runs_from_started_with_a_lease_in_wall_time() -> None:
    assert advance(QUEUED, News(update="started", trainer="trainer-1"), NOW) == Changed(RUNNING)


def test_a_heartbeat_renews_the_lease_and_changes_no_status() -> None:
    later = NOW + timedelta(seconds=600)

    assert advance(RUNNING, News(update="heartbeat"), later) == Renewed(
        replace(RUNNING, heartbeat_at=later, lease_expires_at=later + LEASE)
    )


def test_completed_names_the_new_version_and_ends_the_lease() -> None:
    later = NOW + timedelta(seconds=60)

    assert advance(RUNNING, News(update="completed", model_version="v2"), later) == Changed(
        replace(COMPLETED, finished_at=later)
    )


@pytest.mark.parametrize("update", ["failed", "cancelled"])
@pytest.mark.parametrize("life", [QUEUED, RUNNING])
def test_a_job_may_fail_or_be_cancelled_before_and_while_it_runs(life: Life, update: Update) -> None:
    ended = replace(life, status=TRANSITIONS[life.status, update], finished_at=NOW, lease_expires_at=None)

    assert advance(life, News(update=update), NOW) == Changed(ended)
    assert ended.status == update


@pytest.mark.parametrize("trainer", ["trainer-1", None])
def test_started_again_by_the_same_trainer_is_a_repeat(trainer: str | None) -> None:
    assert isinstance(advance(RUNNING, News(update="started", trainer=trainer), NOW + LEASE), Repeat)


def test_started_by_a_second_trainer_is_refused() -> None:
    assert advance(RUNNING, News(update="started", trainer="trainer-2"), NOW) == Illegal(
        "the job is run by trainer-1"
    )


@pytest.mark.parametrize("version", ["v2", None])
def test_completed_again_is_a_repeat(version: str | None) -> None:
    assert isinstance(advance(COMPLETED, News(update="completed", model_version=version), NOW), Repeat)


def test_completed_again_with_another_version_is_refused() -> None:
    assert advance(COMPLETED, News(update="completed", model_version="v3"), NOW) == Illegal(
        "the job has completed with model version v2"
    )


def test_the_trainer_is_the_first_that_was_named() -> None:
    nameless = advance(QUEUED, News(update="started"), NOW)
    assert isinstance(nameless, Changed)
    named = advance(nameless.life, News(update="heartbeat", trainer="trainer-7"), NOW)
    assert isinstance(named, Renewed)
    again = advance(named.life, News(update="heartbeat", trainer="trainer-8"), NOW)

    assert isinstance(again, Renewed)
    assert again.life.trainer == "trainer-7"


@pytest.mark.parametrize(
    ("after", "expires"), [(LEASE - MICROSECOND, False), (LEASE, True), (LEASE + MICROSECOND, True)]
)
def test_a_running_job_expires_when_its_lease_is_over(after: timedelta, expires: bool) -> None:
    outcome = expire(RUNNING, NOW + after)

    if expires:
        ended = replace(RUNNING, status="expired", finished_at=NOW + after, lease_expires_at=None)
        assert outcome == Changed(ended)
    else:
        assert outcome is None


@pytest.mark.parametrize("status", ["queued", "completed", "failed", "cancelled", "expired"])
def test_only_a_running_job_expires(status: JobStatus) -> None:
    assert expire(LIVES[status], NOW + timedelta(days=365)) is None


def test_a_heartbeat_keeps_a_job_from_expiring() -> None:
    renewed = advance(RUNNING, News(update="heartbeat"), NOW + LEASE - MICROSECOND)

    assert isinstance(renewed, Renewed)
    assert expire(renewed.life, NOW + LEASE) is None
