"""A service's shell: its port, its health, its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from socket import IPPROTO_TCP, TCP_NODELAY, socket

import httpx
import pytest
from structlog.testing import capture_logs

from shared import logs
from shared.errors import InputLostError, ServiceExit, TruewardError, UsageError
from shared.service import Health, Worker, bind, health_app, run, serve
from shared.settings import Settings
from tests.kernel_world import definition


@pytest.fixture
def listening() -> Iterator[socket]:
    with bind("127.0.0.1", 0) as found:
        yield found


def port_of(listening: socket) -> int:
    return int(listening.getsockname()[1])


def test_a_port_is_taken_from_the_moment_it_is_bound(listening: socket) -> None:
    """Two services that start at the same moment must not both believe that it is theirs."""
    with pytest.raises(
        UsageError, match=rf"cannot listen on 127.0.0.1:{port_of(listening)}: Address already in use"
    ):
        bind("127.0.0.1", port_of(listening))


def test_an_address_that_is_not_ours_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1:"):
        bind("192.0.2.1", 0)


async def test_what_is_written_in_two_parts_does_not_wait_for_an_acknowledgement(listening: socket) -> None:
    """Uvicorn writes an answer's head and its body apart: with Nagle's algorithm the body comes 40 ms later."""
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def look(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(writer.get_extra_info("socket").getsockopt(IPPROTO_TCP, TCP_NODELAY))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(look, sock=listening.dup()):
        _, client = await asyncio.open_connection("127.0.0.1", port_of(listening))
        assert await accepted == 1
        client.close()
        await client.wait_closed()


async def served(listening: socket, work: Callable[[], Awaitable[None]] | None) -> asyncio.Task[None]:
    """The health's HTTP, once it answers."""
    task = asyncio.create_task(serve(health_app(Health()), listening, work))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(listening)}") as client:
        answer = await client.get("/health/live", timeout=10)
        assert (answer.status_code, answer.json()) == (200, {"status": "live"})
        answer = await client.get("/health/ready", timeout=10)
        assert (answer.status_code, answer.json()["detail"]) == (503, "waiting for PostgreSQL")
        answer = await client.get("/metrics", timeout=10)
        assert answer.status_code == 200
        assert "trueward_records_total" in answer.text
    return task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(listening: socket, number: signal.Signals) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    task = await served(listening, work)
    os.kill(os.getpid(), number)
    await asyncio.wait_for(task, timeout=10)
    assert ended.is_set()


async def test_what_ends_the_work_ends_the_service(listening: socket) -> None:
    gone = asyncio.Event()

    async def work() -> None:
        await gone.wait()
        raise InputLostError("the topic is another one")

    task = await served(listening, work)
    gone.set()
    with pytest.raises(InputLostError, match="another one"):
        await asyncio.wait_for(task, timeout=10)


@pytest.mark.parametrize(("kind", "code"), [(InputLostError, 1), (UsageError, 2)])
def test_an_expected_error_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, kind: type[TruewardError], code: int
) -> None:
    async def lost(_worker: Worker) -> None:
        raise ExceptionGroup("parts", [kind("the topic is another one")])

    monkeypatch.setattr(Worker, "run", lost)
    monkeypatch.setattr(logs, "configure", lambda *_arguments, **_options: None)
    with capture_logs() as lines, pytest.raises(ServiceExit) as ended:
        run(definition(), Settings(http_port=0))
    assert ended.value.code == code
    assert [(line["event"], line["error"]) for line in lines] == [("stopped", "the topic is another one")]


def test_an_error_that_nobody_expected_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_worker: Worker) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Worker, "run", broken)
    monkeypatch.setattr(logs, "configure", lambda *_arguments, **_options: None)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run(definition(), Settings(http_port=0))
