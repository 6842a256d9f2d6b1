"""The closed loop: a day is published, and the next one waits until Trueward is through with it.

So a flight is always predicted by the version that would have been in service, and the same seed gives the same
story, however fast or slow the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from aiokafka import AIOKafkaConsumer
from sklearn.ensemble import HistGradientBoostingClassifier

from examples.flights.data import Flights
from examples.flights.model import probabilities, restore
from examples.flights.service import Gateway, GatewayAwayError
from examples.flights.story import Story
from examples.flights.stream import Day, messages
from examples.flights.wire import Document, Publisher, heard

PATIENCE_SECONDS = 120
SHORTEST_POLL_SECONDS = 0.005
LONGEST_POLL_SECONDS = 0.25


class StalledError(RuntimeError):
    """Trueward did not come through with something in time; the message says with what."""


class Listener:
    """Takes everything that Trueward says into the story, and wakes those who wait for it."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._news = asyncio.Condition()
        self._failure: Exception | None = None

    async def listen(self, consumer: AIOKafkaConsumer) -> None:
        """Listen until cancelled; whoever waits hears of a failure too."""
        try:
            while True:
                await self._hear(consumer)
        except Exception as error:
            self._failure = error
            async with self._news:
                self._news.notify_all()
            raise

    async def _hear(self, consumer: AIOKafkaConsumer) -> None:
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            for record in records:
                self._story.take(heard(record.topic, record.value))
        async with self._news:
            self._news.notify_all()

    async def until(self, condition: Callable[[], bool], awaited: str) -> None:
        """Wait for something to be true of the story. Raises :class:`StalledError`."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._news:
                await self._news.wait_for(lambda: self._failure is not None or condition())
        except TimeoutError as error:
            raise StalledError(f"waited {PATIENCE_SECONDS} s for {awaited}") from error
        if self._failure is not None:
            raise StalledError(f"what Trueward says cannot be followed: {self._failure!r}") from self._failure


async def poll(ask: Callable[[], Awaitable[bool]], awaited: str) -> None:
    """Ask the gateway again and again, ever more slowly, until the answer is yes.

    A gateway that is away is asked again too. Raises :class:`StalledError`.
    """
    pause = SHORTEST_POLL_SECONDS
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _answers_yes(ask):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_POLL_SECONDS)
    except TimeoutError as error:
        raise StalledError(f"waited {PATIENCE_SECONDS} s for {awaited}") from error


async def _answers_yes(ask: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await ask()
    except GatewayAwayError:
        return False


@dataclass(frozen=True, slots=True)
class InService:
    """The version that predicts."""

    version: str
    classifier: HistGradientBoostingClassifier


@dataclass(frozen=True, slots=True)
class Chapter:
    """What came of one day."""

    day: Day
    snapshot: Document
    state: str
    transitions: list[Document]
    job: Document | None
    aftermaths: list[Document]
    successor: str | None
    """The version that takes over, where one was made."""


class ClosedLoop:
    """Publishes day after day, each as the version then in service would have it."""

    def __init__(
        self,
        *,
        flights: Flights,
        publisher: Publisher,
        story: Story,
        listener: Listener,
        gateway: Gateway,
        in_service: InService,
    ) -> None:
        self._flights = flights
        self._publisher = publisher
        self._story = story
        self._listener = listener
        self._gateway = gateway
        self.in_service = in_service

    async def advance(self, day: Day, in_the_middle: Callable[[], None] = lambda: None) -> Chapter:
        """Publish a day and wait until its snapshot, alerts, decision and any retraining are through.

        ``in_the_middle`` is called when half of the day's records are with the broker.
        """
        probability = probabilities(self.in_service.classifier, self._flights.features[day.departing])
        records = messages(self._flights, day, probability, self.in_service.version)
        half = len(records) // 2
        await self._publisher.send(records[:half])
        in_the_middle()
        await self._publisher.send(records[half:])
        await self._publisher.tick(day.end)
        return await self._through(day)

    async def _through(self, day: Day) -> Chapter:
        about = f"of {day.end:%Y-%m-%d}"
        await self._listener.until(lambda: day.end in self._story.snapshots, f"the snapshot {about}")
        snapshot = self._story.snapshots[day.end]
        sequence = snapshot["sequence"]
        await self._listener.until(
            lambda: self._story.is_decided(sequence), f"the decision {about}, and any retraining"
        )
        await poll(lambda: self._alerts_are_through(sequence), f"the alerts {about}")
        job = self._story.job_of(sequence)
        successor = job["run"]["model_version"] if job is not None and job["status"] == "completed" else None
        if successor is not None:
            self.in_service = await loaded(self._gateway, successor)
        return Chapter(
            day=day,
            snapshot=snapshot,
            state=self._story.state_after(sequence),
            transitions=self._story.transitions_of(sequence),
            job=job,
            aftermaths=self._story.aftermaths_of(sequence),
            successor=successor,
        )

    async def _alerts_are_through(self, sequence: int) -> bool:
        """Whether alerting has judged the snapshot, and everything it said has been heard."""
        judged = await self._gateway.judged()
        return (
            judged.sequence >= sequence
            and judged.state == self._story.state_after(sequence)
            and judged.standing == self._story.standing_after(sequence)
            and self._story.is_alerted(sequence)
        )


async def loaded(gateway: Gateway, version: str) -> InService:
    """The version, once Trueward has taken its registration in. Raises :class:`StalledError`."""
    registered: Document = {}

    async def known() -> bool:
        model = await gateway.known_model() or {"versions": ()}
        registered.update(*(each for each in model["versions"] if each["version"] == version))
        return bool(registered)

    await poll(known, f"{version} to be taken in")
    artifact = registered["artifact"]
    return InService(version, await asyncio.to_thread(restore, artifact["uri"], artifact["sha256"]))


async def policy_in_force(gateway: Gateway) -> None:
    """Wait until Trueward knows the model's policy."""

    async def known() -> bool:
        model = await gateway.known_model()
        return model is not None and model["policy_sha256"] is not None

    await poll(known, "the policy to be taken in")


def date_of(moment: str) -> str:
    """The day of a moment as the topics spell it."""
    return f"{datetime.fromisoformat(moment):%Y-%m-%d}"
