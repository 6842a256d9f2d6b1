"""What retrain makes of alerts, trainers' updates, retrained versions and bad input, wherever it is kept."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.contracts.snapshots import VersionMetrics
from shared.instruments import UNKNOWN_FIELDS_TOTAL
from shared.topics import RETRAIN_REQUESTS, SNAPSHOTS
from tests.unit.retrain.builders import BAD_BRIER, EPOCH, make_alert, make_request, make_snapshot, make_update
from tests.unit.retrain.harness import Retrain, actions, completed, queued

LEASE = timedelta(seconds=900)
GOOD = VersionMetrics(evaluated_predictions=30, accuracy=0.9, brier_score=0.05)
POOR = VersionMetrics(evaluated_predictions=30, accuracy=0.4, brier_score=0.4)


class Alerts:
    async def test_standing_alerts_are_cited_as_they_were_heard(self, retrain: Retrain) -> None:
        await retrain.take(
            make_alert(1, "opened", severity="medium", escalation_level="none"),
            make_alert(2, "opened", alert_id="brier_breach"),
            make_alert(3, "escalated", escalation_level="incident"),
            make_alert(4, "state_changed", alert_id=None, severity=None, breach_streak=None),
        )
        (decision,) = (await retrain.take(make_snapshot(1))).decisions

        accuracy, brier = decision.evidence.standing_alerts
        assert (accuracy.alert_id, accuracy.severity, accuracy.escalation_level) == (
            "accuracy_breach",
            "high",
            "incident",
        )
        assert (accuracy.breach_streak, brier.alert_id) == (3, "brier_breach")

    async def test_a_resolved_alert_is_cited_no_more(self, retrain: Retrain) -> None:
        await retrain.take(make_alert(1), make_alert(2, alert_id="brier_breach"))
        await retrain.take(make_alert(3, "resolved"))
        (decision,) = (await retrain.take(make_snapshot(1))).decisions

        assert [alert.alert_id for alert in decision.evidence.standing_alerts] == ["brier_breach"]

    async def test_what_is_not_above_the_last_sequence_is_dropped(self, retrain: Retrain) -> None:
        await retrain.take(make_alert(2), make_alert(3, "resolved"), make_alert(2))
        told = await retrain.take(make_alert(3), make_snapshot(1))

        assert told.decisions[0].evidence.standing_alerts == ()

    @pytest.mark.parametrize("field", ["alert_id", "severity", "escalation_level", "breach_streak"])
    async def test_an_alert_that_leaves_out_what_stands_is_refused(self, retrain: Retrain, field: str) -> None:
        left_out = make_alert(1).model_copy(update={field: None})

        told = await retrain.take(left_out, make_alert(2, alert_id="brier_breach"))
        told.extend(await retrain.take(make_snapshot(1)))

        assert [(letter.reason, letter.field) for letter in told.letters] == [("invalid", field)]
        assert [alert.alert_id for alert in told.decisions[0].evidence.standing_alerts] == ["brier_breach"]


class Jobs:
    async def test_a_job_lives_by_what_its_trainer_says(self, retrain: Retrain) -> None:
        job = await queued(retrain)
        minute = timedelta(minutes=1)

        told = await retrain.take(make_update(job, "started", trainer="t-1"), now=EPOCH + minute)
        quiet = await retrain.take(make_update(job, "heartbeat", message="half way"), now=EPOCH + 2 * minute)
        done = make_update(job, "completed", model_version="v2", details={"loss": 0.25})
        told.extend(await retrain.take(done, now=EPOCH + 3 * minute))

        running, ended = told.jobs
        assert (running.status, running.job_sequence, running.run.trainer) == ("running", 2, "t-1")
        assert (running.started_at, running.lease_expires_at) == (EPOCH + minute, EPOCH + minute + LEASE)
        assert (quiet.jobs, quiet.letters) == ([], [])
        assert (ended.status, ended.job_sequence, ended.run.model_version) == ("completed", 3, "v2")
        assert (ended.heartbeat_at, ended.finished_at) == (EPOCH + 2 * minute, EPOCH + 3 * minute)
        assert (ended.run.message, ended.run.details) == ("half way", {"loss": 0.25})
        assert ended.lease_expires_at is None
        assert ended.evidence == job.evidence
        assert await retrain.kept_jobs() == [ended]

    async def test_a_heartbeat_is_kept_and_not_published(self, retrain: Retrain) -> None:
        job = await queued(retrain)
        await retrain.take(make_update(job, "started"))

        told = await retrain.take(make_update(job, "heartbeat"), now=EPOCH + LEASE / 2)

        assert told.jobs == []
        (kept,) = await retrain.kept_jobs()
        assert (kept.heartbeat_at, kept.lease_expires_at) == (EPOCH + LEASE / 2, EPOCH + 1.5 * LEASE)
        assert (kept.job_sequence, kept.status) == (2, "running")

    async def test_a_repeated_update_changes_nothing(self, retrain: Retrain) -> None:
        ended = await completed(retrain)

        told = await retrain.take(
            make_update(ended, "completed", model_version="v2", message="again"), now=EPOCH + LEASE
        )

        assert (told.jobs, told.letters) == ([], [])
        assert await retrain.kept_jobs() == [ended]

    async def test_an_illegal_update_is_refused(self, retrain: Retrain) -> None:
        ended = await completed(retrain)

        told = await retrain.take(
            make_update(ended, "heartbeat"),
            make_update(ended, "failed"),
            make_update(ended, "completed", model_version="v3"),
        )

        assert [letter.reason for letter in told.letters] == ["illegal_transition"] * 3
        assert [letter.detail for letter in told.letters] == [
            "a completed job takes no heartbeat",
            "a completed job cannot become failed",
            "the job has completed with model version v2",
        ]
        assert await retrain.kept_jobs() == [ended]

    async def test_an_unknown_job_is_refused(self, retrain: Retrain) -> None:
        told = await retrain.take(make_update("job-x", "started"))

        assert [(letter.reason, letter.field) for letter in told.letters] == [("unknown_job", "job_id")]

    async def test_a_silent_job_expires_when_its_lease_is_over(self, retrain: Retrain) -> None:
        job = await queued(retrain)
        started = await retrain.take(make_update(job, "started"))

        early = await retrain.expire(job, now=EPOCH + LEASE - timedelta(microseconds=1))
        told = await retrain.expire(job, now=EPOCH + LEASE)
        again = await retrain.expire(job, now=EPOCH + 2 * LEASE)

        assert (early.jobs, again.jobs) == ([], [])
        (expired,) = told.jobs
        assert (expired.status, expired.job_sequence) == ("expired", started.jobs[0].job_sequence + 1)
        assert expired.finished_at == EPOCH + LEASE
        late = await retrain.take(make_update(job, "completed", model_version="v2"), now=EPOCH + 2 * LEASE)
        assert [letter.reason for letter in late.letters] == ["illegal_transition"]

    async def test_a_queued_job_does_not_expire(self, retrain: Retrain) -> None:
        job = await queued(retrain)

        assert (await retrain.expire(job, now=EPOCH + timedelta(days=365))).jobs == []


class Aftermath:
    @pytest.mark.parametrize(("figures", "verdict"), [(GOOD, "keep"), (POOR, "revert_to_previous_model_artifact")])
    @pytest.mark.parametrize("champion", ["v1", "v2"])
    async def test_the_verdict_comes_with_the_first_snapshot_that_has_enough(
        self, retrain: Retrain, figures: VersionMetrics, verdict: str, champion: str
    ) -> None:
        ended = await completed(retrain)
        few = figures.model_copy(update={"evaluated_predictions": 29})

        told = await retrain.take(make_snapshot(2), make_snapshot(3, versions={"v2": few, "v1": GOOD}))
        assert told.jobs == []
        told = await retrain.take(
            make_snapshot(4, champion=champion, versions={"v2": figures, "v1": GOOD}),
            make_snapshot(5, champion=champion, versions={"v2": GOOD}),
        )
        told.extend(await retrain.take(make_snapshot(6, champion=champion, versions={"v2": POOR})))

        (assessed,) = told.jobs
        assert (assessed.status, assessed.job_sequence) == ("completed", ended.job_sequence + 1)
        aftermath = assessed.aftermath
        assert aftermath is not None
        assert (aftermath.verdict, aftermath.model_version) == (verdict, "v2")
        assert (aftermath.snapshot_sequence, aftermath.as_of) == (4, make_snapshot(4).as_of)
        assert (aftermath.evaluated_predictions, aftermath.accuracy) == (30, figures.accuracy)
        assert (await retrain.kept_jobs())[0] == assessed

    async def test_what_is_told_of_a_version_before_completion_gives_no_verdict(self, retrain: Retrain) -> None:
        job = await queued(retrain)
        await retrain.take(make_update(job, "started"))

        before = await retrain.take(make_snapshot(2, versions={"v2": POOR}))
        told = await retrain.take(
            make_update(job, "completed", model_version="v2"), make_snapshot(3, versions={"v2": GOOD})
        )

        assert before.jobs == []
        assert [(each.status, each.aftermath is None) for each in told.jobs] == [
            ("completed", True),
            ("completed", False),
        ]

    @pytest.mark.parametrize("version", [None, "v1"])
    async def test_a_job_that_names_no_version_of_its_own_gets_no_verdict(
        self, retrain: Retrain, version: str | None
    ) -> None:
        await completed(retrain, version)

        told = await retrain.take(make_snapshot(2, versions={"v1": POOR}))

        assert told.jobs == []

    async def test_two_jobs_await_their_verdicts_at_once(self, retrain: Retrain) -> None:
        first = await completed(retrain)
        (second,) = (await retrain.take(make_snapshot(2, **BAD_BRIER))).jobs
        await retrain.take(make_update(second, "started"), make_update(second, "completed", model_version="v3"))

        told = await retrain.take(make_snapshot(3, versions={"v2": GOOD}))
        told.extend(await retrain.take(make_snapshot(4, versions={"v2": GOOD, "v3": POOR})))

        assert [(job.job_id, job.aftermath is not None) for job in told.jobs] == [
            (first.job_id, True),
            (second.job_id, True),
        ]


class BadInput:
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "undecodable"),
            (b"", "undecodable"),
            (b"\xff\x00garbage", "undecodable"),
            (b"[]", "invalid"),
            (b'{"model": 7}', "invalid"),
            (b'{"pad": "' + b"x" * 2_000_000 + b'"}', "too_large"),
        ],
    )
    async def test_it_becomes_a_dead_letter_and_the_stream_goes_on(
        self, retrain: Retrain, value: bytes | None, reason: str
    ) -> None:
        told = await retrain.take((SNAPSHOTS, value), (RETRAIN_REQUESTS, value), make_snapshot(1))

        assert [letter.reason for letter in told.letters] == [reason] * 2
        assert [letter.original_value() for letter in told.letters] == [value] * 2
        assert actions(told.decisions) == ["noop"]

    async def test_a_field_that_no_contract_knows_is_ignored_and_counted(self, retrain: Retrain) -> None:
        value = make_request().to_json()[:-1] + b',"colour":"green"}'
        counter = UNKNOWN_FIELDS_TOTAL.labels(topic=RETRAIN_REQUESTS.name)
        before = counter._value.get()

        told = await retrain.take(make_snapshot(1), (RETRAIN_REQUESTS, value))

        assert actions(told.decisions) == ["noop", "noop"]
        assert counter._value.get() == before + 1


class Hearing(Alerts, Jobs, Aftermath, BadInput):
    """Everything above."""
