"""How retrain decides, whatever it is kept in: the same tests run in memory and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.contracts.models import Rules, Triggers
from tests.unit.retrain.builders import (
    ARTIFACT,
    BAD_ACCURACY,
    BAD_BRIER,
    EPOCH,
    MODEL,
    make_alert,
    make_request,
    make_snapshot,
    make_update,
)
from tests.unit.retrain.harness import Retrain, actions, completed, queued

LEASE = timedelta(seconds=900)
OBSERVE = {"mode": "observe"}


class Decisions:
    async def test_every_snapshot_is_decided_on_once(self, retrain: Retrain) -> None:
        told = await retrain.take(make_snapshot(1), make_snapshot(2, policy=OBSERVE), make_snapshot(2))
        told.extend(await retrain.take(make_snapshot(1), make_snapshot(2), make_snapshot(3)))

        assert actions(told.decisions) == ["noop", "dry-run-noop", "noop"]
        assert [decision.decision_sequence for decision in told.decisions] == [1, 2, 3]
        assert [decision.evidence.snapshot_sequence for decision in told.decisions] == [1, 2, 3]
        assert {(decision.asked_by, decision.request_id) for decision in told.decisions} == {("snapshot", None)}
        assert told.jobs == []
        assert told.letters == []

    async def test_a_later_snapshot_under_an_old_number_is_a_conflict(self, retrain: Retrain) -> None:
        """The metrics service numbers anew: its database was restored."""
        await retrain.take(make_snapshot(3))
        told = await retrain.take(make_snapshot(2, at=make_snapshot(4).as_of))
        assert told.decisions == []
        assert [(letter.reason, letter.field) for letter in told.letters] == [("conflict", "sequence")]
        told = await retrain.take(make_snapshot(2), make_snapshot(3))
        assert (told.decisions, told.letters) == ([], [])

    async def test_a_gap_in_the_sequence_is_no_obstacle(self, retrain: Retrain) -> None:
        told = await retrain.take(make_snapshot(5), make_snapshot(9))

        assert [decision.evidence.snapshot_sequence for decision in told.decisions] == [5, 9]
        assert [decision.decision_sequence for decision in told.decisions] == [1, 2]

    async def test_enforcing_queues_a_job_that_carries_its_evidence(self, retrain: Retrain) -> None:
        snapshot = make_snapshot(1, **BAD_ACCURACY, **BAD_BRIER)

        told = await retrain.take(make_alert(), snapshot, now=EPOCH)

        (decision,), (job,) = told.decisions, told.jobs
        assert (decision.action, decision.should_retrain, decision.dry_run) == ("queued-retrain", True, False)
        assert decision.fired == job.triggers == ("accuracy_breach", "brier_breach")
        assert (decision.job_id, decision.covered_by) == (job.job_id, {})
        assert decision.evidence == job.evidence
        assert decision.evidence.metrics == snapshot.metrics
        assert decision.evidence.policy == snapshot.policy
        assert decision.evidence.policy_sha256 == snapshot.policy_sha256
        assert decision.evidence.champion == snapshot.champion
        assert [alert.alert_id for alert in decision.evidence.standing_alerts] == ["accuracy_breach"]
        assert (decision.thresholds.accuracy_below, decision.thresholds.brier_above) == (0.55, 0.25)
        assert (decision.thresholds.new_labels_at_least, decision.thresholds.min_evaluated) == (40, 30)
        assert (job.status, job.job_sequence, job.created_at) == ("queued", 1, EPOCH)
        assert (job.reasons, job.thresholds) == (decision.reasons, decision.thresholds)
        assert (job.decision_id, job.as_of, job.lease_seconds) == (decision.decision_id, snapshot.as_of, 900)
        assert job.artifact_snapshot == ARTIFACT

    async def test_a_job_carries_the_way_back(self, retrain: Retrain) -> None:
        plan = (await queued(retrain)).rollback_plan

        assert plan.action == "revert_to_previous_model_artifact"
        assert (plan.accuracy_drop, plan.brier_rise) == (0.03, 0.02)
        assert (plan.previous_version, plan.previous_artifact) == ("v1", ARTIFACT)
        baseline = plan.baseline
        assert (baseline.evaluated_predictions, baseline.accuracy, baseline.brier_score) == (100, 0.5, 0.1)

    async def test_a_model_without_a_champion_can_be_retrained(self, retrain: Retrain) -> None:
        told = await retrain.take(make_snapshot(1, champion=None, **BAD_ACCURACY))
        told.extend(await retrain.take(make_snapshot(2, champion=None, **BAD_ACCURACY)))

        assert actions(told.decisions) == ["queued-retrain", "already-queued"]
        (job,) = told.jobs
        assert (job.champion, job.artifact_snapshot) == (None, None)
        assert (job.rollback_plan.previous_version, job.rollback_plan.previous_artifact) == (None, None)

    async def test_observing_records_what_it_would_do(self, retrain: Retrain) -> None:
        told = await retrain.take(make_snapshot(1, policy=OBSERVE, **BAD_ACCURACY))

        (decision,) = told.decisions
        assert (decision.action, decision.dry_run, decision.mode) == ("dry-run-noop", True, "observe")
        assert (decision.should_retrain, decision.fired) == (True, ("accuracy_breach",))
        assert (decision.job_id, told.jobs) == (None, [])

    async def test_triggers_and_rules_that_are_off_are_off(self, retrain: Retrain) -> None:
        bad = {**BAD_ACCURACY, **BAD_BRIER, "new_labels": 1000}
        no_triggers = Triggers(accuracy_breach=None, brier_breach=None, new_labels=None)
        no_rules = Rules(accuracy_breach=None, brier_breach=None)

        told = await retrain.take(
            make_snapshot(1, policy={"triggers": no_triggers}, **bad),
            make_snapshot(2, policy={"rules": no_rules, "triggers": Triggers(new_labels=1001)}, **bad),
        )

        off, ruleless = told.decisions
        assert [reason.outcome for reason in off.reasons] == ["off", "off", "off"]
        assert [reason.outcome for reason in ruleless.reasons] == ["off", "off", "quiet"]
        assert (off.thresholds.accuracy_below, ruleless.thresholds.brier_above) == (None, None)
        assert actions(told.decisions) == ["noop", "noop"]

    async def test_models_do_not_meet(self, retrain: Retrain) -> None:
        told = await retrain.take(
            make_snapshot(1, model="a", **BAD_ACCURACY),
            make_snapshot(1, model="b"),
            make_snapshot(2, model="a", **BAD_ACCURACY),
            make_snapshot(2, model="b", **BAD_BRIER),
        )

        assert [(each.model, each.decision_sequence, each.action) for each in told.decisions] == [
            ("a", 1, "queued-retrain"),
            ("b", 1, "noop"),
            ("a", 2, "already-queued"),
            ("b", 2, "queued-retrain"),
        ]


class OneJobPerCause:
    async def test_while_a_job_is_active_no_trigger_makes_another(self, retrain: Retrain) -> None:
        job = await queued(retrain)

        told = await retrain.take(make_snapshot(2, **BAD_BRIER), make_snapshot(99, champion="v9", **BAD_BRIER))

        assert actions(told.decisions) == ["already-queued", "already-queued"]
        assert {decision.job_id for decision in told.decisions} == {job.job_id}
        assert told.decisions[0].covered_by == {"brier_breach": job.job_id}
        assert told.jobs == []

    @pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "expired"])
    async def test_a_covered_cause_makes_no_second_job_whatever_became_of_the_first(
        self, retrain: Retrain, end: str
    ) -> None:
        job = await queued(retrain)
        await retrain.take(make_update(job, "started"))
        if end == "expired":
            await retrain.expire(job, now=EPOCH + LEASE)
        else:
            await retrain.take(make_update(job, end))
        assert (await retrain.kept_jobs())[0].status == end

        told = await retrain.take(
            make_snapshot(2, at=job.as_of + timedelta(hours=12, microseconds=-1), **BAD_ACCURACY),
            make_snapshot(3, at=job.as_of + timedelta(hours=12), **BAD_ACCURACY),
        )

        assert actions(told.decisions) == ["already-queued", "queued-retrain"]
        assert told.decisions[0].job_id == job.job_id
        assert told.decisions[0].covered_by == {"accuracy_breach": job.job_id}

    async def test_a_cause_stays_covered_when_other_snapshots_come_between(self, retrain: Retrain) -> None:
        job = await queued(retrain)
        await retrain.take(make_update(job, "failed"))
        covered_until = job.as_of + timedelta(hours=12)
        await retrain.take(make_snapshot(2, at=covered_until - timedelta(seconds=2)))

        told = await retrain.take(make_snapshot(3, at=covered_until - timedelta(seconds=1), **BAD_ACCURACY))

        assert actions(told.decisions) == ["already-queued"]
        assert told.decisions[0].job_id == job.job_id

    async def test_a_cause_that_was_covered_in_the_same_batch_is_covered(self, retrain: Retrain) -> None:
        first, second = make_snapshot(1, **BAD_ACCURACY), make_snapshot(2, **BAD_ACCURACY)

        told = await retrain.take(first, make_update("job-c8cf489ed229d3a2-s1", "failed"), second)

        assert actions(told.decisions) == ["queued-retrain", "already-queued"]
        assert [job.status for job in await retrain.kept_jobs()] == ["failed"]

    async def test_a_new_cause_makes_a_job_of_its_own(self, retrain: Retrain) -> None:
        first = await completed(retrain)

        told = await retrain.take(make_snapshot(2, **BAD_ACCURACY, **BAD_BRIER))

        (decision,), (job,) = told.decisions, told.jobs
        assert decision.fired == ("accuracy_breach", "brier_breach")
        assert job.triggers == ("brier_breach",)
        assert decision.covered_by == {"accuracy_breach": first.job_id}

    async def test_a_new_champion_is_a_new_cause(self, retrain: Retrain) -> None:
        await completed(retrain)

        told = await retrain.take(make_snapshot(2, champion="v2", **BAD_ACCURACY))

        assert actions(told.decisions) == ["queued-retrain"]

    async def test_one_batch_may_see_a_job_end_and_the_next_begin(self, retrain: Retrain) -> None:
        job = await queued(retrain)

        told = await retrain.take(
            make_update(job, "failed"),
            make_snapshot(2, **BAD_BRIER),
            make_update(job, "cancelled"),
            make_snapshot(3, **BAD_BRIER),
        )

        assert actions(told.decisions) == ["queued-retrain", "already-queued"]
        assert [letter.reason for letter in told.letters] == ["illegal_transition"]
        assert [(kept.status, kept.triggers) for kept in await retrain.kept_jobs()] == [
            ("failed", ("accuracy_breach",)),
            ("queued", ("brier_breach",)),
        ]

    async def test_one_batch_may_see_a_job_made_and_ended(self, retrain: Retrain) -> None:
        snapshot = make_snapshot(1, **BAD_ACCURACY)
        job_id = "job-c8cf489ed229d3a2-s1"

        told = await retrain.take(snapshot, make_update(job_id, "failed"))
        told.extend(await retrain.take(make_snapshot(2, **BAD_BRIER)))

        assert [(job.job_id, job.status, job.job_sequence) for job in told.jobs] == [
            (job_id, "queued", 1),
            (job_id, "failed", 2),
            ("job-c8cf489ed229d3a2-s2", "queued", 1),
        ]
        assert [job.status for job in await retrain.kept_jobs()] == ["failed", "queued"]


class Requests:
    @pytest.mark.parametrize("mode", ["observe", "enforce"])
    async def test_an_explicit_run_acts_in_either_mode(self, retrain: Retrain, mode: str) -> None:
        quiet = Triggers(accuracy_breach=None, new_labels=None)
        policy = {"mode": mode, "triggers": quiet}
        await retrain.take(make_snapshot(1, policy=policy))
        await retrain.take(make_snapshot(2, policy=OBSERVE, **BAD_ACCURACY))

        told = await retrain.take(make_request("dry", dry_run=True), make_request("wet"), make_request("late"))

        dry, wet, late = told.decisions
        assert (dry.action, dry.dry_run, dry.fired) == ("dry-run-noop", True, ("accuracy_breach",))
        assert (wet.action, wet.dry_run, wet.mode) == ("queued-retrain", False, "observe")
        assert (late.action, late.job_id) == ("already-queued", wet.job_id)
        assert [each.request_id for each in told.decisions] == ["dry", "wet", "late"]
        assert [each.decision_sequence for each in told.decisions] == [3, 4, 5]
        assert {each.asked_by for each in told.decisions} == {"request"}
        (job,) = told.jobs
        assert (job.job_id, job.decision_id) == (wet.job_id, wet.decision_id)

    async def test_an_explicit_run_without_a_reason_does_nothing(self, retrain: Retrain) -> None:
        told = await retrain.take(make_snapshot(1), make_request())

        assert actions(told.decisions) == ["noop", "noop"]

    async def test_a_request_is_decided_on_the_newest_snapshot(self, retrain: Retrain) -> None:
        await retrain.take(make_snapshot(1, **BAD_ACCURACY, policy=OBSERVE), make_snapshot(2, policy=OBSERVE))
        told = await retrain.take(make_request("r-1"), make_snapshot(3, **BAD_BRIER, policy=OBSERVE))
        told.extend(await retrain.take(make_request("r-2")))

        first, _, second = told.decisions
        assert (first.evidence.snapshot_sequence, first.action) == (2, "noop")
        assert (second.evidence.snapshot_sequence, second.action) == (3, "queued-retrain")

    async def test_a_request_id_acts_once_per_model(self, retrain: Retrain) -> None:
        await retrain.take(make_snapshot(1), make_snapshot(1, model="other"))

        told = await retrain.take(make_request(), make_request(dry_run=True), make_request(model="other"))
        told.extend(await retrain.take(make_snapshot(2, **BAD_ACCURACY), make_request()))

        assert [(each.model, each.request_id, each.action) for each in told.decisions] == [
            (MODEL, "r-1", "noop"),
            ("other", "r-1", "noop"),
            (MODEL, None, "queued-retrain"),
        ]
        assert told.letters == []

    async def test_a_request_and_a_snapshot_share_causes(self, retrain: Retrain) -> None:
        await retrain.take(make_snapshot(1, policy=OBSERVE, **BAD_ACCURACY))

        told = await retrain.take(make_request(), make_snapshot(2, **BAD_ACCURACY))

        by_request, by_snapshot = told.decisions
        assert by_request.action == "queued-retrain"
        assert (by_snapshot.action, by_snapshot.job_id) == ("already-queued", by_request.job_id)

    async def test_a_model_without_a_snapshot_cannot_be_decided_on(self, retrain: Retrain) -> None:
        await retrain.take(make_alert())

        told = await retrain.take(make_request(), make_request(model="no such model"))

        assert [(letter.reason, letter.field) for letter in told.letters] == [("invalid", "model")] * 2
        assert "no such model has no snapshot" in told.letters[1].detail
        assert told.decisions == []

    async def test_a_refused_request_may_be_asked_again(self, retrain: Retrain) -> None:
        await retrain.take(make_request())

        told = await retrain.take(make_snapshot(1), make_request())

        assert [each.request_id for each in told.decisions] == [None, "r-1"]


class Deciding(Decisions, OneJobPerCause, Requests):
    """Everything above."""
