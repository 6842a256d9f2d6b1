"""The hot path: several instances with memories of their own leave what the plain recomputation says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from services.metrics import clocks
from services.metrics.handlers import make_handler
from services.metrics.hot.memory import Memory
from shared.database import connect_pool
from tests.metrics_state import assert_nothing_to_rebuild, assert_state
from tests.metrics_world import MINUTE, Fact, MetricsWorld, label, policy, prediction, valued
from tests.support import make_consumer


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
        handler = make_handler("wall", MINUTE, clocks.horizons_of(world.context.settings), self.memory)
        self._consumer = make_consumer(handler, world.pool, service="metrics")
        self._world = world
        self._partition = partition

    async def take(self, facts: Sequence[Fact]) -> None:
        await self._consumer.take([self._world.record(fact, self._partition) for fact in facts], {})


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
