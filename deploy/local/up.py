"""``trueward up``: a broker, PostgreSQL and the four services on one machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

import asyncpg
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.text import Text

from deploy.local import broker, endpoints, postgres
from deploy.local.broker import BrokerChoice, BrokerPlan
from deploy.local.postgres import PostgresPlan, ensure_database
from deploy.local.probes import broker_answers, http_answers_ok, postgres_answers
from deploy.local.processes import LOOPBACK, ProcessSpec, claim_port, free_port
from deploy.local.supervisor import SUPERVISOR, Say, Supervisor
from shared.database import migrate
from shared.errors import USAGE_EXIT_CODE, TruewardError, UsageError
from shared.inbox import reset_all
from shared.settings import SnapshotInterval

SERVICES: Final = ("metrics", "alerting", "retrain", "gateway")
SERVICE_COMMAND: Final = (sys.executable, "-m", "trueward", "service")
IN_MEMORY: Final = "in memory"
COLOURS: Final = {
    SUPERVISOR: "bold",
    "metrics": "cyan",
    "alerting": "yellow",
    "retrain": "magenta",
    "gateway": "green",
    "broker": "blue",
    "postgres": "bright_black",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What a person can choose. A port of 0 takes a free one."""

    clock: Literal["wall", "event"] = "wall"
    snapshot_interval: str = "60s"
    http_port: int = 8080
    kafka_port: int = 9092
    postgres_port: int = 5432
    data_dir: Path = Path(".data")
    broker: BrokerChoice = "auto"
    kafka: str | None = None
    postgres: str | None = None
    topic_prefix: str = "trueward."


async def up(
    options: UpOptions, *, service_command: tuple[str, ...] = SERVICE_COMMAND, console: Console | None = None
) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; then stop all of it, in order, and return.

    A second signal kills what has not stopped yet. ``service_command`` is followed by a service's name. Raises
    ``UsageError`` for what the user must change (a port in use, a folder that cannot be written, a second ``up``
    on the same folder), ``TruewardError`` when a part does not start.
    """
    check_options(options)
    say = _printer(console or Console(highlight=False, soft_wrap=True))
    with _locked(options.data_dir):
        stack = Stack(options, service_command, say)
        try:
            with _signals(stack.supervisor) as told_to_stop:
                running = asyncio.create_task(stack.start())
                stopping = asyncio.create_task(told_to_stop.wait())
                watching = asyncio.create_task(stack.supervisor.watch())
                tasks = (running, stopping, watching)
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    if running.done():
                        running.result()
                    await asyncio.wait((stopping, watching), return_when=asyncio.FIRST_COMPLETED)
                    if watching.done():
                        watching.result()
                    say(SUPERVISOR, "stopping")
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                    await stack.stop()
        finally:
            stack.forget()


def check_options(options: UpOptions) -> None:
    """Refuse what no stack can run with. Raises ``UsageError``."""
    try:
        TypeAdapter(SnapshotInterval).validate_python(options.snapshot_interval)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"--snapshot-interval {options.snapshot_interval}: {reason}") from error
    if options.kafka is not None and not all(
        address.rpartition(":")[0] and address.rpartition(":")[2].isdigit() for address in options.kafka.split(",")
    ):
        raise UsageError(f"--kafka {options.kafka}: must be HOST:PORT, or several with commas between them")


class Stack:
    """The parts and services of one ``up``."""

    def __init__(self, options: UpOptions, service_command: tuple[str, ...], say: Say) -> None:
        self._options = options
        self._say = say
        self._complete = False
        self._data_dir = options.data_dir.absolute()
        self.forget()
        self._http_port = claim_port(options.http_port, what="HTTP", option="--http-port")
        self._broker: BrokerPlan = broker.choose(
            data_dir=self._data_dir,
            broker=options.broker,
            bootstrap_servers=options.kafka,
            port=options.kafka_port,
        )
        self._postgres: PostgresPlan = postgres.choose(
            data_dir=self._data_dir, dsn=options.postgres, port=options.postgres_port
        )
        self._services = self._service_processes(service_command)
        self.supervisor = Supervisor(say, self._write_endpoints)

    async def start(self) -> None:
        """Start everything, and return when it answers. Raises ``TruewardError`` when a part does not start."""
        self._say(SUPERVISOR, self._postgres.line)
        self._say(SUPERVISOR, self._broker.broker.line())
        if not self._broker.broker.keeps_records_across_restarts:
            self._say(SUPERVISOR, "this broker forgets its records when it stops: topics do not survive a restart")
        await asyncio.gather(asyncio.to_thread(self._postgres.prepare), asyncio.to_thread(self._broker.prepare))
        if any(process.forgets for process in self._broker.processes):
            await self._start_postgres()  # first, because the inboxes are reset before the broker starts
            await self._start_broker()
        else:
            await asyncio.gather(self._start_postgres(), self._start_broker())
        if self._broker.processes:
            await self._forget_offsets_of_another_log()
        await self.supervisor.start(self._services)
        self._complete = True
        self._write_endpoints()
        self._say(SUPERVISOR, f"everything answers: {self._http}  (Ctrl-C stops all of it)")

    async def stop(self) -> None:
        """Stop services, then the broker, then PostgreSQL."""
        self._complete = False
        self.forget()
        await self.supervisor.stop()

    def forget(self) -> None:
        """Remove ``endpoints.json``: nothing answers, or not for long."""
        (self._data_dir / endpoints.FILE_NAME).unlink(missing_ok=True)

    @property
    def _http(self) -> str:
        return f"http://{LOOPBACK}:{self._http_port}"

    async def _start_postgres(self) -> None:
        dsn = self._postgres.dsn
        if self._postgres.processes:
            await self.supervisor.start(self._postgres.processes)
            await ensure_database(dsn)
        elif not await postgres_answers(dsn):
            raise UsageError("PostgreSQL does not answer at the address given with --postgres")
        applied = await asyncio.to_thread(migrate, dsn)
        if applied:
            self._say(SUPERVISOR, f"migrations applied: {applied}")

    async def _start_broker(self) -> None:
        plan = self._broker
        if not plan.processes:
            if not await broker_answers(plan.broker.bootstrap_servers):
                raise UsageError(f"no broker answers at {plan.broker.bootstrap_servers}, given with --kafka")
            return
        await self.supervisor.start(
            dataclasses.replace(process, before_start=self._reset_inboxes) if process.forgets else process
            for process in plan.processes
        )

    async def _forget_offsets_of_another_log(self) -> None:
        """Offsets are places in one log: read far in a log that is gone, they would skip the new one's records.

        A broker that forgets is treated before each of its starts; here, one that took another's place.
        """
        path = self._data_dir / "broker-identity"
        identity = self._broker.identity() or IN_MEMORY
        known = path.read_text(encoding="ascii").strip() if path.exists() else identity
        if identity not in (known, IN_MEMORY):
            await self._reset_inboxes()
        path.write_text(identity + "\n", encoding="ascii")

    async def _reset_inboxes(self) -> None:
        """Let every service read the topics from their beginning. Raises ``TruewardError`` when that fails."""
        try:
            forgotten = await reset_all(self._postgres.dsn)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise TruewardError(f"the inboxes could not be reset: {error}") from error
        if forgotten:
            self._say(SUPERVISOR, f"the broker's log is a new one: {forgotten} offsets of the old one forgotten")

    def _service_processes(self, command: tuple[str, ...]) -> tuple[ProcessSpec, ...]:
        """The services, each told its surroundings through the environment."""
        options = self._options
        common = {
            **self._broker.broker.service_environment(),
            "TRUEWARD_POSTGRES_DSN": self._postgres.dsn,
            "TRUEWARD_TOPIC_PREFIX": options.topic_prefix,
            "TRUEWARD_CLOCK": options.clock,
            "TRUEWARD_SNAPSHOT_INTERVAL": options.snapshot_interval,
            "TRUEWARD_HTTP_HOST": LOOPBACK,
            "TRUEWARD_LOG_FORMAT": os.environ.get("TRUEWARD_LOG_FORMAT", "console"),
            "PYTHONUNBUFFERED": "1",
        }
        ports = {name: free_port() for name in SERVICES} | {"gateway": self._http_port}
        neighbours = {
            f"TRUEWARD_{name.upper()}_URL": f"http://{LOOPBACK}:{port}"
            for name, port in ports.items()
            if name != "gateway"
        }
        return tuple(
            ProcessSpec(
                name=name,
                argv=(*command, name),
                env={
                    **common,
                    "TRUEWARD_HTTP_PORT": str(port),
                    **(neighbours if name == "gateway" else {}),
                },
                ready=partial(http_answers_ok, f"http://{LOOPBACK}:{port}/health/ready"),
                usage_exit_code=USAGE_EXIT_CODE,
            )
            for name, port in ports.items()
        )

    def _write_endpoints(self) -> None:
        """Say where everything is, once everything has answered."""
        if not self._complete:
            return
        endpoints.write(
            self._data_dir / endpoints.FILE_NAME,
            {
                "http": self._http,
                "kafka": self._broker.broker.bootstrap_servers,
                "postgres": self._postgres.dsn,
                "broker": self._broker.broker.name,
                "topic_prefix": self._options.topic_prefix,
                "processes": self.supervisor.pids,
            },
        )


def _printer(console: Console) -> Say:
    """Prints lines with the speaker's name before them, in its colour on a terminal."""
    width = max(map(len, COLOURS))
    readers_left = False

    def say(speaker: str, text: str) -> None:
        nonlocal readers_left
        if readers_left:
            return
        prefix = (f"{speaker:<{width}} | ", COLOURS.get(speaker, ""))
        try:
            console.print(Text.assemble(prefix, Text.from_ansi(text)))
        except BrokenPipeError:
            readers_left = True  # `trueward up | head`: the stack goes on, unheard

    return say


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Hold the folder for this process; the kernel lets go of it when the process ends, however it ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "up.lock").open("a+", encoding="ascii")
    except OSError as error:
        raise UsageError(f"{data_dir} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise UsageError(f"{data_dir} is in use by another `trueward up` (pid {holder})") from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


@contextlib.contextmanager
def _signals(supervisor: Supervisor) -> Iterator[asyncio.Event]:
    """An event that the first signal to stop sets; the second kills the processes."""
    told = asyncio.Event()

    def handle() -> None:
        if told.is_set():
            supervisor.kill()
        told.set()

    loop = asyncio.get_running_loop()
    handled = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it is ignored, and stays so
        handled.append(signal.SIGHUP)
    for number in handled:
        loop.add_signal_handler(number, handle)
    try:
        yield told
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
