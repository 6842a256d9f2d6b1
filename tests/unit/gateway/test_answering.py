"""No answer is older than its question, however questions, reads and writes interleave."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from services.gateway.kept.answering import Answering, Make
from services.gateway.kept.answers import KeptAnswer, KeptAnswers, Key
from services.gateway.kept.revisions import Revisions
from services.gateway.problems import Problem

MODEL = "m"
ROOM = 1024 * 1024
KEYS: list[Key] = [("/monitoring", b"model=m"), ("/trend", b"model=m")]


class World:
    """A database of two rows that are written one at a time; every read waits before and after it looks."""

    def __init__(self) -> None:
        self.rows = [0, 0]
        self.waiting: list[asyncio.Future[None]] = []
        self.made = 0

    async def revisions(self, models: Sequence[str]) -> Mapping[str, str]:
        await self._pause()
        found = dict.fromkeys(models, f"{self.rows}")
        await self._pause()
        return found

    async def make(self) -> bytes:
        """In two statements, between which anything may be written."""
        self.made += 1
        await self._pause()
        first = self.rows[0]
        await self._pause()
        second = self.rows[1]
        await self._pause()
        return json.dumps([first, second]).encode()

    async def _pause(self) -> None:
        going_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(going_on)
        await going_on


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


class Careless(Answering):
    """Reads the revision after what the answer is made of, as one might."""

    async def answer(self, key: Key, model: str, make: Make) -> bytes:
        content = await make()
        revision = await self._revisions.of(model)
        assert revision is not None
        self._kept.keep(key, KeptAnswer(model, revision, content))
        return content


class Hasty(Revisions):
    """Lets who asks while a read is under way have what it finds."""

    def __init__(self, read: Any) -> None:
        super().__init__(read)
        self._shared: asyncio.Task[str | None] | None = None

    async def of(self, model: str) -> str | None:
        if self._shared is None or self._shared.done():
            self._shared = asyncio.create_task(super().of(model))
        return await asyncio.shield(self._shared)


async def asked(answering: Answering, world: World, key: Key) -> bool:
    """Ask as the gateway is asked; whether the answer has all that was so when it was asked."""
    then = list(world.rows)
    content = await answering.kept(key)
    if content is None:
        content = await answering.answer(key, MODEL, world.make)
    found = json.loads(content)
    return all(now >= before for now, before in zip(found, then, strict=True))


async def interleaved(seed: int, kind: type[Answering], revisions: type[Revisions]) -> list[bool]:
    """Questions, writes and the steps of reads, in an order by the seed."""
    order = random.Random(seed)
    world = World()
    answering = kind(revisions(world.revisions), KeptAnswers(ROOM))
    questions: list[asyncio.Task[bool]] = []
    for _ in range(60):
        match order.choice(("ask", "write", "go on", "go on", "go on", "go on")):
            case "ask":
                questions.append(asyncio.create_task(asked(answering, world, order.choice(KEYS))))
            case "write":
                world.rows[order.randrange(2)] += 1
            case _ if world.waiting:
                world.waiting.pop(order.randrange(len(world.waiting))).set_result(None)
            case _:
                pass
        await settle()
    while world.waiting:
        world.waiting.pop().set_result(None)
        await settle()
    return list(await asyncio.gather(*questions))


SEEDS = range(150)


async def test_no_answer_is_older_than_its_question() -> None:
    for seed in SEEDS:
        assert all(await interleaved(seed, Answering, Revisions)), seed


@pytest.mark.parametrize(("kind", "revisions"), [(Careless, Revisions), (Answering, Hasty)])
async def test_without_the_care_some_would_be(kind: type[Answering], revisions: type[Revisions]) -> None:
    assert any([not all(await interleaved(seed, kind, revisions)) for seed in SEEDS])


async def run_through(world: World, *tasks: asyncio.Task[Any]) -> None:
    await settle()
    while not all(task.done() for task in tasks):
        world.waiting.pop(0).set_result(None)
        await settle()


async def test_it_is_made_once_while_nothing_changes_and_again_after_each_change() -> None:
    world = World()
    answering = Answering(Revisions(world.revisions), KeptAnswers(ROOM))
    for changes in range(3):
        for _ in range(2):
            many = [asyncio.create_task(asked(answering, world, KEYS[0])) for _ in range(20)]
            await run_through(world, *many)
            assert all(task.result() for task in many)
        assert world.made == changes + 1
        world.rows[changes % 2] += 1


async def test_what_could_not_be_made_is_not_kept_and_raises_for_all_that_waited() -> None:
    world = World()
    answering = Answering(Revisions(world.revisions), KeptAnswers(ROOM))

    async def fails() -> bytes:
        await world.make()
        raise Problem(503, "database-away", "away")

    many = [asyncio.create_task(answering.answer(KEYS[0], MODEL, fails)) for _ in range(3)]
    await run_through(world, *many)
    assert [str(task.exception()) for task in many] == ["away"] * 3
    assert world.made == 1
    then = asyncio.create_task(answering.kept(KEYS[0]))
    await run_through(world, then)
    assert then.result() is None


async def test_who_goes_away_while_it_is_made_takes_nobody_with_him() -> None:
    world = World()
    answering = Answering(Revisions(world.revisions), KeptAnswers(ROOM))
    gone, stays = (asyncio.create_task(answering.answer(KEYS[0], MODEL, world.make)) for _ in range(2))
    await settle()
    while not world.made:
        world.waiting.pop(0).set_result(None)
        await settle()
    gone.cancel()
    await run_through(world, stays)
    assert stays.result() == b"[0, 0]"


async def test_of_a_model_without_a_revision_nothing_is_kept() -> None:
    world = World()

    async def none(models: Sequence[str]) -> Mapping[str, str]:
        del models
        return {}

    answering = Answering(Revisions(none), KeptAnswers(ROOM))
    for _ in range(2):
        task = asyncio.create_task(answering.answer(KEYS[0], MODEL, world.make))
        await run_through(world, task)
    assert world.made == 2
