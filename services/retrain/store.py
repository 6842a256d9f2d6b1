"""What retrain keeps in PostgreSQL: models, decisions, jobs and the causes that they answer for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.retrain.books import KeptJob, Ledger, ModelBook, Wanted
from services.retrain.domain.coverage import Cause
from shared.contracts.base import Event
from shared.contracts.retraining import CitedAlert, Job
from shared.contracts.snapshots import Snapshot
from shared.database import Connection, Queries

QUERIES = Queries.load("services.retrain")


class PostgresStore:
    """Set-based: a batch costs the same few statements whatever the number of its models and records."""

    async def load(self, connection: Connection, wanted: Wanted) -> Ledger:
        """Lock the models concerned, in ascending order, and read what is wanted of them."""
        ledger = Ledger(await self._lock(connection, wanted))
        models = list(ledger.models)
        for row in await connection.fetch(QUERIES.active_jobs, models):
            ledger.models[row["model"]].active_job = row["job_id"]
        if wanted.updated or wanted.judged:
            rows = await connection.fetch(QUERIES.load_jobs, list(wanted.updated), list(wanted.judged))
            _keep_jobs(ledger, rows)
        if wanted.judged or wanted.asked:
            judged = _columns(_moments(ledger.models.values(), wanted), 3)
            for row in await connection.fetch(QUERIES.load_causes, *judged):
                cause = Cause(row["champion"], row["trigger"], row["as_of"], row["job_id"])
                ledger.models[row["model"]].causes.append(cause)
        if wanted.asked:
            asked = _columns(sorted(wanted.asked), 2)
            for row in await connection.fetch(QUERIES.answered_requests, *asked):
                ledger.models[row["model"]].answered.add(row["request_id"])
        return ledger

    async def _lock(self, connection: Connection, wanted: Wanted) -> dict[str, ModelBook]:
        asked = {model for model, _ in wanted.asked}
        models = wanted.told | asked
        if wanted.updated:
            rows = await connection.fetch(QUERIES.models_of_jobs, list(wanted.updated))
            models |= {row["model"] for row in rows}
        if wanted.told:
            await connection.execute(QUERIES.add_models, list(wanted.told))
        rows = await connection.fetch(QUERIES.lock_models, list(models), list(asked))
        return {row["model"]: _book(row) for row in rows}

    async def save(self, connection: Connection, ledger: Ledger, now: datetime) -> None:
        """Keep what a batch made of the ledger.

        Raises asyncpg's ``UniqueViolationError`` or ``ExclusionViolationError`` where another transaction made a
        job for the same model or cause first: tried again, the batch sees that job.
        """
        await self._save_models(connection, [book for book in ledger.models.values() if book.changed])
        await self._append_decisions(connection, ledger)
        # Jobs that have ended first: they make room for the new one of their model.
        changed = [kept for kept in ledger.jobs.values() if kept.changed and not kept.is_new]
        if changed:
            await self._save_jobs(connection, changed, now)
        await self._append_jobs(connection, ledger, now)
        if ledger.refused_requests:
            # One that was asked twice is kept once.
            refused = {(each.model, each.request_id): each.detail for each in ledger.refused_requests}
            rows = [(*request, detail) for request, detail in sorted(refused.items())]
            await connection.execute(QUERIES.keep_refused_requests, now, *_columns(rows, 3))

    async def _save_models(self, connection: Connection, books: Sequence[ModelBook]) -> None:
        if not books:
            return
        rows = [
            (
                book.model,
                book.snapshot_sequence,
                book.alert_sequence,
                book.decision_sequence,
                book.as_of,
                json.dumps({alert_id: alert.known() for alert_id, alert in book.standing_alerts.items()}),
                book.latest_decision_id,
                _text(book.snapshot) if book.has_new_snapshot and book.snapshot is not None else None,
            )
            for book in books
        ]
        await connection.execute(QUERIES.save_models, *_columns(rows, 8))

    async def _append_decisions(self, connection: Connection, ledger: Ledger) -> None:
        if not ledger.decisions:
            return
        rows = [
            (
                decision.decision_id,
                decision.model,
                decision.decision_sequence,
                decision.asked_by,
                decision.request_id,
                decision.evidence.as_of,
                decision.action,
                _text(decision),
            )
            for decision in ledger.decisions
        ]
        await connection.execute(QUERIES.append_decisions, *_columns(rows, 8))

    async def _save_jobs(self, connection: Connection, changed: Sequence[KeptJob], now: datetime) -> None:
        rows = [
            (
                kept.job.job_id,
                kept.job.job_sequence,
                kept.job.status,
                kept.job.lease_expires_at,
                kept.awaits_aftermath,
                _text(kept.job),
            )
            for kept in changed
        ]
        await connection.execute(QUERIES.save_jobs, now, *_columns(rows, 6))

    async def _append_jobs(self, connection: Connection, ledger: Ledger, now: datetime) -> None:
        made = [kept for kept in ledger.jobs.values() if kept.is_new]
        if not made:
            return
        rows = [
            (
                kept.job.job_id,
                kept.job.model,
                kept.job.decision_id,
                kept.job.job_sequence,
                kept.job.status,
                kept.job.as_of,
                kept.job.created_at,
                kept.job.lease_expires_at,
                kept.awaits_aftermath,
                _text(kept.job),
            )
            for kept in made
        ]
        await connection.execute(QUERIES.append_jobs, now, *_columns(rows, 10))
        causes = [
            (new.cause.job_id, new.model, new.cause.champion, new.cause.trigger, new.cause.as_of)
            for new in ledger.causes
        ]
        await connection.execute(QUERIES.append_causes, *_columns(causes, 5))

    async def overdue_jobs(self, connection: Connection, now: datetime, limit: int) -> frozenset[str]:
        """Running jobs whose lease is over, as they stand without a lock."""
        return frozenset(row["job_id"] for row in await connection.fetch(QUERIES.overdue_jobs, now, limit))

    async def remove_old_decisions(self, connection: Connection, age: timedelta, limit: int) -> int:
        """Remove decisions on snapshots that made no job and are older than ``age`` before the newest snapshot."""
        return _count(await connection.execute(QUERIES.remove_old_decisions, age, limit))

    async def remove_old_refused_requests(self, connection: Connection, before: datetime) -> int:
        """Forget requests that were refused before that moment."""
        return _count(await connection.execute(QUERIES.remove_old_refused_requests, before))


def _book(row: Any) -> ModelBook:
    return ModelBook(
        model=row["model"],
        snapshot_sequence=row["snapshot_sequence"],
        alert_sequence=row["alert_sequence"],
        decision_sequence=row["decision_sequence"],
        as_of=row["as_of"],
        standing_alerts={
            alert_id: CitedAlert.model_validate(alert)
            for alert_id, alert in json.loads(row["standing_alerts"]).items()
        },
        latest_decision_id=row["latest_decision_id"],
        snapshot=None if row["snapshot"] is None else Snapshot.model_validate_json(row["snapshot"]),
    )


def _keep_jobs(ledger: Ledger, rows: Iterable[Any]) -> None:
    for row in rows:
        job = Job.model_validate_json(row["document"])
        ledger.jobs[job.job_id] = KeptJob(job, awaits_aftermath=row["awaits_aftermath"])
    awaiting = sorted(
        (kept.job.created_at, kept.job.job_id, kept.job.model)
        for kept in ledger.jobs.values()
        if kept.awaits_aftermath
    )
    for _, job_id, model in awaiting:
        ledger.models[model].awaiting_aftermath[job_id] = None


def _moments(books: Iterable[ModelBook], wanted: Wanted) -> list[tuple[str, datetime, datetime]]:
    """Per model the first and the last moment that can be judged: the kept snapshot's and the batch's."""
    moments = []
    for book in books:
        known = [*wanted.judged.get(book.model, ()), *([] if book.as_of is None else [book.as_of])]
        if known:
            moments.append((book.model, min(known), max(known)))
    return moments


def _text(event: Event) -> str:
    return event.to_json().decode()


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
