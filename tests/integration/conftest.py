"""For the gateway and the command line: a world made by the real handlers, and commands as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from services.gateway.app import create_app
from services.gateway.settings import GatewaySettings
from tests.gateway_world import populate

NOBODY = "127.0.0.1:1"
"""An address where nothing answers: port 1 is reserved."""
START_SECONDS = 30


@pytest.fixture(scope="session")
def world_template(postgres_server: str, template_database: str) -> Iterator[str]:
    """The name of a populated database that nobody connects to, to be cloned."""
    name = f"{template_database}_world"
    _execute(postgres_server, f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"')
    try:
        asyncio.run(populate(_sibling(postgres_server, name)))
        yield name
    finally:
        _execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def world_dsn(postgres_server: str, world_template: str, database_dsn: str) -> Iterator[str]:
    """A populated database of the test's own."""
    name = f"{database_dsn.rpartition('/')[2]}_world"
    _execute(postgres_server, f'CREATE DATABASE "{name}" TEMPLATE "{world_template}"')
    try:
        yield _sibling(postgres_server, name)
    finally:
        _execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def shared_world_dsn(postgres_server: str, world_template: str) -> Iterator[str]:
    """A populated database for every test that changes nothing in it."""
    name = f"{world_template}_shared"
    _execute(postgres_server, f'CREATE DATABASE "{name}" TEMPLATE "{world_template}"')
    try:
        yield _sibling(postgres_server, name)
    finally:
        _execute(postgres_server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def reading(shared_world_dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway on the populated world that the tests share, without a broker."""
    async with _gateway(shared_world_dsn) as client:
        yield client


@pytest.fixture
async def reading_own(world_dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway on ``world_dsn``, which the test may change."""
    async with _gateway(world_dsn) as client:
        yield client


@asynccontextmanager
async def _gateway(dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(GatewaySettings(postgres_dsn=dsn, kafka_bootstrap_servers=NOBODY))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        yield client


Start = Callable[..., "RunningCommand"]


class RunningCommand:
    """``trueward`` with arguments, as a process of its own."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trueward", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_bare_environment(), **environment},
            )

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def wait_until_answers(self, url: str) -> None:
        """Wait for HTTP, or fail with what the process said."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                httpx.get(f"{url}/health/live", timeout=2, trust_env=False)
            except httpx.HTTPError:
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"nothing answers at {url}; it said:\n{self.said()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=START_SECONDS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``trueward`` with arguments; it is killed afterwards if it still runs."""
    running: list[RunningCommand] = []

    def begin(*arguments: str, **environment: str) -> RunningCommand:
        command = RunningCommand(arguments, environment, tmp_path / f"command-{len(running)}.log")
        running.append(command)
        return command

    yield begin
    for command in running:
        command.process.kill()
        command.process.wait()


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``trueward`` with arguments to its end."""

    def finish(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "trueward", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**_bare_environment(), **environment},
        )

    return finish


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TRUEWARD_")}


def _execute(server: str, statement: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(statement.encode())


def _sibling(server: str, database: str) -> str:
    base, mark, options = server.partition("?")
    return f"{base.rpartition('/')[0]}/{database}{mark}{options}"
