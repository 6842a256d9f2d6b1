"""Answers, read from the published views. Nothing is computed here: the services have decided what is so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from asyncpg import Record
from pydantic import TypeAdapter

from services.gateway.answers import (
    AlertThresholds,
    ClockStatus,
    Escalation,
    Execution,
    FiguresWithReliability,
    Jobs,
    Judged,
    KnownModel,
    ModelArtifact,
    Models,
    Monitoring,
    OutboxStatus,
    Point,
    Policies,
    PolicyRun,
    Processed,
    ReceivedPolicy,
    RetrainThresholds,
    StandingAlert,
    Trend,
)
from services.gateway.cursors import (
    MomentName,
    MomentNumber,
    read_moment_name,
    read_moment_number,
    read_name,
    write_moment_name,
    write_moment_number,
    write_name,
)
from services.gateway.database import Database
from services.gateway.parameters import (
    ALL_VERSIONS,
    JobsParameters,
    ModelsParameters,
    MonitoringParameters,
    PoliciesParameters,
    TrendParameters,
)
from services.gateway.problems import Problem, unknown_model
from shared.contracts.models import Artifact, ModelVersion, Policy
from shared.contracts.retraining import Decision, Job
from shared.contracts.snapshots import Snapshot
from shared.database import Queries

QUERIES = Queries.load("services.gateway")
LARGEST_SEQUENCE = 2**63 - 1
OTHER = "other"
"""The segment value of everything that the policy does not declare."""

_VERSIONS = TypeAdapter(list[ModelVersion])
_ALERTS = TypeAdapter(list[StandingAlert])


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that the retrain service could not decide, and why."""

    refused_at: datetime
    detail: str


class Store:
    """Reads answers. Every method raises ``Problem``: 404 for an unknown model, 503 without a database."""

    def __init__(self, database: Database, topic_prefix: str) -> None:
        self._database = database
        self._topic_prefix = topic_prefix

    async def monitoring(self, asked: MonitoringParameters) -> Monitoring:
        """A model's figures, thresholds and standing alerts."""
        version = "" if asked.version == ALL_VERSIONS else asked.version
        row = await self._database.row(QUERIES.monitoring, asked.model, version, asked.segment or "", asked.window)
        if row is None:
            raise unknown_model(asked.model, self._topic_prefix)
        snapshot = Snapshot.model_validate_json(row["snapshot"]) if row["snapshot"] else None
        policy = snapshot.policy if snapshot else _policy(row["policy"], asked.model)
        if asked.version not in (None, ALL_VERSIONS) and not row["version_is_known"]:
            raise _unknown_version(asked)
        if asked.segment is not None:
            _check_segment(asked.segment, policy)
        return _monitoring(asked, row, snapshot, policy)

    async def trend(self, asked: TrendParameters) -> Trend:
        """A model's snapshots of the last days before its newest one, newest first."""
        newest = await self._known(QUERIES.newest_snapshot, asked.model)
        place = read_moment_number(asked.cursor) if asked.cursor else None
        as_of: datetime | None = place.moment if place else newest["as_of"]
        if as_of is None:
            return Trend(model=asked.model, days=asked.days, as_of=None, points=[], next_cursor=None)
        rows = await self._database.rows(
            QUERIES.trend,
            asked.model,
            _days_before(as_of, asked.days),
            place.number if place else LARGEST_SEQUENCE,
            asked.limit + 1,
        )
        points = [Point.model_validate_json(row["point"]) for row in rows[: asked.limit]]
        more = len(rows) > asked.limit
        return Trend(
            model=asked.model,
            days=asked.days,
            as_of=as_of,
            points=points,
            next_cursor=write_moment_number(MomentNumber(as_of, points[-1].snapshot_sequence)) if more else None,
        )

    async def dry_run(self, model: str) -> PolicyRun:
        """What the policy said about the newest snapshot that it judged, as a run that does nothing.

        What already covers the causes is as it is now: a job may have been made, or have ended, since then.
        """
        row = await self._known(QUERIES.latest_decision, model)
        if row["decision"] is None:
            return _nothing_judged(model)
        decision = Decision.model_validate_json(row["decision"])
        execution = Execution(
            dry_run=True,
            executed=False,
            decision_id=decision.decision_id,
            request_id=None,
            job_id=None,
            covered_by=json.loads(row["covered_by"]),
        )
        return _policy_run(decision, execution).model_copy(update={"action": "dry-run-noop"})

    async def outcome(self, model: str, request_id: str) -> Decision | RefusedRequest | None:
        """What the retrain service made of a request; None while nothing is known of it."""
        row = await self._known(QUERIES.outcome_of_request, model, request_id)
        if row["decision"] is not None:
            return Decision.model_validate_json(row["decision"])
        return RefusedRequest(row["refused_at"], row["detail"]) if row["detail"] is not None else None

    async def jobs(self, asked: JobsParameters) -> Jobs:
        """Jobs, newest first."""
        if asked.model is not None:
            await self._known(QUERIES.newest_snapshot, asked.model)
        place = read_moment_name(asked.cursor) if asked.cursor else None
        rows = await self._database.rows(
            QUERIES.jobs,
            asked.model,
            asked.status,
            place and place.moment,
            place and place.name,
            asked.limit + 1,
        )
        shown = rows[: asked.limit]
        return Jobs(
            jobs=[Job.model_validate_json(row["job"]) for row in shown],
            next_cursor=write_moment_name(MomentName(shown[-1]["created_at"], shown[-1]["job_id"]))
            if len(rows) > asked.limit
            else None,
        )

    async def policies(self, asked: PoliciesParameters) -> Policies:
        """A model's policy in force, and all that were ever received for it."""
        in_force = await self._known(QUERIES.policy_in_force, asked.model)
        place = read_moment_number(asked.cursor) if asked.cursor else None
        rows = await self._database.rows(
            QUERIES.policies, asked.model, place and place.moment, place and place.number, asked.limit + 1
        )
        shown = rows[: asked.limit]
        return Policies(
            model=asked.model,
            in_force=_policy(in_force["policy"], asked.model) if in_force["policy"] else None,
            policy_sha256=in_force["policy_sha256"],
            policies=[_received_policy(row) for row in shown],
            next_cursor=write_moment_number(MomentNumber(shown[-1]["received_at"], shown[-1]["offset"]))
            if len(rows) > asked.limit
            else None,
        )

    async def models(self, asked: ModelsParameters) -> Models:
        """The models known, by name."""
        after = read_name(asked.cursor) if asked.cursor else None
        rows = await self._database.rows(QUERIES.models, after, asked.limit + 1)
        shown = rows[: asked.limit]
        return Models(
            models=[_known_model(row) for row in shown],
            next_cursor=write_name(shown[-1]["model"]) if len(rows) > asked.limit else None,
        )

    async def artifacts(self) -> list[ModelArtifact]:
        """The artifact of every model's champion."""
        return [_artifact(row) for row in await self._database.rows(QUERIES.artifacts)]

    async def inboxes(self) -> list[Record]:
        """Where each service stands in each partition that it has ever read."""
        return await self._database.rows(QUERIES.inboxes)

    async def outboxes(self) -> dict[str, OutboxStatus]:
        """What each service has made but not yet published."""
        rows = await self._database.rows(QUERIES.outboxes)
        return {row["service"]: OutboxStatus.model_validate(dict(row)) for row in rows}

    async def clock(self) -> ClockStatus | None:
        """The clock of the snapshots; None before the metrics service has run."""
        row = await self._database.row(QUERIES.clock)
        return ClockStatus.model_validate(dict(row)) if row else None

    async def ping(self) -> None:
        """Raises ``Problem`` (503) when PostgreSQL does not answer."""
        await self._database.rows(QUERIES.ping)

    async def _known(self, query: str, model: str, *arguments: object) -> Record:
        row = await self._database.row(query, model, *arguments)
        if row is None:
            raise unknown_model(model, self._topic_prefix)
        return row


def policy_run(decision: Decision) -> PolicyRun:
    """A decision on record, as the answer to who asked for it."""
    return _policy_run(
        decision,
        Execution(
            dry_run=decision.dry_run,
            executed=decision.action == "queued-retrain",
            decision_id=decision.decision_id,
            request_id=decision.request_id,
            job_id=decision.job_id,
            covered_by=decision.covered_by,
        ),
    )


def _monitoring(asked: MonitoringParameters, row: Record, snapshot: Snapshot | None, policy: Policy) -> Monitoring:
    alerts = _ALERTS.validate_json(row["alerts"])
    return Monitoring(
        model=asked.model,
        version=(row["version"] or ALL_VERSIONS) if snapshot or asked.version else None,
        segment=asked.segment,
        window=row["time_window"] or policy.window,
        snapshot_id=snapshot and snapshot.snapshot_id,
        snapshot_sequence=snapshot and snapshot.sequence,
        as_of=snapshot and snapshot.as_of,
        catching_up=snapshot and snapshot.catching_up,
        missed_boundaries=snapshot and snapshot.missed_boundaries,
        champion=snapshot and snapshot.champion,
        policy_sha256=snapshot.policy_sha256 if snapshot else row["policy_sha256"],
        metrics=_figures(row, snapshot),
        thresholds=AlertThresholds.of(policy),
        alerts=alerts,
        escalation=Escalation(
            state=row["state"] or "none",
            incident_alerts=sum(alert.escalation_level == "incident" for alert in alerts),
            watch_alerts=sum(alert.escalation_level == "watch" for alert in alerts),
            total_alerts=len(alerts),
        ),
        judged=Judged(snapshot_sequence=row["judged_sequence"], as_of=row["judged_as_of"])
        if row["judged_sequence"]
        else None,
        evaluations=json.loads(row["evaluations"] or "{}"),
    )


def _figures(row: Record, snapshot: Snapshot | None) -> FiguresWithReliability:
    if snapshot is None:
        return FiguresWithReliability()
    if row["figures"] is None:
        # The view leaves out what has no sums in the window: there the counts are known, and nothing else.
        return FiguresWithReliability(
            kind=snapshot.metrics.kind,
            predictions=0,
            labels_awaited=0,
            evaluated_predictions=0,
            predictions_of_other_kinds=0,
        )
    return FiguresWithReliability.model_validate_json(row["figures"])


def _policy_run(decision: Decision, execution: Execution) -> PolicyRun:
    evidence = decision.evidence
    return PolicyRun(
        model=decision.model,
        should_retrain=decision.should_retrain,
        action=decision.action,
        mode=decision.mode,
        fired=list(decision.fired),
        reasons=list(decision.reasons),
        metrics=FiguresWithReliability.model_validate(evidence.metrics.known()),
        thresholds=RetrainThresholds.model_validate(decision.thresholds.known()),
        execution=execution,
        snapshot_id=evidence.snapshot_id,
        snapshot_sequence=evidence.snapshot_sequence,
        as_of=evidence.as_of,
        policy_sha256=evidence.policy_sha256,
        champion=evidence.champion,
        standing_alerts=list(evidence.standing_alerts),
    )


def _nothing_judged(model: str) -> PolicyRun:
    return PolicyRun(
        model=model,
        should_retrain=None,
        action="dry-run-noop",
        mode=None,
        fired=[],
        reasons=[],
        metrics=FiguresWithReliability(),
        thresholds=RetrainThresholds(),
        execution=Execution(
            dry_run=True, executed=False, decision_id=None, request_id=None, job_id=None, covered_by={}
        ),
        snapshot_id=None,
        snapshot_sequence=None,
        as_of=None,
        policy_sha256=None,
        champion=None,
        standing_alerts=[],
    )


def _known_model(row: Record) -> KnownModel:
    return KnownModel(
        model=row["model"],
        champion=row["champion"],
        state=row["state"],
        versions=_VERSIONS.validate_json(row["versions"]),
        unregistered_versions=json.loads(row["unregistered_versions"]),
        snapshot_sequence=Processed(
            metrics=row["last_sequence"], alerting=row["alerting_sequence"], retrain=row["retrain_sequence"]
        ),
        policy_sha256=row["policy_sha256"],
    )


def _artifact(row: Record) -> ModelArtifact:
    return ModelArtifact(
        model=row["model"],
        version=row["version"],
        trained_through=row["trained_through"],
        artifact=Artifact.model_validate_json(row["artifact"]) if row["artifact"] else None,
    )


def _received_policy(row: Record) -> ReceivedPolicy:
    return ReceivedPolicy(
        received_at=row["received_at"],
        effective_at=row["effective_at"],
        policy_sha256=row["policy_sha256"],
        policy=Policy.model_validate_json(row["policy"]),
    )


def _policy(document: str | None, model: str) -> Policy:
    """The policy in force; the defaults where none was ever received."""
    return Policy.model_validate_json(document) if document else Policy(model=model)


def _days_before(moment: datetime, days: int) -> datetime:
    """Never before the calendar begins."""
    beginning = datetime.min.replace(tzinfo=moment.tzinfo)
    return beginning if moment - beginning < timedelta(days=days) else moment - timedelta(days=days)


def _unknown_version(asked: MonitoringParameters) -> Problem:
    check = (
        "the spelling: GET /api/v1/models lists the versions that were registered",
        "that predictions of it were published, or its registration to the topic model-versions",
        "version=all for all versions together",
    )
    return Problem(
        404,
        "unknown-version",
        f"No version {asked.version!r} of the model {asked.model!r} is known.",
        title="Unknown version",
        check=check,
    )


def _check_segment(segment: str, policy: Policy) -> None:
    dimension, _, value = segment.partition(":")
    declared = policy.segments.get(dimension)
    if declared is not None and (value in declared or value == OTHER):
        return
    known = [f"{name}:{item}" for name, items in policy.segments.items() for item in (*items, OTHER)]
    raise Problem(
        404,
        "unknown-segment",
        f"The policy declares no segment {segment!r}. Declared: {', '.join(known) or 'none'}.",
        title="Unknown segment",
        check=["the spelling, dimension:value", "the policy's `segments`: `trueward policy show` prints them"],
    )
