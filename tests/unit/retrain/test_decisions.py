from datetime import UTC, datetime, timedelta

import pytest

from services.retrain.domain.coverage import COVERED_FOR, NO_CHAMPION, Cause, Coverage
from services.retrain.domain.decisions import (
    AlreadyQueued,
    Asked,
    ByRequest,
    BySnapshot,
    DryRun,
    Noop,
    Outcome,
    QueuedRetrain,
    decide,
)
from services.retrain.domain.triggers import Trigger

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FREE = Coverage(active_job=None, causes=())
ENFORCE, OBSERVE = BySnapshot("enforce"), BySnapshot("observe")


def decide_at(
    as_of: datetime,
    coverage: Coverage,
    fired: tuple[Trigger, ...] = ("accuracy_breach",),
    asked: Asked = ENFORCE,
    champion: str = "v1",
) -> Outcome:
    return decide(asked, fired, champion=champion, as_of=as_of, coverage=coverage)


@pytest.mark.parametrize(
    ("asked", "fired", "outcome"),
    [
        (OBSERVE, (), DryRun({})),
        (OBSERVE, ("new_labels",), DryRun({})),
        (ENFORCE, (), Noop()),
        (ENFORCE, ("new_labels",), QueuedRetrain(("new_labels",), {})),
        (ByRequest("r", dry_run=True), (), DryRun({})),
        (ByRequest("r", dry_run=True), ("new_labels",), DryRun({})),
        (ByRequest("r", dry_run=False), (), Noop()),
        (ByRequest("r", dry_run=False), ("new_labels",), QueuedRetrain(("new_labels",), {})),
    ],
)
def test_who_asks_and_what_fired_make_the_action(
    asked: Asked, fired: tuple[Trigger, ...], outcome: object
) -> None:
    assert decide(asked, fired, champion="v1", as_of=AS_OF, coverage=FREE) == outcome


@pytest.mark.parametrize("asked", [ENFORCE, ByRequest("r", dry_run=False)])
def test_a_job_covers_every_trigger_that_fired(asked: Asked) -> None:
    both: tuple[Trigger, ...] = ("accuracy_breach", "brier_breach")

    assert decide_at(AS_OF, FREE, both, asked) == QueuedRetrain(both, {})


@pytest.mark.parametrize(
    ("later", "covered"),
    [
        (timedelta(0), True),
        (COVERED_FOR - MICROSECOND, True),
        (COVERED_FOR, False),
        (COVERED_FOR + MICROSECOND, False),
        (-COVERED_FOR + MICROSECOND, True),
        (-COVERED_FOR, False),
    ],
)
def test_a_cause_is_covered_for_less_than_twelve_hours(later: timedelta, covered: bool) -> None:
    finished = Coverage(None, (Cause("v1", "accuracy_breach", AS_OF, "job-1"),))

    outcome = decide_at(AS_OF + later, finished)

    if covered:
        assert outcome == AlreadyQueued("job-1", {"accuracy_breach": "job-1"})
    else:
        assert outcome == QueuedRetrain(("accuracy_breach",), {})


@pytest.mark.parametrize(
    ("champion", "trigger"), [("v2", "accuracy_breach"), (NO_CHAMPION, "accuracy_breach"), ("v1", "brier_breach")]
)
def test_another_champion_or_trigger_is_another_cause(champion: str, trigger: Trigger) -> None:
    finished = Coverage(None, (Cause("v1", "accuracy_breach", AS_OF, "job-1"),))

    assert decide_at(AS_OF, finished, (trigger,), champion=champion) == QueuedRetrain((trigger,), {})


def test_a_job_covers_only_what_no_earlier_job_does() -> None:
    finished = Coverage(None, (Cause("v1", "accuracy_breach", AS_OF, "job-1"),))

    outcome = decide_at(AS_OF + timedelta(hours=1), finished, ("accuracy_breach", "brier_breach"))

    assert outcome == QueuedRetrain(("brier_breach",), {"accuracy_breach": "job-1"})


def test_a_model_with_an_active_job_gets_no_second_one_whatever_fired() -> None:
    running = Coverage("job-2", (Cause("v1", "accuracy_breach", AS_OF, "job-1"),))

    outcome = decide_at(AS_OF, running, ("accuracy_breach", "new_labels"))

    assert outcome == AlreadyQueued("job-2", {"accuracy_breach": "job-1", "new_labels": "job-2"})


def test_without_an_active_job_the_job_of_the_first_cause_is_named() -> None:
    finished = Coverage(
        None, (Cause("v1", "brier_breach", AS_OF, "job-2"), Cause("v1", "accuracy_breach", AS_OF, "job-1"))
    )

    outcome = decide_at(AS_OF, finished, ("accuracy_breach", "brier_breach"))

    assert outcome == AlreadyQueued("job-1", {"accuracy_breach": "job-1", "brier_breach": "job-2"})


def test_of_two_jobs_that_cover_a_moment_the_newer_is_named() -> None:
    two = Coverage(
        None,
        (
            Cause("v1", "accuracy_breach", AS_OF, "job-1"),
            Cause("v1", "accuracy_breach", AS_OF + COVERED_FOR, "job-2"),
        ),
    )

    assert decide_at(AS_OF + timedelta(hours=6), two) == AlreadyQueued("job-2", {"accuracy_breach": "job-2"})


def test_a_dry_run_tells_what_is_covered_and_queues_nothing() -> None:
    running = Coverage("job-1", ())

    assert decide_at(AS_OF, running, asked=OBSERVE) == DryRun({"accuracy_breach": "job-1"})
    assert decide_at(AS_OF, running, (), asked=OBSERVE) == DryRun({})
