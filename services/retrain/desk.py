"""Where one batch is decided: every event is judged by the ledger as the event before it left it."""

from __future__ import annotations

from typing import assert_never

import structlog
from prometheus_client import Counter

from services.retrain.books import KeptJob, Ledger, ModelBook, NewCause, RefusedRequest
from services.retrain.conversion import (
    aftermath_of,
    champion_of,
    cited,
    criteria_of,
    decision_of,
    figures_of,
    figures_of_version,
    job_with,
    life_of,
    new_job,
    news_of,
    thresholds_of,
)
from services.retrain.domain.aftermath import NotYet, assess, can_be_assessed
from services.retrain.domain.coverage import Cause
from services.retrain.domain.decisions import Asked, ByRequest, BySnapshot, QueuedRetrain, decide
from services.retrain.domain.jobs import ACTIVE, Changed, Illegal, Renewed, Repeat, advance, expire
from services.retrain.domain.triggers import Trigger, fired, judge
from shared.contracts.alerts import AlertTransition
from shared.contracts.retraining import Decision, Job, JobUpdate, RetrainRequest
from shared.contracts.snapshots import Snapshot
from shared.effects import Effects
from shared.errors import Refusal
from shared.topics import RETRAIN_DECISIONS, RETRAIN_JOBS

DECISIONS_TOTAL = Counter("trueward_retrain_decisions_total", "Decisions by what they came to.", ["action"])
JOB_CHANGES_TOTAL = Counter("trueward_retrain_job_changes_total", "Changes of jobs by new status.", ["status"])
VERDICTS_TOTAL = Counter("trueward_retrain_verdicts_total", "Verdicts on retrained versions.", ["verdict"])

Incoming = Snapshot | AlertTransition | RetrainRequest | JobUpdate
log = structlog.get_logger()


class Desk:
    """Takes a batch's events in, one after the other; changes the ledger and publishes what follows."""

    def __init__(self, ledger: Ledger, effects: Effects) -> None:
        self._ledger = ledger
        self._effects = effects

    def take(self, event: Incoming) -> Refusal | None:
        """Do what an event asks for; returns why it cannot be accepted, where it cannot."""
        match event:
            case Snapshot():
                return self._take_snapshot(event)
            case AlertTransition():
                return self._take_alert(event)
            case RetrainRequest():
                return self._take_request(event)
            case JobUpdate():
                return self._take_update(event)
            case _:
                assert_never(event)

    def expire(self) -> int:
        """End every job of the ledger whose lease is over now. Returns how many."""
        expired = 0
        for kept in list(self._ledger.jobs.values()):
            outcome = expire(life_of(kept.job), self._effects.now)
            if outcome is not None:
                self._change(kept, job_with(kept.job, outcome.life))
                expired += 1
        return expired

    def _take_snapshot(self, snapshot: Snapshot) -> Refusal | None:
        book = self._ledger.models[snapshot.model]
        if snapshot.sequence <= book.snapshot_sequence:
            if book.as_of is not None and snapshot.as_of > book.as_of:
                detail = (
                    f"snapshot {snapshot.sequence} is later than {book.snapshot_sequence}, the last one taken, of "
                    f"{book.as_of.isoformat()}: was the metrics service's database restored?"
                )
                return Refusal("conflict", "sequence", detail)
            log.info("snapshot dropped: not above the last", model=book.model, sequence=snapshot.sequence)
            return None
        book.snapshot_sequence, book.as_of, book.snapshot = snapshot.sequence, snapshot.as_of, snapshot
        book.has_new_snapshot = True
        for job_id in list(book.awaiting_aftermath):
            self._assess(book, self._ledger.jobs[job_id], snapshot)
        decision = self._decide(book, snapshot, BySnapshot(snapshot.policy.mode))
        book.latest_decision_id = decision.decision_id
        return None

    def _take_alert(self, alert: AlertTransition) -> Refusal | None:
        book = self._ledger.models[alert.model]
        if alert.alert_sequence <= book.alert_sequence:
            return None
        match alert.transition:
            case "opened" | "escalated" | "de_escalated":
                standing = cited(alert)
                if isinstance(standing, Refusal):
                    return standing
                book.standing_alerts[standing.alert_id] = standing
            case "resolved":
                if alert.alert_id is not None:
                    book.standing_alerts.pop(alert.alert_id, None)
            case "state_changed":
                pass
            case _:
                assert_never(alert.transition)
        book.alert_sequence = alert.alert_sequence
        book.changed = True
        return None

    def _take_request(self, request: RetrainRequest) -> Refusal | None:
        book = self._ledger.models.get(request.model)
        if book is None or book.snapshot is None:
            detail = (
                f"model {request.model} has no snapshot to decide on: its first is made at the boundary after its "
                "first prediction. Check the model's name, then ask again"
            )
            self._ledger.refused_requests.append(RefusedRequest(request.model, request.request_id, detail))
            return Refusal("invalid", "model", detail)
        if request.request_id in book.answered:
            log.info("request dropped: answered before", model=book.model, request_id=request.request_id)
            return None
        book.answered.add(request.request_id)
        self._decide(book, book.snapshot, ByRequest(request.request_id, request.dry_run))
        return None

    def _take_update(self, update: JobUpdate) -> Refusal | None:
        kept = self._ledger.jobs.get(update.job_id)
        if kept is None:
            return Refusal("unknown_job", "job_id", f"there is no job {update.job_id}")
        outcome = advance(life_of(kept.job), news_of(update), self._effects.now)
        match outcome:
            case Changed():
                self._change(kept, job_with(kept.job, outcome.life, update))
            case Renewed():
                kept.job = job_with(kept.job, outcome.life, update)
                kept.changed = True
            case Repeat():
                log.info("update dropped", job_id=update.job_id, update=update.update, reason=outcome.reason)
            case Illegal():
                return Refusal("illegal_transition", "update", outcome.reason)
            case _:
                assert_never(outcome)
        return None

    def _decide(self, book: ModelBook, snapshot: Snapshot, asked: Asked) -> Decision:
        thresholds = thresholds_of(snapshot.policy)
        reasons = judge(figures_of(snapshot), thresholds)
        outcome = decide(
            asked,
            fired(reasons),
            champion=champion_of(snapshot),
            as_of=snapshot.as_of,
            coverage=book.coverage(),
        )
        book.decision_sequence += 1
        book.changed = True
        decision = decision_of(
            snapshot,
            asked,
            outcome,
            sequence=book.decision_sequence,
            reasons=reasons,
            thresholds=thresholds,
            standing_alerts=book.standing(),
        )
        self._ledger.decisions.append(decision)
        self._effects.emit(RETRAIN_DECISIONS, decision, key=decision.model)
        self._effects.count(DECISIONS_TOTAL, action=decision.action)
        if isinstance(outcome, QueuedRetrain):
            self._queue(book, decision, outcome.triggers)
        return decision

    def _queue(self, book: ModelBook, decision: Decision, triggers: tuple[Trigger, ...]) -> None:
        """Make the decision's job, and have it cover its causes."""
        job = new_job(decision, triggers, self._effects.now)
        champion = champion_of(decision.evidence)
        causes = [Cause(champion, trigger, job.as_of, job.job_id) for trigger in triggers]
        book.active_job = job.job_id
        book.causes.extend(causes)
        self._ledger.causes.extend(NewCause(job.model, cause) for cause in causes)
        self._ledger.jobs[job.job_id] = KeptJob(job, is_new=True)
        self._publish(job)
        reasons = [reason.text for reason in job.reasons if reason.outcome == "fired"]
        log.info("retraining queued", model=job.model, job_id=job.job_id, triggers=triggers, reasons=reasons)

    def _change(self, kept: KeptJob, job: Job) -> None:
        """A job's status is another one: number the change, publish it, and see what follows from it."""
        kept.job = job.model_copy(update={"job_sequence": kept.job.job_sequence + 1})
        kept.changed = True
        book = self._ledger.models[job.model]
        if job.status not in ACTIVE and book.active_job == job.job_id:
            book.active_job = None
        if job.status == "completed":
            kept.awaits_aftermath = can_be_assessed(job.run.model_version, job.rollback_plan.previous_version)
            if kept.awaits_aftermath:
                book.awaiting_aftermath[job.job_id] = None
            else:
                log.warning(
                    "no verdict will be given: the job names no version of its own",
                    job_id=job.job_id,
                    model_version=job.run.model_version,
                )
        self._publish(kept.job)
        log.info("job changed", model=job.model, job_id=job.job_id, status=job.status, message=job.run.message)

    def _assess(self, book: ModelBook, kept: KeptJob, snapshot: Snapshot) -> None:
        """Give the verdict on a job's version, once enough of its predictions are evaluated."""
        version = kept.job.run.model_version
        metrics = snapshot.versions.get(version) if version is not None else None
        if version is None or metrics is None:
            return
        figures = figures_of_version(metrics)
        verdict = assess(criteria_of(kept.job.rollback_plan), figures, min_evaluated=snapshot.policy.min_evaluated)
        if isinstance(verdict, NotYet):
            return
        aftermath = aftermath_of(verdict, version, figures, snapshot)
        kept.job = kept.job.model_copy(update={"aftermath": aftermath, "job_sequence": kept.job.job_sequence + 1})
        kept.changed, kept.awaits_aftermath = True, False
        del book.awaiting_aftermath[kept.job.job_id]
        self._publish(kept.job)
        self._effects.count(VERDICTS_TOTAL, verdict=aftermath.verdict)
        log.info(
            "verdict on the retrained version",
            model=book.model,
            job_id=kept.job.job_id,
            verdict=aftermath.verdict,
            reason=aftermath.reason,
        )

    def _publish(self, job: Job) -> None:
        self._effects.emit(RETRAIN_JOBS, job, key=job.model)
        self._effects.count(JOB_CHANGES_TOTAL, status=job.status)
