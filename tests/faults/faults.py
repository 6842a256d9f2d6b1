"""What befalls the world. A fault strikes, and has struck when somebody else has noticed; then it is healed.

Nothing here waits for a while: each waits for what the fault must bring about.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from aiokafka.admin import NewPartitions

from shared.topics import LABELS, PREDICTIONS
from tests.faults.traffic import Traffic
from tests.faults.world import CONSUMERS, INSTANCES, SERVICES, BreachError, World, until

NO_SPACE: Final = b"No space left on device"
LOOKS_BEFORE_A_PUSH: Final = 20
BALLAST_BYTES: Final = 1 << 20


class Fault(ABC):
    """One thing that goes wrong. ``carried``: the rest is expected to go on while it lasts."""

    carried = True

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    async def strike(self, world: World, traffic: Traffic) -> None:
        """Do it, and return when it shows."""

    @abstractmethod
    async def heal(self, world: World) -> None:
        """Undo it; the world need not be whole at once."""


async def victim_of(world: World, service: str, *, publisher: bool) -> str:
    """The process of a service that publishes for it, or the other one. All of the gateway's are alike."""
    if service not in CONSUMERS:
        return f"{service}-1"
    found = await world.publisher(service)
    return found if publisher else f"{service}-{3 - int(found[-1])}"


class KillService(Fault):
    """kill -9 of one process of a service."""

    def __init__(self, service: str, *, publisher: bool) -> None:
        super().__init__(f"kill -9 {service}")
        self._service, self._publisher = service, publisher
        self._instance = ""

    async def strike(self, world: World, traffic: Traffic) -> None:  # noqa: ARG002 - the signature of all
        self._instance = await victim_of(world, self._service, publisher=self._publisher)
        world.services[self._instance].kill()

    async def heal(self, world: World) -> None:
        world.services[self._instance].start()


class KillBroker(Fault):
    """kill -9 of a broker: the active controller, or one that is not."""

    def __init__(self, *, controller: bool, chance: Random) -> None:
        super().__init__("kill -9 the controller" if controller else "kill -9 a broker")
        self._controller = controller
        self._chance = chance
        self._victim = -1

    async def strike(self, world: World, traffic: Traffic) -> None:  # noqa: ARG002
        leader = await until(self._leader(world), lambda found: found >= 0, "a controller")
        others = [number for number in range(len(world.brokers)) if number != leader]
        self._victim = leader if self._controller else self._chance.choice(others)
        world.brokers[self._victim].kill()

    @staticmethod
    def _leader(world: World) -> Callable[[], object]:
        async def look() -> int:
            return world.controller()

        return look

    async def heal(self, world: World) -> None:
        world.brokers[self._victim].start()


class KillPostgres(Fault):
    """kill -9 of PostgreSQL: everybody must notice before it comes back."""

    carried = False

    def __init__(self) -> None:
        super().__init__("kill -9 PostgreSQL")

    async def strike(self, world: World, traffic: Traffic) -> None:  # noqa: ARG002
        world.postgres.kill()
        for instance in INSTANCES:
            await until(partial(world.is_ready, instance), lambda ready: not ready, f"{instance} notices")

    async def heal(self, world: World) -> None:
        await world.start_postgres()


class StopService(Fault):
    """SIGSTOP until the broker has given the process up; woken, it is a zombie in the middle of what it did."""

    def __init__(self, service: str, *, publisher: bool) -> None:
        super().__init__(f"SIGSTOP {service} beyond its session")
        self._service, self._publisher = service, publisher
        self._instance = ""

    async def strike(self, world: World, traffic: Traffic) -> None:  # noqa: ARG002
        self._instance = await victim_of(world, self._service, publisher=self._publisher)
        os.kill(world.services[self._instance].pid, signal.SIGSTOP)
        await until(partial(world.members, self._service), lambda count: count == 1, "its session ends")

    async def heal(self, world: World) -> None:
        os.kill(world.services[self._instance].pid, signal.SIGCONT)


class Cut(Fault):
    """The network between a service's second process and the brokers or the database, refused or gone silent.

    Where it is the brokers, the process cut off is the one that publishes for its service.
    """

    def __init__(self, service: str, *, database: bool, silent: bool) -> None:
        far, how = ("PostgreSQL" if database else "Kafka"), ("silent" if silent else "refused")
        super().__init__(f"network cut, {far}: {service} ({how})")
        self._service, self._database, self._silent = service, database, silent
        # Cut from the database alone, it keeps its partitions as long as the broker hears it: they wait for it.
        self.carried = not database

    async def strike(self, world: World, traffic: Traffic) -> None:  # noqa: ARG002
        link = (world.database_links if self._database else world.kafka_links)[self._service]
        if not self._database:
            await self._make_it_publish(world)
        if self._silent:
            link.fall_silent()
        else:
            await link.cut()
        instance = f"{self._service}-2"
        await until(partial(world.is_ready, instance), lambda ready: not ready, f"{instance} notices")
        if not self._database:
            await until(partial(world.members, self._service), lambda count: count == 1, "its session ends")

    async def _make_it_publish(self, world: World) -> None:
        first, second = (f"{self._service}-{number}" for number in (1, 2))
        if await world.publisher(self._service) == first:
            await asyncio.to_thread(world.services[first].stop)
            await until(partial(world.publishes, second), bool, f"{second} publishes")
            world.services[first].start()
            await world.whole()

    async def heal(self, world: World) -> None:
        link = (world.database_links if self._database else world.kafka_links)[self._service]
        if self._silent:
            link.speak()
        else:
            await link.start()


class FullDisk(Fault):
    """PostgreSQL's disk is full: nothing can be written until there is room again."""

    carried = False

    def __init__(self) -> None:
        super().__init__("PostgreSQL's disk full")

    async def strike(self, world: World, traffic: Traffic) -> None:  # noqa: ARG002
        log = world.postgres.log_path
        before = log.read_bytes().count(NO_SPACE)
        looks = 0

        async def felt() -> bool:
            nonlocal looks
            looks += 1
            fill(world.disk / "ballast")  # again and again: what is removed meanwhile must not help
            if looks % LOOKS_BEFORE_A_PUSH == 0:
                with contextlib.suppress(Exception):  # that it fails is what it is for
                    await world.query("SELECT pg_switch_wal()")
            return log.read_bytes().count(NO_SPACE) > before

        await until(felt, bool, "PostgreSQL has no room to write")

    async def heal(self, world: World) -> None:
        (world.disk / "ballast").unlink()
        if world.postgres.exit_code is not None:
            await world.start_postgres()


def fill(path: Path) -> None:
    """Write until the disk takes no more."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (BALLAST_BYTES, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


class RollingRestart(Fault):
    """Everything is stopped in order and started again, one after the other, as a deployment does it."""

    def __init__(self) -> None:
        super().__init__("rolling restart of everything")

    async def strike(self, world: World, traffic: Traffic) -> None:  # noqa: ARG002
        for instance in INSTANCES:
            process = world.services[instance]
            await asyncio.to_thread(process.stop)
            if process.exit_code != 0:
                raise BreachError(f"{instance} ended with {process.exit_code}: {process.last_words()}")
            process.start()
            await until(partial(world.is_ready, instance), bool, f"{instance} ready again")
        for broker in world.brokers:
            await asyncio.to_thread(broker.stop)
            broker.start()
            await world.brokers_whole()
        await asyncio.to_thread(world.postgres.stop)
        await world.start_postgres()

    async def heal(self, world: World) -> None:
        """Nothing is left to be undone."""


class MorePartitions(Fault):
    """Predictions and labels get a partition more: keys lead elsewhere from now on."""

    def __init__(self) -> None:
        super().__init__("partitions added")

    async def strike(self, world: World, traffic: Traffic) -> None:
        traffic.partitions += 1
        wanted = {
            world.prefix + topic.name: NewPartitions(total_count=traffic.partitions)
            for topic in (PREDICTIONS, LABELS)
        }
        async with world.admin() as admin:
            await admin.create_partitions(wanted)

        async def reached() -> int:
            rows = await world.query(
                "SELECT count(*) AS found FROM metrics.inbox WHERE topic IN ('predictions', 'labels') "
                "AND partition = $1",
                traffic.partitions - 1,
            )
            return int(rows[0]["found"])

        await until(reached, lambda found: found == 2, "the new partitions are read")

    async def heal(self, world: World) -> None:
        """They stay."""


def deck(chance: Random, *, disk: bool) -> list[Fault]:
    """Every kind once, in the order of chance; ``disk``: whether PostgreSQL has a disk of its own to be filled."""

    def publisher() -> bool:
        return chance.random() < 0.5

    faults: list[Fault] = [KillService(service, publisher=publisher()) for service in SERVICES]
    faults += [StopService(service, publisher=publisher()) for service in CONSUMERS]
    faults += [KillBroker(controller=controller, chance=chance) for controller in (False, True)]
    faults += [
        Cut(chance.choice(CONSUMERS), database=False, silent=True),
        Cut(chance.choice(CONSUMERS), database=False, silent=False),
        Cut(chance.choice(CONSUMERS), database=True, silent=True),
        Cut(chance.choice(SERVICES), database=True, silent=False),
    ]
    faults += [KillPostgres(), RollingRestart(), MorePartitions()]
    if disk:
        faults.append(FullDisk())
    chance.shuffle(faults)
    return faults


def few(chance: Random, *, disk: bool) -> list[Fault]:
    """A handful of different kinds, for the ordinary test run."""
    faults: list[Fault] = [
        KillService("metrics", publisher=chance.random() < 0.5),
        StopService("retrain", publisher=chance.random() < 0.5),
        KillBroker(controller=True, chance=chance),
        Cut("metrics", database=False, silent=chance.random() < 0.5),
        MorePartitions(),
        FullDisk() if disk else KillPostgres(),
    ]
    chance.shuffle(faults)
    return faults
