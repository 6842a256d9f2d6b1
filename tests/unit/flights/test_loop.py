"""The closed loop against a Trueward that is played by the test: every answer comes when the test gives it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from examples.flights import loop, model, stream
from examples.flights.data import Flights
from examples.flights.loop import Chapter, ClosedLoop, InService, Listener, StalledError
from examples.flights.service import GatewayAwayError, Judged
from examples.flights.story import Story

MARCH = stream.midnight(stream.FIRST_DAY)


class Topics:
    """What Trueward says, as the consumer hears it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    async def getmany(self, *, timeout_ms: int) -> dict[str, list[Any]]:
        try:
            return {"partition": [await asyncio.wait_for(self._queue.get(), timeout_ms / 1000)]}
        except TimeoutError:
            return {}

    def say(self, topic: str, **said: Any) -> None:
        value = json.dumps({"model": "flight-late", **said}).encode()
        self._queue.put_nowait(SimpleNamespace(topic=f"trueward.{topic}", value=value))

    def snapshot(self, day: stream.Day, sequence: int) -> None:
        self.say("snapshots", as_of=model.rfc_3339(day.end), sequence=sequence)

    def decision(self, sequence: int, action: str = "noop", job_id: str | None = None) -> None:
        evidence = {"snapshot_sequence": sequence}
        self.say("retrain-decisions", asked_by="snapshot", action=action, job_id=job_id, evidence=evidence)

    def job(self, number: int, status: str, version: str | None = None) -> None:
        run = {"model_version": version}
        self.say("retrain-jobs", job_id="j", job_sequence=number, status=status, run=run, aftermath=None)

    def opened(self, sequence: int) -> None:
        what = {"alert_id": "brier_breach", "escalation_level": "none"}
        self._alert(1, sequence, transition="opened", **what)
        self._alert(2, sequence, transition="state_changed", alert_id=None, escalation_level=None)

    def _alert(self, number: int, sequence: int, **said: Any) -> None:
        states = {"previous_state": "none", "state": "active"}
        self.say("alerts", alert_sequence=number, snapshot_sequence=sequence, **states, **said)


class Gateway:
    """Answers as the test sets it; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.now = Judged(0, "none", {})
        self.versions: list[dict[str, Any]] = []

    async def judged(self) -> Judged:
        self.asked += 1
        if self.away:
            raise GatewayAwayError
        return self.now

    async def known_model(self) -> dict[str, Any] | None:
        self.asked += 1
        return {"versions": self.versions, "policy_sha256": None} if self.versions else None


class Publisher:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.ticks: list[datetime] = []

    async def send(self, messages: list[stream.Message]) -> None:
        self.sent.extend({"topic": message.topic, **json.loads(message.value)} for message in messages)

    async def tick(self, moment: datetime) -> None:
        self.ticks.append(moment)

    def versions(self) -> set[str]:
        return {each["model_version"] for each in self.sent if each["topic"] == "predictions"}


class World:
    """The loop, and everything around it."""

    def __init__(self, flights: Flights, classifier: Any) -> None:
        self.topics, self.gateway, self.publisher = Topics(), Gateway(), Publisher()
        story = Story()
        self.listener = Listener(story)
        self.days = list(stream.days(flights, 2))
        self.loop = ClosedLoop(
            flights=flights,
            publisher=self.publisher,
            story=story,
            listener=self.listener,
            gateway=self.gateway,
            in_service=InService("first", classifier),
        )

    @contextlib.asynccontextmanager
    async def advancing(self, number: int) -> AsyncIterator[asyncio.Task[Chapter]]:
        listening = asyncio.create_task(self.listener.listen(self.topics))
        advancing = asyncio.create_task(self.loop.advance(self.days[number]))
        try:
            yield advancing
        finally:
            advancing.cancel()
            listening.cancel()
            await asyncio.wait((advancing, listening))


@pytest.fixture(scope="module")
def classifier(flights: Flights) -> Any:
    return model.train(flights, datetime.fromisoformat("2013-01-15T00:00:00Z"), 1).classifier


@pytest.fixture
def world(flights: Flights, classifier: Any) -> World:
    return World(flights, classifier)


async def waits(task: asyncio.Task[Chapter], gateway: Gateway) -> bool:
    """Whether the loop still waits after it has had time to ask the gateway again."""
    asked = gateway.asked
    for _ in range(20):
        await asyncio.sleep(0.005)
        if gateway.asked > asked + 1:
            break
    return not task.done()


async def test_a_day_is_through_only_with_its_snapshot_decision_and_alerts(world: World) -> None:
    async with world.advancing(0) as advancing:
        assert await waits(advancing, world.gateway)
        assert world.publisher.ticks == [world.days[0].end]
        world.topics.snapshot(world.days[0], 1)
        assert await waits(advancing, world.gateway)
        world.topics.decision(1)
        assert await waits(advancing, world.gateway)
        world.gateway.away = True
        assert await waits(advancing, world.gateway)
        # Alerting is through with it, but what it said has not all been heard.
        world.gateway.now, world.gateway.away = Judged(1, "active", {"brier_breach": "none"}), False
        assert await waits(advancing, world.gateway)
        world.topics.opened(1)
        chapter = await asyncio.wait_for(advancing, 5)
    assert chapter.state == "active"
    assert [said["transition"] for said in chapter.transitions] == ["opened", "state_changed"]
    assert chapter.job is None
    assert chapter.successor is None


async def test_all_of_a_day_is_published_by_the_version_in_service(world: World) -> None:
    async with world.advancing(0) as advancing:
        world.topics.snapshot(world.days[0], 1)
        world.topics.decision(1)
        world.gateway.now = Judged(1, "none", {})
        await asyncio.wait_for(advancing, 5)
    day = world.days[0]
    assert len(world.publisher.sent) == len(day.departing) + len(day.landing) + 1
    assert world.publisher.versions() == {"first"}


async def test_the_next_day_is_predicted_by_the_retrained_version(
    world: World, classifier: Any, tmp_path: Path
) -> None:
    stored = model.store(classifier, tmp_path / "second.pickle")
    artifact = {"uri": stored.uri, "sha256": stored.sha256}
    world.gateway.now = Judged(1, "none", {})
    async with world.advancing(0) as advancing:
        world.topics.snapshot(world.days[0], 1)
        world.topics.decision(1, "queued-retrain", "j")
        world.topics.job(1, "queued")
        assert await waits(advancing, world.gateway)
        world.topics.job(2, "completed", "second")
        assert await waits(advancing, world.gateway)
        world.gateway.versions = [{"version": "second", "artifact": artifact}]
        chapter = await asyncio.wait_for(advancing, 5)
    assert chapter.successor == "second"
    world.publisher.sent.clear()
    world.gateway.now = Judged(2, "none", {})
    async with world.advancing(1) as advancing:
        world.topics.snapshot(world.days[1], 2)
        world.topics.decision(2)
        await asyncio.wait_for(advancing, 5)
    assert world.publisher.versions() == {"second"}


@pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
async def test_a_job_that_came_to_nothing_leaves_the_version_in_service(world: World, status: str) -> None:
    world.gateway.now = Judged(1, "none", {})
    async with world.advancing(0) as advancing:
        world.topics.snapshot(world.days[0], 1)
        world.topics.decision(1, "queued-retrain", "j")
        world.topics.job(1, status)
        chapter = await asyncio.wait_for(advancing, 5)
    assert chapter.job is not None
    assert chapter.job["status"] == status
    assert world.loop.in_service.version == "first"


async def test_something_happens_in_the_middle_of_the_records(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PATIENCE_SECONDS", 0)
    published: list[int] = []
    with pytest.raises(StalledError):
        await world.loop.advance(world.days[0], lambda: published.append(len(world.publisher.sent)))
    assert published == [len(world.publisher.sent) // 2]


async def test_a_wait_without_end_says_what_was_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PATIENCE_SECONDS", 0.05)
    async with world.advancing(0) as advancing:
        with pytest.raises(StalledError, match="the snapshot of 2013-03-02"):
            await advancing
    async with world.advancing(0) as advancing:
        world.topics.snapshot(world.days[0], 1)
        world.topics.decision(1)
        world.gateway.away = True
        with pytest.raises(StalledError, match="the alerts of 2013-03-02"):
            await advancing


async def test_a_listener_that_fails_does_not_leave_others_waiting(world: World) -> None:
    async with world.advancing(0) as advancing:
        world.topics.say("snapshots", as_of="not a time")
        with pytest.raises(StalledError, match="cannot be followed: ValueError"):
            await asyncio.wait_for(advancing, 5)
