"""The hot path: several instances with memories of their own leave what the plain recomputation says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

import asyncpg
import pytest

from services.metrics import clocks
from services.metrics.domain.hot.keys import as_keys
from services.metrics.handlers import make_handler
from services.metrics.hot import memory
from services.metrics.hot.combinations import Combinations
from services.metrics.hot.decoding import key_of
from services.metrics.hot.memory import QUERIES, Memory
from shared.database import connect_pool
from shared.effects import Effects
from tests.metrics_state import assert_nothing_to_rebuild, assert_state
from tests.metrics_world import MINUTE, Fact, MetricsWorld, label, policy, prediction, valued
from tests.support import RECEIVED_AT, make_consumer


@pytest.fixture
async def world(module_database_dsn: str) -> AsyncIterator[MetricsWorld]:
    """An instance on the module's database, emptied."""
    pool = await connect_pool(module_database_dsn, role="metrics", application_name="test", max_size=8)
    found = MetricsWorld(pool)
    await found.forget()
    await found.begin()
    yield found
    await pool.close()


def traffic(chance: random.Random, count: int) -> list[Fact]:
    """Mostly plain events, early, late, repeated and corrected; among them some of every other sort."""
    facts: list[Fact] = []
    for number in range(count):
        name, model = f"p{number}", f"m{chance.randrange(3)}"
        said = prediction(
            name,
            chance.randrange(5_000),
            chance.randrange(1001) / 1000,
            model=model,
            version=chance.choice("12"),
            **chance.choice(
                [{}, {}, {"segment": {"region": chance.choice(["eu", "us", "mars"])}}, {"predicted": 1}]
            ),
        )
        sort = chance.random()
        if sort < 0.05:
            said = prediction(f"other-{number}", 7, 0.4, model=model, entity_id=name)
        elif sort < 0.1:
            said = valued(name, 9, 12.5, model=model)
        facts.append(said)
        if chance.random() < 0.1:
            facts.append(prediction(f"second-{number}", 11, 0.6, model=model, entity_id=name))
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
            outcome = chance.choice([0, 1]) if chance.random() < 0.95 else chance.choice([None, 0.5, "late"])
            facts.append(label(name, chance.randrange(10_000), outcome))
    facts += chance.choices(facts, k=count // 10)
    # Near each other as they would be, and yet in any order.
    order = {id(fact): place + chance.gauss(0, 40) for place, fact in enumerate(facts)}
    return sorted(facts, key=lambda fact: order[id(fact)])


class Instance:
    """One of several instances, which remembers by itself."""

    def __init__(self, world: MetricsWorld, partition: int) -> None:
        self.memory = Memory(most_recent=50)
        self.handler = make_handler("wall", MINUTE, clocks.horizons_of(world.context.settings), self.memory)
        self._consumer = make_consumer(self.handler, world.pool, service="metrics")
        self.world = world
        self._partition = partition

    async def take(self, facts: Sequence[Fact]) -> None:
        await self._consumer.take([self.world.record(fact, self._partition) for fact in facts], {})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("instances", [1, 3])
async def test_instances_that_remember_join_as_if_each_looked_everything_up(
    world: MetricsWorld, seed: int, instances: int
) -> None:
    chance = random.Random(seed)
    facts = traffic(chance, 400)
    declared = [policy(model="m0", segments={"region": ["eu"]}), policy(model="m1", segments={"region": ["us"]})]
    found = [Instance(world, number) for number in range(instances)]

    async def read(instance: Instance, mine: list[Fact], sizes: random.Random) -> None:
        while mine:
            size = sizes.choice([1, 5, 40])
            await instance.take(mine[:size])
            del mine[:size]
            if sizes.random() < 0.3:
                await instance.memory.read_every_key(world.context)

    await found[0].take(declared)
    await asyncio.gather(
        *(
            read(instance, facts[number::instances], random.Random(seed + number))
            for number, instance in enumerate(found)
        )
    )
    await assert_state(world, [*facts, *declared])
    await assert_nothing_to_rebuild(world)


async def known_by(instance: Instance, name: str) -> bool:
    """Whether the instance remembers what is stored about an entity, after a look at what others changed."""
    async with instance.world.pool.acquire() as connection, connection.transaction():
        await instance.memory.look(connection)
    _, missing = instance.memory.recent.find(as_keys(key_of(name)))
    return not len(missing)


async def test_what_anybody_else_changes_is_not_remembered_any_more(
    world: MetricsWorld, module_database_dsn: str
) -> None:
    one, other = Instance(world, 0), Instance(world, 1)
    await one.take([prediction("p", 0), prediction("q", 0), label("r", 5)])
    assert [await known_by(one, name) for name in "pqr"] == [True, True, True]
    await other.take([label("p", 30)])
    assert [await known_by(one, name) for name in "pqr"] == [False, True, True]
    await other.take([prediction("about-q", 7, entity_id="q")])
    assert [await known_by(one, name) for name in "pqr"] == [False, False, True]
    # As retention does, or a person.
    await world.pool.execute("DELETE FROM label WHERE entity_key = $1", UUID(bytes=key_of("r")))
    assert not await known_by(one, "r")
    await one.take([prediction("p", 0), prediction("s", 0)])
    assert [await known_by(one, name) for name in "ps"] == [True, True]
    admin = await asyncpg.connect(module_database_dsn)
    await admin.execute("TRUNCATE metrics.prediction, metrics.label")
    await admin.close()
    assert not await known_by(one, "s")
    assert one.memory.lost.is_set()


async def test_who_has_not_looked_before_changes_were_removed_forgets_everything(world: MetricsWorld) -> None:
    one, other = Instance(world, 0), Instance(world, 1)
    facts = [
        prediction("p", 0),
        prediction("q", 10),
        prediction("r", 20),
        label("p", 40),
        label("q", 50),
        label("r", 60),
    ]
    await one.take(facts[:1])
    await one.memory.read_every_key(world.context)
    assert not one.memory.lost.is_set()
    await other.take(facts[1:3])
    await world.pool.execute(QUERIES.remove_old_changes, timedelta(0))
    assert await world.pool.fetchval("SELECT count(*) FROM changed_keys") == 0
    # It would have taken both for entities of which nothing is stored.
    await one.take(facts[3:])
    assert one.memory.lost.is_set()
    await assert_state(world, facts)


async def test_keys_are_read_while_others_store_more(world: MetricsWorld) -> None:
    one, other = Instance(world, 0), Instance(world, 1)
    facts = [prediction(f"p{number}", number) for number in range(40)]
    labels = [label(f"p{number}", 100 + number) for number in range(40)]

    async def stored_meanwhile() -> None:
        for place in range(0, 40, 4):
            await other.take(facts[place : place + 4])

    await asyncio.gather(one.memory.read_every_key(world.context), stored_meanwhile())
    assert not one.memory.lost.is_set()
    await one.take(labels)
    await assert_state(world, [*facts, *labels])


async def test_a_transaction_that_fails_leaves_nothing_in_memory(world: MetricsWorld) -> None:
    instance = Instance(world, 0)
    facts = [prediction("p", 0), prediction("q", 0), label("p", 40)]
    records = [world.record(fact) for fact in facts]

    async def rolled_back() -> None:
        async with world.pool.acquire() as connection, connection.transaction():
            await instance.handler(records, Effects("metrics", connection, RECEIVED_AT))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await rolled_back()
    assert [await known_by(instance, name) for name in "pq"] == [False, False]
    await world.take_records(records)
    await instance.take([label("q", 50)])
    await assert_state(world, [*facts, label("q", 50)])


async def test_a_commit_that_was_never_heard_of_is_told_by_the_tables(world: MetricsWorld) -> None:
    instance = Instance(world, 0)
    await instance.memory.read_every_key(world.context)
    facts = [prediction("p", 0), valued("q", 0, 2.5)]
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_current_xact_id()")
        # Another transaction ends meanwhile: then this one's own number counts as seen by its own snapshots.
        await world.pool.execute("INSERT INTO retention (narrow_before) VALUES (0)")
        effects = Effects("metrics", connection, RECEIVED_AT)
        await instance.handler([world.record(fact, 5) for fact in facts], effects)
    # It is durable, and `committed` was never called.
    late = [label("p", 40), label("q", 50, 2.0), prediction("p", 0)]
    await instance.take(late)
    await assert_state(world, [*facts, *late])


async def test_combinations_that_are_too_many_are_numbered_anew(
    world: MetricsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "Combinations", partial(Combinations, 3))
    instance = Instance(world, 0)
    instance.memory.combinations = Combinations(3)
    chance, facts = random.Random(7), []
    for number in range(60):
        facts.append(prediction(f"p{number}", number, 0.25, model=f"m{chance.randrange(7)}"))
        facts.append(label(f"p{chance.randrange(number + 1)}", 100 + number))
    for place in range(0, len(facts), 6):
        await instance.take(facts[place : place + 6])
    await assert_state(world, facts)


async def test_changes_stay_while_a_transaction_is_open_that_has_not_seen_them(world: MetricsWorld) -> None:
    instance = Instance(world, 0)
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_current_xact_id()")
        await instance.take([prediction("p", 0)])
        await world.pool.execute(QUERIES.remove_old_changes, timedelta(0))
        assert await world.pool.fetchval("SELECT count(*) FROM changed_keys") > 0
        await instance.memory.read_every_key(world.context)
        assert not instance.memory.lost.is_set()


async def test_where_two_looks_cross_nothing_is_kept_of_the_earlier_one(world: MetricsWorld) -> None:
    """The later one was told what others had changed by then, and the earlier one would know it no more."""
    one, other = Instance(world, 0), Instance(world, 1)
    facts = [prediction("p", 0), prediction("q", 0)]
    async with world.pool.acquire() as connection, connection.transaction():
        effects = Effects("metrics", connection, RECEIVED_AT)
        await one.handler([world.record(facts[0], 5)], effects)
        async with world.pool.acquire() as beside, beside.transaction():
            await one.memory.look(beside)
    effects.committed()
    _, missing = one.memory.recent.find(as_keys(key_of("p")))
    assert len(missing) == 1
    late = [label("p", 40), label("p", 50, 0)]
    await other.take([*facts[1:], late[0]])
    await one.take(late[1:])
    await assert_state(world, [*facts, *late])


async def test_another_database_is_not_taken_for_this_one(world: MetricsWorld, database_dsn: str) -> None:
    """Not even a copy, whose tables have the same numbers."""
    instance = Instance(world, 0)
    await instance.take([prediction("p", 0)])
    assert await known_by(instance, "p")
    copy = await asyncpg.connect(database_dsn)
    try:
        await copy.execute("SET search_path TO metrics")
        async with copy.transaction():
            await instance.memory.look(copy)
    finally:
        await copy.close()
    assert instance.memory.lost.is_set()
    _, missing = instance.memory.recent.find(as_keys(key_of("p")))
    assert len(missing) == 1
    assert not instance.memory.combinations.stored
    assert not instance.memory.series


async def test_names_are_taken_for_stored_once_the_transaction_that_stores_them_is_durable(
    world: MetricsWorld,
) -> None:
    instance = Instance(world, 0)
    facts = [prediction("p", 0), prediction("q", 1)]
    async with world.pool.acquire() as connection:
        effects = Effects("metrics", connection, RECEIVED_AT)
        transaction = connection.transaction()
        await transaction.start()
        await instance.handler([world.record(facts[0], 5)], effects)
        await transaction.rollback()
    assert not instance.memory.combinations.stored
    for fact in facts:
        await instance.take([fact])
        assert len(instance.memory.combinations.stored) == 1
        assert instance.memory.series
    await assert_state(world, facts)
