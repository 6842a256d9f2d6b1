"""The demo: a year of real flights through Trueward, watched from the outside.

python -m examples.flights [--months N] [--exit] [--seed N] [--data-dir FOLDER] [--broker auto|kafka|tansu]
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from examples.flights import thresholds
from examples.flights.data import Flights, load
from examples.flights.loop import ClosedLoop, Listener, StalledError, loaded, policy_in_force
from examples.flights.model import MODEL, Trained, first_version, registration, store, train
from examples.flights.screen import Screen, VersionRow
from examples.flights.service import Gateway, GatewayAwayError
from examples.flights.stack import Child, Endpoints, StackError, Supervised, kill, local_stack, trainer
from examples.flights.story import ALERTS, DEAD_LETTERS, DECISIONS, JOBS, SNAPSHOTS, Story
from examples.flights.stream import FIRST_DAY, LAST_MONTH, Message, days, days_of, midnight
from examples.flights.trainer import MODEL_VERSIONS
from examples.flights.wire import Document, Publisher, encoded, publisher, subscription
from trueward.client import Trueward

POLICIES = "policies"
TRAINER_PROCESS = "trainer"
PROCESSES = ("metrics", "alerting", "retrain", "gateway", TRAINER_PROCESS)
INTERRUPTED = 130
MOST_MONTHS = LAST_MONTH - FIRST_DAY.month + 1


FAILURES = (StackError, StalledError, GatewayAwayError)


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the demo was asked for. ``kills`` are the processes to end by force, by the number of the day."""

    days: int
    seed: int
    data_dir: Path
    stack: tuple[str, ...]
    kills: dict[int, list[str]]
    stay: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is ready before the stream begins."""

    flights: Flights
    first: Trained
    chosen: thresholds.Thresholds


@dataclass(slots=True)
class Demo:
    """The demo while it runs."""

    options: Options
    screen: Screen
    story: Story
    gateway: Gateway
    trainer: Supervised

    async def begin(self, ready: Prepared, outgoing: Publisher) -> None:
        """Put the policy and the first version into force."""
        as_of = midnight(FIRST_DAY)
        version = first_version(as_of)
        artifact = store(ready.first.classifier, self.options.data_dir / "artifacts" / f"{version}.pickle")
        first = registration(version, ready.first, artifact, as_of, job_id=None, seed=self.options.seed)
        policy = thresholds.policy(ready.chosen, ready.flights, as_of)
        (self.options.data_dir / "policy.json").write_bytes(encoded(policy))
        await outgoing.send(
            [
                Message(POLICIES, MODEL.encode(), encoded(policy)),
                Message(MODEL_VERSIONS, MODEL.encode(), encoded(first)),
            ]
        )
        await policy_in_force(self.gateway)

    async def stream(self, ready: Prepared, outgoing: Publisher, listener: Listener) -> float:
        """Stream every day; the seconds that it took."""
        began = time.monotonic()
        loop = ClosedLoop(
            flights=ready.flights,
            publisher=outgoing,
            story=self.story,
            listener=listener,
            gateway=self.gateway,
            in_service=await loaded(self.gateway, first_version(midnight(FIRST_DAY))),
        )
        with self.screen.progress(self.options.days) as bar:
            for number, day in enumerate(days(ready.flights, self.options.days), start=1):
                chapter = await loop.advance(day, lambda number=number: self._strike(number))
                self.screen.chapter(chapter)
                bar.advance(chapter)
        return time.monotonic() - began

    def _strike(self, day: int) -> None:
        """Kill whatever is to be killed on this day."""
        for name in self.options.kills.get(day, ()):
            if name == TRAINER_PROCESS:
                pid = self.trainer.kill()
            else:
                pid = Endpoints.read(self.options.data_dir).processes[name]
                kill(pid)
            self.screen.say(f"[red]kill -9[/]   {name} (pid {pid}), in the middle of the records of day {day}")

    async def summarise(self) -> None:
        """The table of versions, the states, and what was refused."""
        self.screen.versions(await self._version_rows())
        self.screen.states(self.story)
        if self.story.refused:
            first = self.story.refused[0]
            refused = f"{first['topic']}: {first['reason']}, {first['detail']}"
            self.screen.say(f"[red]{len(self.story.refused)} records were refused[/], the first from {refused}")

    async def _version_rows(self) -> list[VersionRow]:
        """Each version's figures over everything, by the API, in the order of service."""
        model = await self.gateway.known_model() or {"versions": []}
        versions = sorted(model["versions"], key=lambda each: str(each["changed_at"]))
        begins = [datetime.fromisoformat(each["changed_at"]) for each in versions]
        ends = [*begins[1:], max(self.story.snapshots)]
        rows = []
        for each, begin, end in zip(versions, begins, ends, strict=True):
            figures = await self.gateway.monitoring(version=each["version"], window="all")
            rows.append((each["version"], f"{begin:%d %b}-{end:%d %b}", figures["metrics"]))
        return rows

    async def verify(self) -> bool:
        """Run the independent recomputation; say its one line."""
        endpoints = Endpoints.read(self.options.data_dir)
        log = self.options.data_dir / "verify.log"
        child = await Child.start(
            *("-m", "examples.flights.verify", "--http", endpoints.http, "--kafka", endpoints.kafka),
            *("--days", str(self.options.days), "--figures", str(self.options.data_dir / "figures.json")),
            log=log,
        )
        equal = await child.process.wait() == 0
        self.screen.say(f"[{'green' if equal else 'red'}]{child.last_lines(1 if equal else 12)}[/]")
        return equal


async def prepare(seed: int) -> Prepared:
    """Read the flights, train the first version, choose the thresholds (in a thread: the stack starts beside)."""

    def work() -> Prepared:
        flights, as_of = load(), midnight(FIRST_DAY)
        return Prepared(flights, train(flights, as_of, seed), thresholds.choose(flights, as_of, seed))

    return await asyncio.to_thread(work)


async def run(options: Options, screen: Screen) -> bool:
    """The whole demo; whether the numbers were verified."""
    began = time.monotonic()
    preparing = asyncio.create_task(prepare(options.seed))
    screen.say("Starting the local stack, and learning from January and February ...")
    async with local_stack(options.data_dir, options.stack) as stack:
        endpoints = Endpoints.read(options.data_dir)
        screen.say(f"{endpoints.broker} at {endpoints.kafka}, the services at {endpoints.http}")
        ready = await preparing
        screen.thresholds(ready.chosen)
        async with connected(options, screen, endpoints) as (demo, outgoing, listener):
            await demo.begin(ready, outgoing)
            seconds = await demo.stream(ready, outgoing, listener)
            await demo.summarise()
            equal = await demo.verify()
            await timings(demo, seconds, time.monotonic() - began)
            if options.stay:
                screen.addresses(endpoints.http)
                screen.say("They stay up until Ctrl-C.")
                await until_interrupted(stack)
    return equal


async def until_interrupted(stack: Child) -> None:
    """Wait for Ctrl-C, which cancels. Raises :class:`StackError` where the stack ends first."""
    with contextlib.suppress(asyncio.CancelledError):
        await stack.process.wait()
        raise StackError(f"trueward up has ended:\n{stack.last_lines()}")


@asynccontextmanager
async def connected(
    options: Options, screen: Screen, endpoints: Endpoints
) -> AsyncIterator[tuple[Demo, Publisher, Listener]]:
    """The demo with everything that it talks to: the trainer, the gateway, the topics."""
    async with AsyncExitStack() as context:
        folder = options.data_dir / "artifacts"
        training = await context.enter_async_context(
            trainer(endpoints.kafka, folder, options.seed, options.data_dir / "trainer.log")
        )
        client = context.enter_context(Trueward(endpoints.http, patience_seconds=5, timeout_seconds=10))
        outgoing = await context.enter_async_context(publisher(endpoints.kafka))
        topics = (SNAPSHOTS, ALERTS, DECISIONS, JOBS, DEAD_LETTERS)
        incoming = await context.enter_async_context(subscription(endpoints.kafka, *topics))
        story = Story()
        listener = Listener(story)
        listening = asyncio.create_task(listener.listen(incoming))
        context.push_async_callback(_end, listening)
        yield Demo(options, screen, story, Gateway(client), training), outgoing, listener


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def timings(demo: Demo, streaming: float, altogether: float) -> None:
    """How long it took, and how much went through."""
    last: Document = demo.story.snapshots[max(demo.story.snapshots)]
    records = sum(sum(last["offsets"].get(topic, {}).values()) for topic in last["offsets"])
    demo.screen.say(
        f"{demo.options.days} days in {streaming:.0f} s ({streaming / demo.options.days:.2f} s a day,"
        f" {records / streaming:,.0f} records a second), {altogether:.0f} s altogether"
    )


@contextmanager
def folder_for(data_dir: Path | None) -> Iterator[Path]:
    """A folder of the demo's own: the one asked for, which must be empty, or one that goes when the demo ends."""
    if data_dir is not None:
        if data_dir.exists() and any(data_dir.iterdir()):
            raise DemoError(
                f"{data_dir} is not empty; the demo tells its story from the beginning: give it another"
            )
        data_dir.mkdir(parents=True, exist_ok=True)
        yield data_dir
        return
    folder = Path(tempfile.mkdtemp(prefix="trueward-flights-"))
    # PostgreSQL may run as another user, who must be able to reach its part of the folder.
    folder.chmod(0o755)
    kept = False
    try:
        yield folder
    except FAILURES as error:
        kept = True
        raise DemoError(f"{error}\nThe logs are kept in {folder}") from error
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def kills_of(wanted: Sequence[str], days: int) -> dict[int, list[str]]:
    """What is killed on which day: NAME@DAY on that day, each NAME alone spread evenly over the stream.

    Raises :class:`DemoError` for a name or a day that there is not.
    """
    kills: dict[int, list[str]] = {}
    for place, each in enumerate(wanted, start=1):
        name, _, day = each.partition("@")
        if name not in PROCESSES or not (day == "" or (day.isdecimal() and 1 <= int(day) <= days)):
            raise DemoError(
                f"--kill {each}: give one of {', '.join(PROCESSES)}, and perhaps @ and a day from 1 to {days}"
            )
        number = int(day) if day else 1 + days * place // (len(wanted) + 1)
        kills.setdefault(min(number, days), []).append(name)
    return kills


def main(
    *,
    months: Annotated[
        int, typer.Option(min=1, max=MOST_MONTHS, help="How many months to stream, from March on.")
    ] = MOST_MONTHS,
    days: Annotated[int | None, typer.Option(min=1, help="How many days to stream, instead of months.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same story.")] = 2013,
    data_dir: Annotated[
        Path | None, typer.Option(help="An empty folder, which is kept; default: one that goes at the end.")
    ] = None,
    broker: Annotated[str, typer.Option(help="auto, kafka or tansu, as for `trueward up`.")] = "auto",
    http_port: Annotated[int, typer.Option(help="The gateway's port; 0: a free one.")] = 0,
    kafka_port: Annotated[int, typer.Option(help="The broker's port; 0: a free one.")] = 0,
    postgres_port: Annotated[int, typer.Option(help="PostgreSQL's port; 0: a free one.")] = 0,
    kill: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@DAY]",
            help="A process to kill -9 on the way: metrics, alerting, retrain, gateway or trainer. Repeatable.",
        ),
    ] = None,
    exit_: Annotated[bool, typer.Option("--exit", help="End when the story is told.")] = False,
) -> None:
    """Stream a year of real flights through Trueward, and watch what it makes of the model that predicts them."""
    screen = Screen(Console())
    try:
        count = min(days or days_of(months), days_of(MOST_MONTHS))
        kills = kills_of(kill or (), count)
        with folder_for(data_dir) as folder:
            options = Options(
                days=count,
                seed=seed,
                data_dir=folder.resolve(),
                stack=(
                    *("--broker", broker, "--http-port", str(http_port)),
                    *("--kafka-port", str(kafka_port), "--postgres-port", str(postgres_port)),
                ),
                kills=kills,
                stay=not exit_,
            )
            code = asyncio.run(_stoppable(options, screen))
    except (DemoError, *FAILURES) as error:
        screen.console.print(f"The demo cannot go on: {error}", style="red", markup=False)
        code = 1
    sys.exit(code)


async def _stoppable(options: Options, screen: Screen) -> int:
    """Run the demo; Ctrl-C, or a request to stop, ends it in order. Returns the exit code."""
    running = asyncio.ensure_future(run(options, screen))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        return 0 if await running else 1
    except asyncio.CancelledError:
        screen.say("Stopped before the end.")
        return INTERRUPTED


if __name__ == "__main__":
    typer.run(main)
