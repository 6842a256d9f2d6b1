"""The broker in memory behaves as Kafka does where exactly-once effects depend on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from shared.broker import AssignmentWatch
from tests.simulation.kafka import SESSION_SECONDS, Broker, Member
from tests.simulation.scheduler import Scheduler
from tests.simulation.virtual import VirtualLoop

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


@dataclass(eq=False)
class Reader:
    """Somebody with a consumer."""

    name: str
    dead: bool = False
    paused: bool = False


class Bench:
    """A broker with one topic of two partitions, ten records in each."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.scheduler = Scheduler(loop, Random(1))
        self.broker = Broker(loop, self.scheduler, Random(1), {"t": 2})
        for number in range(20):
            self.broker.append("t", b"%d" % number, partition=number % 2)

    def member(self, name: str) -> tuple[Reader, Member]:
        reader = Reader(name)
        member = Member(self.broker, reader, "g", ["t"], 100)
        self.loop.create_task(member.coordinate(AssignmentWatch()))
        return reader, member

    async def settle(self) -> None:
        """Let everybody go on but those who would read."""
        while True:
            await self.loop.idle()
            ready = [point for point in self.scheduler.candidates() if point.kind != "fetch"]
            if not ready:
                return
            self.scheduler.let_pass(ready[0])

    async def result(self, work: Awaitable[Any]) -> Any:
        """What comes of something that passes points."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.loop.idle()
            for point in self.scheduler.candidates():
                self.scheduler.let_pass(point)
            await asyncio.sleep(0)
        return task.result()

    async def silence_of(self, reader: Reader, member: Member) -> None:
        """Let a member be silent for a whole session."""
        reader.paused = True
        member.leave_when_silent()
        self.loop.advance(SESSION_SECONDS)
        await self.settle()


def run(scene: Callable[[Bench], Awaitable[None]]) -> None:
    loop = VirtualLoop()

    async def play() -> None:
        await scene(Bench(loop))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    try:
        loop.run_until_complete(play())
    finally:
        loop.close()


def test_a_new_member_starts_at_what_was_committed() -> None:
    async def scene(bench: Bench) -> None:
        _, first = bench.member("first")
        await bench.settle()
        assert first.assignment() == {A, B}
        await bench.result(first.commit({A: 4}))
        _, second = bench.member("second")
        await bench.settle()
        assert first.assignment() | second.assignment() == {A, B}
        assert not first.assignment() & second.assignment()
        holder = first if A in first.assignment() else second
        batch = await bench.result(holder.fetch())
        assert batch[0].offset == 4

    run(scene)


def test_a_zombies_commit_is_refused_though_it_still_has_its_partitions() -> None:
    async def scene(bench: Bench) -> None:
        reader, zombie = bench.member("zombie")
        await bench.settle()
        _, other = bench.member("other")
        await bench.settle()
        held = next(iter(zombie.assignment()))
        await bench.silence_of(reader, zombie)
        assert other.assignment() == {A, B}
        assert held in zombie.assignment()
        reader.paused = False
        commit = bench.loop.create_task(zombie.commit({held: 10}))
        await bench.loop.idle()
        (point,) = (point for point in bench.scheduler.candidates() if point.kind == "offsets")
        bench.scheduler.let_pass(point)
        with pytest.raises(CommitFailedError):
            await commit
        assert held not in bench.broker.groups["g"].committed

    run(scene)


def test_a_zombie_that_wakes_joins_again_and_reads_from_what_the_others_committed() -> None:
    async def scene(bench: Bench) -> None:
        reader, zombie = bench.member("zombie")
        await bench.settle()
        await bench.silence_of(reader, zombie)
        _, other = bench.member("other")
        await bench.settle()
        await bench.result(other.commit({A: 7, B: 7}))
        reader.paused = False
        await bench.settle()
        assert len(zombie.assignment()) == len(other.assignment()) == 1
        (record, *_) = await bench.result(zombie.fetch())
        assert record.offset == 7

    run(scene)


def test_who_was_given_nothing_cannot_seek_pause_or_commit() -> None:
    async def scene(bench: Bench) -> None:
        _, member = bench.member("only")
        stranger = TopicPartition("t", 7)
        await bench.settle()
        for act in (
            lambda: member.seek(stranger, 0),
            lambda: member.pause(stranger),
            lambda: member.highwater(stranger),
        ):
            with pytest.raises(IllegalStateError):
                act()
        with pytest.raises(IllegalStateError):
            await member.commit({stranger: 1})

    run(scene)


def test_a_paused_partition_is_not_read_until_it_is_resumed() -> None:
    async def scene(bench: Bench) -> None:
        _, member = bench.member("only")
        await bench.settle()
        member.pause(A)
        for _ in range(5):
            member.seek(B, 0)
            assert {record.partition for record in await bench.result(member.fetch())} == {1}
        member.pause(B)
        member.resume(A)
        assert {record.partition for record in await bench.result(member.fetch())} == {0}

    run(scene)
