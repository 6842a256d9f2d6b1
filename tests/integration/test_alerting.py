"""Alerting on a real PostgreSQL, in the kernel's own transactions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from services.alerting.app import DEFINITION
from services.alerting.handlers import alerting_handler
from services.alerting.store import PostgresStore
from shared.contracts.alerts import AlertTransition
from shared.contracts.snapshots import Snapshot
from shared.database import connect_pool
from shared.effects import Effects, Handler
from shared.records import Record
from shared.topics import SNAPSHOTS
from tests.support import RECEIVED_AT, Feed, apply, drain_outbox, make_consumer
from tests.unit.alerting.builders import DAY, MODEL, make_snapshot
from tests.unit.alerting.scenarios import SCENARIOS, Scenario, changes_of

HANDLER = alerting_handler(PostgresStore())
BLOCKED = "SELECT cardinality(pg_blocking_pids($1)) > 0"


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Any]:
    """Connections in the service's own role."""
    pool = await connect_pool(database_dsn, role="alerting", application_name="test", max_size=4)
    yield pool
    await pool.close()


@pytest.fixture
async def gateway(database_dsn: str) -> AsyncIterator[Any]:
    """Connections of the role that reads the published views."""
    pool = await connect_pool(database_dsn, role="gateway", application_name="test-gateway", max_size=2)
    yield pool
    await pool.close()


async def take(pool: Any, records: Sequence[Record], handler: Handler = HANDLER) -> list[AlertTransition]:
    """One batch; returns the transitions that it published."""
    await make_consumer(handler, pool, service="alerting").take(list(records), {})
    emitted = await drain_outbox(pool)
    assert {message.topic for message in emitted} <= {"alerts"}
    return [AlertTransition.model_validate_json(message.value) for message in emitted]


async def published(gateway: Any) -> dict[str, list[dict[str, Any]]]:
    """Everything that alerting's views say."""
    order = {"states": "model", "alerts": "model, alert_id", "transitions": "model, alert_sequence"}
    return {
        view: [
            dict(row) for row in await gateway.fetch(f"SELECT * FROM alerting.published_{view} ORDER BY {columns}")
        ]
        for view, columns in order.items()
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_scenario(scenario: Scenario, pool: Any, gateway: Any) -> None:
    feed, transitions = Feed(), []
    records = [feed.record(SNAPSHOTS, snapshot) for snapshot in scenario.snapshots()]
    for start in range(0, len(records), 2):
        transitions += await take(pool, records[start : start + 2])
    assert changes_of(transitions) == list(scenario.changes)
    views = await published(gateway)
    (state,) = views["states"]
    assert (state["model"], state["state"]) == (MODEL, scenario.state)
    assert state["snapshot_sequence"] == max(sequence for sequence, _ in scenario.history)
    assert state["alert_sequence"] == len(transitions)
    assert {
        (row["alert_id"], row["severity"], row["breach_streak"], row["escalation_level"])
        for row in views["alerts"]
    } == set(scenario.standing)
    assert [row["document"] for row in views["transitions"]] == [each.known() for each in transitions]


async def test_the_views_tell_what_stands_and_what_every_rule_said(pool: Any, gateway: Any) -> None:
    feed = Feed()
    first = make_snapshot(1, accuracy=0.5)
    last = make_snapshot(2, accuracy=0.4, evaluated_predictions=31, data_freshness_seconds=None)
    await take(pool, [feed.record(SNAPSHOTS, snapshot) for snapshot in (first, last)])
    views = await published(gateway)
    assert views["alerts"] == [
        {
            "model": MODEL,
            "alert_id": "accuracy_breach",
            "severity": "high",
            "breach_streak": 2,
            "escalation_level": "incident",
            "recommended_action": "open_incident",
            "reason": "accuracy 0.4 is below 0.55, 2 snapshots in a row",
            "value": 0.4,
            "threshold": 0.55,
            "opened_as_of": first.as_of,
            "snapshot_id": last.snapshot_id,
            "snapshot_sequence": 2,
        }
    ]
    (state,) = views["states"]
    evaluations = state.pop("evaluations")
    assert state == {
        "model": MODEL,
        "state": "incident",
        "snapshot_sequence": 2,
        "alert_sequence": 4,
        "as_of": last.as_of,
    }
    assert {alert_id: said["outcome"] for alert_id, said in evaluations.items()} == {
        "accuracy_breach": "breached",
        "brier_breach": "quiet",
        "data_stale": "insufficient_data",
        "pipeline_stale": "quiet",
    }
    assert evaluations["data_stale"]["reason"] == "the newest data is of unknown age"
    assert [(row["alert_sequence"], row["as_of"]) for row in views["transitions"]] == [
        (1, first.as_of),
        (2, first.as_of),
        (3, last.as_of),
        (4, last.as_of),
    ]


@pytest.mark.parametrize("table", ["models", "transitions", "inbox", "outbox"])
async def test_the_gateway_reads_views_only(table: str, gateway: Any) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await gateway.fetch(f"SELECT FROM alerting.{table}")


@pytest.mark.parametrize("statement", ["DELETE FROM transitions", "UPDATE transitions SET document = '{}'"])
async def test_the_service_cannot_rewrite_history(statement: str, pool: Any) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(statement)


async def test_events_are_addressed_and_named_by_what_they_tell(database_dsn: str) -> None:
    records = [Feed().record(SNAPSHOTS, make_snapshot(1, accuracy=0.5))]
    opened, changed = await apply(HANDLER, records, database_dsn, service="alerting")
    for message in (opened, changed):
        assert (message.topic, message.key) == ("alerts", MODEL.encode())
        assert message.headers["ce_type"] == "trueward.alert-transition.v1"
        assert message.headers["ce_subject"] == MODEL
    snapshot_id = make_snapshot(1).snapshot_id
    assert opened.headers["ce_id"] == f"{snapshot_id}-accuracy_breach-opened"
    assert changed.headers["ce_id"] == f"{snapshot_id}-state-state_changed"


def random_history(seed: int) -> list[Snapshot]:
    """Snapshots of five models, interleaved, mostly in breach, with gaps and repeats."""
    chance = random.Random(seed)
    sequences = dict.fromkeys("edcba", 0)
    history: list[Snapshot] = []
    for _ in range(80):
        model = chance.choice("abcde")
        sequences[model] += chance.choice([1, 1, 1, 1, 1, 2])
        snapshot = make_snapshot(
            sequences[model],
            model=model,
            accuracy=chance.choice([0.4, 0.5, 0.6, None]),
            brier_score=chance.choice([0.2, 0.3, 0.3, 0.35]),
            evaluated_predictions=chance.choice([29, 30, 31, 31]),
            data_freshness_seconds=chance.choice([0.0, 3.0 * DAY, 5.0 * DAY]),
            catching_up=chance.random() < 0.1,
        )
        history += [snapshot] * chance.choice([1, 1, 1, 2])
    return history


@pytest.mark.parametrize("seed", range(3))
async def test_batching_changes_nothing(seed: int, database_dsn: str, gateway: Any) -> None:
    history = random_history(seed)
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(1, len(history)), 9))
    outcomes = []
    for bounds in ([0, len(history)], [0, *cuts, len(history)], range(len(history) + 1)):
        await empty(database_dsn)
        pool = await connect_pool(database_dsn, role="alerting", application_name="test", max_size=2)
        feed = Feed()
        records = [feed.record(SNAPSHOTS, snapshot) for snapshot in history]
        transitions = []
        for start, end in pairwise(bounds):
            transitions += await take(pool, records[start:end])
        await pool.close()
        outcomes.append((transitions, await published(gateway)))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(outcomes[0][0]) > 40


async def empty(dsn: str) -> None:
    """Begin again, as the owner of the database."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE alerting.models, alerting.transitions, alerting.inbox, alerting.outbox")
    await connection.close()


async def test_a_redelivered_batch_changes_nothing(pool: Any, gateway: Any) -> None:
    feed = Feed()
    records = [feed.record(SNAPSHOTS, snapshot) for snapshot in random_history(7)]
    assert await take(pool, records)
    before = await published(gateway)
    assert await take(pool, records) == []
    assert await published(gateway) == before


async def test_the_same_snapshots_published_again_change_nothing(pool: Any, gateway: Any) -> None:
    feed, history = Feed(), random_history(8)
    await take(pool, [feed.record(SNAPSHOTS, snapshot) for snapshot in history])
    before = await published(gateway)
    assert await take(pool, [feed.record(SNAPSHOTS, snapshot) for snapshot in history]) == []
    assert await published(gateway) == before


async def test_a_failure_after_saving_leaves_nothing_and_is_made_good(pool: Any, gateway: Any) -> None:
    failures = iter([ConnectionError("gone"), asyncpg.DeadlockDetectedError("deadlock")])

    async def failing(records: Sequence[Record], effects: Effects) -> None:
        await HANDLER(records, effects)
        for error in failures:
            raise error

    feed = Feed()
    records = [feed.record(SNAPSHOTS, make_snapshot(n, accuracy=0.5)) for n in (1, 2)]
    transitions = await take(pool, records, failing)
    assert [each.alert_sequence for each in transitions] == [1, 2, 3, 4]
    assert (await published(gateway))["states"][0]["state"] == "incident"


@pytest.mark.parametrize("known", [False, True], ids=["new models", "known models"])
async def test_two_partitions_that_meet_in_one_model_take_turns(known: bool, pool: Any, gateway: Any) -> None:
    """Records without a key may lie anywhere: the row's lock keeps alert_sequence without gaps even then."""
    feed = Feed()
    models = [f"model-{n:02}" for n in range(20)]
    if known:
        await take(pool, [feed.record(SNAPSHOTS, make_snapshot(1, model=model)) for model in models])
    one = [feed.record(SNAPSHOTS, make_snapshot(2, model=model, accuracy=0.5)) for model in models]
    two = [
        feed.record(SNAPSHOTS, make_snapshot(3, model=model, accuracy=0.5), partition=1)
        for model in reversed(models)
    ]
    async with pool.acquire() as first, pool.acquire() as second, pool.acquire() as watcher:
        async with first.transaction():
            await PostgresStore().lock(first, models)
            later = asyncio.create_task(in_transaction(second, two))
            await until_blocked(watcher, second.get_server_pid())
            effects = Effects("alerting", first, RECEIVED_AT)
            await HANDLER(one, effects)
            await effects.flush()
        await asyncio.wait_for(later, timeout=5)
    states = (await published(gateway))["states"]
    assert [(row["model"], row["state"], row["alert_sequence"]) for row in states] == [
        (model, "incident", 4) for model in models
    ]


async def in_transaction(connection: Any, records: Sequence[Record]) -> None:
    async with connection.transaction():
        effects = Effects("alerting", connection, RECEIVED_AT)
        await HANDLER(records, effects)
        await effects.flush()


async def until_blocked(watcher: Any, pid: int) -> None:
    """Wait until the backend waits for another one's lock. Raises ``TimeoutError`` when it does not."""
    async with asyncio.timeout(5):
        while not await watcher.fetchval(BLOCKED, pid):  # noqa: ASYNC110 (PostgreSQL tells nobody)
            await asyncio.sleep(0.01)


MODELS = [f"model-{n:02}" for n in range(20)]
TAKEN_ELSEWHERE = "model-10"


async def test_known_models_are_locked_in_ascending_order(pool: Any) -> None:
    """So that two transactions never wait for each other."""
    feed = Feed()
    await take(pool, [feed.record(SNAPSHOTS, make_snapshot(1, model=model)) for model in MODELS])
    records = shuffled([feed.record(SNAPSHOTS, make_snapshot(2, model=model)) for model in MODELS])
    async with pool.acquire() as other, pool.acquire() as own, pool.acquire() as watcher:
        async with other.transaction():
            await PostgresStore().lock(other, [TAKEN_ELSEWHERE])
            later = asyncio.create_task(in_transaction(own, records))
            await until_blocked(watcher, own.get_server_pid())
            async with watcher.transaction():
                free = await watcher.fetch("SELECT model FROM models FOR UPDATE SKIP LOCKED")
        await asyncio.wait_for(later, timeout=5)
    assert {row["model"] for row in free} == {model for model in MODELS if model > TAKEN_ELSEWHERE}


async def test_new_models_are_added_in_ascending_order(pool: Any) -> None:
    feed = Feed()
    records = shuffled([feed.record(SNAPSHOTS, make_snapshot(1, model=model)) for model in MODELS])
    free = set()
    async with pool.acquire() as other, pool.acquire() as own, pool.acquire() as watcher:
        async with other.transaction():
            await PostgresStore().lock(other, [TAKEN_ELSEWHERE])
            later = asyncio.create_task(in_transaction(own, records))
            await until_blocked(watcher, own.get_server_pid())
            await watcher.execute("SET lock_timeout = '50ms'")
            for model in MODELS:
                if await can_add(watcher, model):
                    free.add(model)
        await asyncio.wait_for(later, timeout=5)
    assert free == {model for model in MODELS if model > TAKEN_ELSEWHERE}


def shuffled(records: list[Record]) -> list[Record]:
    return random.Random(0).sample(records, len(records))


async def can_add(connection: Any, model: str) -> bool:
    """Whether nobody else is adding the model; nothing stays added."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("INSERT INTO models (model) VALUES ($1)", model)
    except asyncpg.LockNotAvailableError:
        return False
    finally:
        await transaction.rollback()
    return True


async def test_a_batch_costs_the_same_few_statements_whatever_its_models(pool: Any) -> None:
    feed, counts = Feed(), []
    for size in (1, 1000):
        records = [
            feed.record(SNAPSHOTS, make_snapshot(n, model=f"{size}-{number}", accuracy=0.5))
            for n in (1, 2, 3)
            for number in range(size)
        ]
        async with pool.acquire() as connection:
            statements: list[Any] = []
            connection.add_query_logger(statements.append)
            await in_transaction(connection, records)
            connection.remove_query_logger(statements.append)
        counts.append(
            len(
                [
                    each
                    for each in statements
                    if "alerting.models" in each.query or "alerting.transitions" in each.query
                ]
            )
        )
        assert len(await drain_outbox(pool)) == 4 * size
    assert counts == [4, 4]


async def test_extreme_numbers_survive(pool: Any, gateway: Any) -> None:
    feed = Feed()
    largest = 2**63 - 1
    for sequence in (largest - 1, largest):
        await take(
            pool,
            [
                feed.record(
                    SNAPSHOTS, make_snapshot(1, data_freshness_seconds=1e300).known() | {"sequence": sequence}
                )
            ],
        )
    (alert,) = (await published(gateway))["alerts"]
    assert (alert["value"], alert["breach_streak"], alert["snapshot_sequence"]) == (1e300, 2, largest)


async def test_garbage_goes_to_the_dead_letters_and_the_stream_goes_on(database_dsn: str) -> None:
    feed = Feed()
    records = [
        feed.record(SNAPSHOTS, b"\x00\xff", key=b"\xfe"),
        feed.record(SNAPSHOTS, make_snapshot(1, accuracy=0.5)),
    ]
    emitted = await apply(HANDLER, records, database_dsn, service="alerting")
    assert [message.topic for message in emitted] == ["dead-letters", "alerts", "alerts"]
    assert (emitted[0].key, emitted[0].headers["ce_source"]) == (b"\xfe", "/trueward/alerting")


def test_the_definition_is_of_this_service() -> None:
    assert DEFINITION.name == "alerting"
    assert DEFINITION.background == ()
