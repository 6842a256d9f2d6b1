"""One read answers all that wait for it, and none answers who came after it began."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from services.gateway.kept.revisions import Revisions


class Database:
    """Answers reads one by one, when the test says so."""

    def __init__(self) -> None:
        self.reads: list[tuple[list[str], asyncio.Future[Mapping[str, str]]]] = []

    async def read(self, models: Sequence[str]) -> Mapping[str, str]:
        answer: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        self.reads.append((sorted(models), answer))
        return await answer

    def asked(self) -> list[list[str]]:
        return [models for models, _ in self.reads]


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def ask(revisions: Revisions, *models: str) -> list[asyncio.Task[str | None]]:
    tasks = [asyncio.create_task(revisions.of(model)) for model in models]
    await settle()
    return tasks


async def test_who_asks_while_a_read_is_under_way_waits_for_the_next() -> None:
    database = Database()
    revisions = Revisions(database.read)
    (first,) = await ask(revisions, "a")
    later = await ask(revisions, "a", "b", "a")
    assert database.asked() == [["a"]], "one read at a time"
    database.reads[0][1].set_result({"a": "old"})
    await settle()
    assert first.result() == "old"
    assert not any(task.done() for task in later)
    assert database.asked() == [["a"], ["a", "b"]]
    database.reads[1][1].set_result({"a": "new"})
    assert await asyncio.gather(*later) == ["new", None, "new"]
    (again,) = await ask(revisions, "a")
    assert len(database.reads) == 3, "nothing is remembered"
    database.reads[2][1].set_result({"a": "newer"})
    assert await again == "newer"


async def test_a_read_that_fails_fails_for_those_that_waited_for_it_alone() -> None:
    database = Database()
    revisions = Revisions(database.read)
    first = await ask(revisions, "a", "b")
    second = await ask(revisions, "a")
    # Both of the first came before the loop ran the read.
    assert database.asked() == [["a", "b"]]
    database.reads[0][1].set_exception(OSError("away"))
    await settle()
    for task in first:
        with pytest.raises(OSError, match="away"):
            await task
    database.reads[1][1].set_result({"a": "1"})
    assert await second[0] == "1"


async def test_who_goes_away_takes_nobody_with_him() -> None:
    database = Database()
    revisions = Revisions(database.read)
    gone, stays = await ask(revisions, "a", "a")
    gone.cancel()
    await settle()
    database.reads[0][1].set_result({"a": "1"})
    assert await stays == "1"
    assert gone.cancelled()
