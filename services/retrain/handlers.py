"""Snapshots, alerts, requests and trainers' updates come in: load, decide, save, publish.

Records of one batch are taken one after the other, in the order in which they came, whatever their topics: so
the same records give the same decisions and jobs however they are batched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from services.retrain.books import Ledger, Wanted
from services.retrain.desk import Desk, Incoming
from shared.contracts.alerts import AlertTransition
from shared.contracts.base import unknown_fields
from shared.contracts.retraining import JobUpdate, RetrainRequest
from shared.contracts.snapshots import Snapshot
from shared.database import Connection
from shared.decoding import decode
from shared.effects import Effects, Handler
from shared.errors import Refusal
from shared.instruments import UNKNOWN_FIELDS_TOTAL
from shared.records import Record
from shared.topics import ALERTS, RETRAIN_JOB_UPDATES, RETRAIN_REQUESTS, SNAPSHOTS

CONTRACTS: Mapping[str, type[Incoming]] = {
    SNAPSHOTS.name: Snapshot,
    ALERTS.name: AlertTransition,
    RETRAIN_REQUESTS.name: RetrainRequest,
    RETRAIN_JOB_UPDATES.name: JobUpdate,
}


class Store(Protocol):
    """Where models, decisions and jobs are kept. Everything happens in one transaction."""

    async def load(self, connection: Connection, wanted: Wanted) -> Ledger:
        """Lock the models concerned and read what is wanted of them."""
        ...

    async def save(self, connection: Connection, ledger: Ledger, now: datetime) -> None:
        """Keep what was made of the ledger."""
        ...


def retrain_handler(store: Store) -> Handler:
    """The handler of every topic that retrain reads."""

    async def handle(records: Sequence[Record], effects: Effects) -> None:
        received = accepted(records, effects)
        if not received:
            return
        ledger = await store.load(effects.connection, wanted_by(event for _, event in received))
        desk = Desk(ledger, effects)
        for record, event in received:
            refusal = desk.take(event)
            if refusal is not None:
                effects.refuse(record, refusal)
        await store.save(effects.connection, ledger, effects.now)

    return handle


async def expire_jobs(store: Store, effects: Effects, job_ids: frozenset[str]) -> int:
    """End those of the jobs that still run and whose lease is over. Returns how many.

    They are looked at again under their models' locks: another instance, or a heartbeat, may have been first.
    """
    ledger = await store.load(effects.connection, Wanted(updated=job_ids))
    expired = Desk(ledger, effects).expire()
    await store.save(effects.connection, ledger, effects.now)
    return expired


def accepted(records: Iterable[Record], effects: Effects) -> list[tuple[Record, Incoming]]:
    """The events among the records, in their order; what is none goes to the dead letters."""
    received: list[tuple[Record, Incoming]] = []
    for record in records:
        event = decode(record, CONTRACTS[record.topic])
        if isinstance(event, Refusal):
            effects.refuse(record, event)
        else:
            effects.count(UNKNOWN_FIELDS_TOTAL, len(unknown_fields(event)), topic=record.topic)
            received.append((record, event))
    return received


def wanted_by(events: Iterable[Incoming]) -> Wanted:
    """What must be known to decide about the events."""
    told: set[str] = set()
    asked: set[tuple[str, str]] = set()
    judged: dict[str, tuple[datetime, datetime]] = {}
    updated: set[str] = set()
    for event in events:
        match event:
            case Snapshot():
                told.add(event.model)
                first, last = judged.get(event.model, (event.as_of, event.as_of))
                judged[event.model] = min(first, event.as_of), max(last, event.as_of)
            case AlertTransition():
                told.add(event.model)
            case RetrainRequest():
                asked.add((event.model, event.request_id))
            case JobUpdate():
                updated.add(event.job_id)
    return Wanted(told=frozenset(told), asked=frozenset(asked), judged=judged, updated=frozenset(updated))
