"""``trueward migrate``, ``topics``, ``inbox``, ``breaker`` and ``service``: what operators do to a deployment."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
import psycopg
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from shared import breaker, database, inbox
from shared.broker import create_missing_topics
from shared.errors import TruewardError, UsageError
from shared.topics import FOR_EVER, TOPICS, Service, read_by
from trueward.cli import broker, output
from trueward.cli.connection import AwayError, Connection, wrong_setting
from trueward.cli.output import moment

DAY_MS = 86_400_000
CONSUMERS: tuple[Service, ...] = ("metrics", "alerting", "retrain")
T = TypeVar("T")


def migrate(connection: Connection, *, as_json: bool) -> None:
    """Apply what is missing. Raises ``AwayError`` without a database, ``TruewardError`` where it fails."""
    try:
        applied = database.migrate(connection.dsn())
    except TruewardError as error:
        if isinstance(error.__cause__, psycopg.OperationalError):
            raise AwayError(str(error)) from error
        raise
    if as_json:
        output.answer({"applied": applied})
    else:
        output.say(f"applied {applied} migrations" if applied else "the database is up to date")


def create_topics(connection: Connection, *, as_json: bool) -> None:
    """Create the topics that the broker lacks. Raises ``AwayError`` without a broker."""
    settings = connection.settings()
    broker.quiet()
    with broker.one_line(settings):
        created = asyncio.run(create_missing_topics(settings))
    if as_json:
        output.answer({"created": created})
    else:
        output.say(f"created {', '.join(created)}" if created else "every topic is there")


def list_topics(connection: Connection, *, as_json: bool) -> None:
    """The registry of topics, and what the broker has of it. Raises ``AwayError`` without a broker."""
    settings = connection.settings()
    broker.quiet()
    with broker.one_line(settings):
        partitions = asyncio.run(broker.partitions_of(settings, TOPICS))
    described = [
        {
            "topic": settings.topic_prefix + topic.name,
            "key": topic.key,
            "summary": topic.summary,
            "contracts": [contract.__name__ for contract in topic.contracts],
            "written_by": list(topic.writers),
            "read_by": list(topic.readers),
            "retention_ms": topic.retention_ms,
            "partitions": len(partitions[topic.name]) if topic.name in partitions else None,
        }
        for topic in TOPICS
    ]
    if as_json:
        output.answer({"topics": described})
        return
    rows = [
        [
            settings.topic_prefix + topic.name,
            topic.key,
            str(len(partitions[topic.name])) if topic.name in partitions else "missing",
            "for ever" if topic.retention_ms == FOR_EVER else f"{topic.retention_ms // DAY_MS} days",
            ", ".join(topic.writers),
            ", ".join(topic.readers),
        ]
        for topic in TOPICS
    ]
    columns = ["topic", "key", "partitions", "kept", "written by", "read by"]
    output.show(output.table("Topics", columns, rows))


def reset_inbox(service: Service, topic: str | None, connection: Connection, *, as_json: bool) -> None:
    """Forget how far a service has read. Raises ``UsageError`` for a topic that it does not read."""
    _read_by(service, topic)
    forgotten = _asked(inbox.reset(connection.dsn(), service=service, topic=topic))
    if as_json:
        output.answer({"service": service, "topic": topic, "partitions_forgotten": forgotten})
    else:
        output.say(f"{service} will read {forgotten} partitions from their beginning; start it again")


def adopt_topics(service: Service, topic: str | None, connection: Connection, *, as_json: bool) -> None:
    """Forget the ids of the topics read. Raises ``UsageError`` for a topic that the service does not read."""
    _read_by(service, topic)
    adopted = _asked(inbox.adopt(connection.dsn(), service=service, topic=topic))
    if as_json:
        output.answer({"service": service, "topic": topic, "topics_adopted": adopted})
    else:
        output.say(f"{service} will take {adopted} topics for those that it has read; start it again")


def show_breakers(connection: Connection, *, as_json: bool) -> None:
    """Each service's breaker. Raises ``AwayError`` without a database."""
    dsn = connection.dsn()
    states = {service: _asked(breaker.shown(dsn, service=service)) for service in CONSUMERS}
    if as_json:
        output.answer({"breakers": [{"service": service, **_known(state)} for service, state in states.items()]})
        return
    rows = [
        [
            service,
            "taking in" if state.reason is None else "stopped",
            "" if state.tripped_at is None else moment(state.tripped_at),
            state.reason or ("" if state.passes_until is None else f"all pass until {moment(state.passes_until)}"),
        ]
        for service, state in states.items()
    ]
    output.show(output.table("Breakers", ["service", "intake", "since", "why"], rows))


def reset_breaker(service: Service, until: datetime | None, connection: Connection, *, as_json: bool) -> None:
    """Let a service take records in again. Raises ``AwayError`` without a database."""
    before = _asked(breaker.reset(connection.dsn(), service=service, passes_until=until))
    if as_json:
        passes_until = None if until is None else until.isoformat()
        output.answer({"service": service, "was": _known(before), "passes_until": passes_until})
        return
    was = "had not stopped" if before.reason is None else "takes records in again"
    output.say(f"{service} {was}" + ("" if until is None else f"; everything passes until {moment(until)}"))


def _known(state: breaker.State) -> dict[str, str | None]:
    return {
        "reason": state.reason,
        "tripped_at": None if state.tripped_at is None else state.tripped_at.isoformat(),
        "passes_until": None if state.passes_until is None else state.passes_until.isoformat(),
    }


def _read_by(service: Service, topic: str | None) -> None:
    reads = [known.name for known in read_by(service)]
    if topic is not None and topic not in reads:
        raise UsageError(f"{service} does not read {topic!r}; it reads {', '.join(reads)}")


def _asked(question: Coroutine[Any, Any, T]) -> T:
    """What the database answers. Raises ``AwayError`` where it does not."""
    try:
        return asyncio.run(question)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise AwayError(f"PostgreSQL does not answer as needed: {error or type(error).__name__}") from error


def run_service(service: Service, connection: Connection, given: dict[str, str]) -> None:
    """Run one service in this process until it is told to stop. ``given`` are further TRUEWARD_* variables.

    Raises ``UsageError`` for a wrong setting or a port that is taken.
    """
    os.environ.update({**connection.environment(), **given})
    module = importlib.import_module(f"services.{service}.app")
    try:
        module.main()
    except ValidationError as error:
        raise wrong_setting(error) from error
    except KafkaError as error:
        raise AwayError(f"Kafka does not answer ({error})") from error
