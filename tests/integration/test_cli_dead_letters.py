"""Dead letters through the command line: after a bad deploy is mended, what it refused is sent again."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from deploy.local.broker import Broker
from services.metrics.app import DEFINITION
from services.metrics.settings import MetricsSettings
from shared import breaker
from shared.broker import create_missing_topics
from shared.contracts.base import canonical_json
from shared.effects import Effects
from shared.errors import Refusal
from shared.records import Record
from shared.service import ServiceDefinition
from shared.topics import DEAD_LETTER_REPLAYS, DEAD_LETTERS
from tests.kernel_world import eventually, producing, query, read_topic, running
from tests.metrics_world import Fact, label, prediction
from tests.support import RECEIVED_AT

Run = Callable[..., subprocess.CompletedProcess[str]]
PAIRS = 20


async def bad_deploy(records: Sequence[Record], effects: Effects) -> None:
    """A release that can read nothing."""
    for record in records:
        effects.refuse(record, Refusal("unsupported", "model", "this release is broken"))


@pytest.fixture
async def settings(database_dsn: str, kafka_broker: Broker, topic_prefix: str) -> MetricsSettings:
    found = MetricsSettings(
        postgres_dsn=database_dsn,
        kafka_bootstrap_servers=kafka_broker.bootstrap_servers,
        kafka_idempotent_producer=kafka_broker.idempotent_producer,
        kafka_true_end_offsets=kafka_broker.true_end_offsets,
        topic_prefix=topic_prefix,
        session_timeout_seconds=6,
    )
    await create_missing_topics(found)
    return found


@pytest.fixture
def trueward(run: Run, settings: MetricsSettings, kafka_broker: Broker) -> Callable[..., Any]:
    """The command, with the test's endpoints; returns its answer in JSON."""

    async def asked(*arguments: str, code: int = 0) -> Any:
        environment = {
            **kafka_broker.service_environment(),
            "TRUEWARD_TOPIC_PREFIX": settings.topic_prefix,
            "TRUEWARD_POSTGRES_DSN": settings.postgres_dsn.get_secret_value(),
        }
        done = await asyncio.to_thread(run, *arguments, **environment)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if code == 0 else done.stderr

    return asked


@pytest.fixture
async def refused(settings: MetricsSettings) -> dict[tuple[str, int, int], Any]:
    """Predictions and labels that a bad deploy has refused, by where they stand."""
    facts: list[Fact] = [prediction(f"p{n}", n, 0.25) for n in range(PAIRS)]
    facts += [label(f"p{n}", 100 + n, n % 2) for n in range(PAIRS)]
    async with producing(settings.kafka_bootstrap_servers) as producer:
        for n, (topic, event) in enumerate(facts):
            headers = [("trace", b"\xff%d" % n), ("empty", b"")]
            key = None if n % 5 == 0 else f"k{n % 3}".encode()
            name = settings.topic_prefix + topic.name
            await producer.send(name, canonical_json(event), key=key, headers=headers)
        await producer.flush()
    bad = ServiceDefinition(name="metrics", handler_for=lambda _context: bad_deploy)
    async with running(settings, service=bad):
        await read(settings, DEAD_LETTERS.name, len(facts))
    stood = await read(settings, "predictions", PAIRS) + await read(settings, "labels", PAIRS)
    return {(record.topic, record.partition, record.offset): record for record in stood}


async def read(settings: MetricsSettings, topic: str, count: int) -> list[Any]:
    name = settings.topic_prefix + topic
    return await read_topic(settings.kafka_bootstrap_servers, name, lambda found: len(found) >= count)


async def state(settings: MetricsSettings) -> list[tuple[Any, ...]]:
    """The sums that stand in the database."""
    return await asyncio.to_thread(
        query,
        settings.postgres_dsn.get_secret_value(),
        "SELECT width, start, predictions, labelled, evaluated, correct, squared_error FROM metrics.bucket "
        "ORDER BY width, start",
    )


async def until_read(settings: MetricsSettings, count: int) -> None:
    """Wait until the service has taken that many records of both topics in."""

    async def offsets() -> int:
        rows = await asyncio.to_thread(
            query,
            settings.postgres_dsn.get_secret_value(),
            "SELECT coalesce(sum(next_offset), 0) FROM metrics.inbox WHERE topic IN ('predictions', 'labels')",
        )
        return int(rows[0][0])

    await eventually(offsets, lambda seen: seen >= count, f"{count} records taken in")


async def test_what_a_bad_deploy_refused_is_replayed_once_and_twice(
    settings: MetricsSettings, trueward: Callable[..., Any], refused: dict[tuple[str, int, int], Any]
) -> None:
    listed = await trueward("dead-letters", "list", "--json")
    assert (listed["matching"], listed["by_reason"]) == (2 * PAIRS, {"unsupported": 2 * PAIRS})
    assert all(each["replays"] == [] for each in listed["dead_letters"])
    first = listed["dead_letters"][0]
    assert "value_base64" not in first
    shown = await trueward("dead-letters", "show", first["letter_id"])
    place = (settings.topic_prefix + first["topic"], first["partition"], first["offset"])
    assert shown["value_text"] == refused[place].value.decode()
    assert shown["detail"] == "this release is broken"

    would = await trueward("dead-letters", "replay", "--topic", "predictions", "--dry-run", "--json")
    assert (would["to_send"], would["sent"], would["by_topic"]) == (PAIRS, 0, {"predictions": PAIRS})
    done = await trueward("dead-letters", "replay", "--topic", "predictions", "--yes", "--json")
    assert (done["sent"], done["replayed_before"]) == (PAIRS, 0)
    done = await trueward("dead-letters", "replay", "--all", "--yes", "--json")
    assert (done["sent"], done["replayed_before"], done["by_topic"]) == (PAIRS, PAIRS, {"labels": PAIRS})
    done = await trueward("dead-letters", "replay", "--all", "--yes", "--json")
    assert (done["sent"], done["replayed_before"]) == (0, 2 * PAIRS)
    await assert_copies(settings, refused)

    async with running(settings, service=DEFINITION):
        await until_read(settings, 4 * PAIRS)
        once = await state(settings)
        assert sum(row[4] for row in once if row[0] == min(width for width, *_ in once)) == PAIRS
        await trueward("dead-letters", "replay", "--all", "--again", "--yes", "--json")
        await until_read(settings, 6 * PAIRS)
        assert await state(settings) == once
    listed = await trueward("dead-letters", "list", "--json", "--limit", "3")
    assert (len(listed["dead_letters"]), listed["matching"]) == (3, 2 * PAIRS)
    assert [len(each["replays"]) for each in listed["dead_letters"]] == [2, 2, 2]


async def assert_copies(settings: MetricsSettings, refused: dict[tuple[str, int, int], Any]) -> None:
    """Each replayed record is its original, in the same partition, and its header and its note say so."""
    noted = await read(settings, DEAD_LETTER_REPLAYS.name, 2 * PAIRS)
    assert len(noted) == 2 * PAIRS
    notes = {note["letter_id"]: note for note in (json.loads(record.value) for record in noted)}
    copies = [
        record
        for topic in ("predictions", "labels")
        for record in await read(settings, topic, 2 * PAIRS)
        if (record.topic, record.partition, record.offset) not in refused
    ]
    assert len(copies) == 2 * PAIRS
    for copy in copies:
        (name, value) = copy.headers[-1]
        note = notes[value.decode()]
        assert name == "trueward-replay-of"
        assert (note["partition"], note["offset"]) == (copy.partition, copy.offset)
        offset = int(value.decode().rpartition("-")[2])
        original = refused[copy.topic, copy.partition, offset]
        assert (copy.key, copy.value, copy.headers[:-1]) == (original.key, original.value, original.headers)


@pytest.mark.usefixtures("settings")
async def test_what_is_asked_wrongly_sends_nothing(trueward: Callable[..., Any]) -> None:
    assert "say which letters" in await trueward("dead-letters", "replay", code=2)
    said = await trueward("dead-letters", "replay", "nobody", "--yes", code=2)
    assert said == "trueward: no dead letter nobody; nothing was sent\n"
    assert "no dead letter nobody" in await trueward("dead-letters", "show", "nobody", code=2)
    assert "is no moment" in await trueward("dead-letters", "list", "--since", "noon", code=2)
    listed = await trueward("dead-letters", "list", "--json")
    assert listed == {"dead_letters": [], "matching": 0, "by_reason": {}}


async def test_a_breaker_is_shown_and_reset(trueward: Callable[..., Any], settings: MetricsSettings) -> None:
    dsn = settings.postgres_dsn.get_secret_value()
    pool = await breaker.connect(dsn, role="metrics", application_name="test")
    await breaker.trip(pool, RECEIVED_AT, "a flood")
    await pool.close()
    shown = {each["service"]: each for each in (await trueward("breaker", "show", "--json"))["breakers"]}
    assert shown["metrics"]["reason"] == "a flood"
    assert shown["alerting"]["reason"] is None
    answer = await trueward("breaker", "reset", "--service", "metrics", "--let-pass", "1h", "--json")
    assert answer["was"]["reason"] == "a flood"
    state = await breaker.shown(dsn, service="metrics")
    assert (state.reason, state.tripped_at) == (None, None)
    assert state.passes_until is not None
    assert "is no time to let pass" in await trueward(
        "breaker", "reset", "--service", "metrics", "--let-pass", "soon", code=2
    )


@pytest.mark.usefixtures("settings")
async def test_topics_are_adopted(trueward: Callable[..., Any]) -> None:
    answer = await trueward("inbox", "adopt", "--service", "retrain", "--yes", "--json")
    assert answer == {"service": "retrain", "topic": None, "topics_adopted": 0}
    said = await trueward("inbox", "adopt", "--service", "retrain", "--topic", "labels", "--yes", code=2)
    assert said.startswith("trueward: retrain does not read 'labels'; it reads snapshots")
