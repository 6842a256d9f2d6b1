"""The supervisor on small real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from deploy.local.probes import http_answers_ok
from deploy.local.processes import LOOPBACK, ProcessSpec, free_port
from deploy.local.supervisor import Supervisor, describe_exit, restart_delay_s
from shared.errors import TruewardError, UsageError

HTTP_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass
print("serving", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
SLEEPER = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


class Said(list[tuple[str, str]]):
    """What the supervisor and its children said."""

    def __call__(self, speaker: str, text: str) -> None:
        self.append((speaker, text))

    async def until(self, text: str, *, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while sum(text in line for _, line in self) < times:  # noqa: ASYNC110 - it is told by no event
                await asyncio.sleep(0.02)


def python(name: str, program: str, *arguments: str, **more: object) -> ProcessSpec:
    return ProcessSpec(name=name, argv=(sys.executable, "-c", program, *arguments), **more)  # type: ignore[arg-type]


def server(name: str) -> ProcessSpec:
    port = free_port()
    ready = partial(http_answers_ok, f"http://{LOOPBACK}:{port}/health/ready")
    return python(name, HTTP_SERVER, str(port), ready=ready)


@pytest.mark.parametrize(
    ("failures", "delay"), [(1, 0.25), (2, 0.5), (3, 1.0), (4, 2.0), (5, 4.0), (6, 5.0), (60, 5.0), (5000, 5.0)]
)
def test_delay_doubles_and_never_exceeds_five_seconds(failures: int, delay: float) -> None:
    assert restart_delay_s(failures) == delay


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (2, "exit code 2"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_exit_is_described_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words


async def test_a_killed_child_is_started_again_and_it_is_said() -> None:
    said, changes = Said(), []
    supervisor = Supervisor(said, lambda: changes.append(dict(supervisor.pids)))
    try:
        await supervisor.start([server("one"), server("two")])
        before = dict(supervisor.pids)
        os.kill(before["one"], signal.SIGKILL)
        await said.until("serving", times=3)
        after = supervisor.pids
        assert after["one"] != before["one"]
        assert after["two"] == before["two"]
        assert ("up", "one ended (killed by SIGKILL); starting it again in 0.25 s") in said
        assert changes[-1] == after
    finally:
        await supervisor.stop()


async def test_a_child_that_keeps_failing_is_tried_again_after_longer_and_longer() -> None:
    said = Said()
    supervisor = Supervisor(said)
    started = asyncio.create_task(supervisor.start([python("broken", "raise SystemExit(3)", ready=_never)]))
    try:
        await said.until("broken ended (exit code 3)", times=3)
        delays = [line.rpartition(" in ")[2] for _, line in said]
        assert delays == ["0.25 s", "0.5 s", "1 s"]
    finally:
        started.cancel()
        await supervisor.stop()


async def test_an_essential_child_that_does_not_come_up_is_an_error_with_its_last_words() -> None:
    supervisor = Supervisor(Said())
    spec = python("broker", "import sys; sys.exit('no space left')", ready=_never, essential=True)
    try:
        with pytest.raises(TruewardError, match=r"^broker does not start: no space left$"):
            await supervisor.start([spec])
    finally:
        await supervisor.stop()


async def test_a_child_that_was_told_something_wrong_is_not_started_again() -> None:
    said = Said()
    supervisor = Supervisor(said)
    watching = asyncio.create_task(supervisor.watch())
    wrong = "import sys; print('no such clock'); sys.exit(2)"
    try:
        await supervisor.start([server("gateway")])
        starting = asyncio.create_task(
            supervisor.start([python("metrics", wrong, ready=_never, usage_exit_code=2)])
        )
        with pytest.raises(UsageError, match=r"^metrics cannot run like this: no such clock$"):
            await asyncio.wait_for(watching, 10)
        starting.cancel()
        assert not any("starting it again" in line for _, line in said)
    finally:
        await supervisor.stop()


async def test_a_command_that_does_not_exist_is_an_error_in_words() -> None:
    supervisor = Supervisor(Said())
    try:
        with pytest.raises(TruewardError, match="No such file"):
            await supervisor.start([ProcessSpec(name="broker", argv=("/no/such/program",), essential=True)])
    finally:
        await supervisor.stop()


async def test_stages_stop_in_reverse_order() -> None:
    stopped: list[str] = []
    program = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye', flush=True)))"
    )
    program += "; print('here', flush=True); time.sleep(60)"
    said = Said()

    def say(speaker: str, text: str) -> None:
        said(speaker, text)
        if text == "bye":
            stopped.append(speaker)

    supervisor = Supervisor(say)
    for name in ("postgres", "broker", "service"):
        await supervisor.start([python(name, program)])
    await said.until("here", times=3)
    await supervisor.stop()
    assert stopped == ["service", "broker", "postgres"]


async def test_a_child_that_does_not_stop_is_killed() -> None:
    said = Said()
    supervisor = Supervisor(said)
    await supervisor.start([python("stubborn", STUBBORN, stop_timeout_s=0.2)])
    await said.until("deaf")
    pid = supervisor.pids["stubborn"]
    await supervisor.stop()
    assert not psutil.pid_exists(pid)
    assert ("up", "stubborn did not stop in 0.2 s: killed") in said


async def test_kill_ends_a_stop_that_waits() -> None:
    said = Said()
    supervisor = Supervisor(said)
    await supervisor.start([python("stubborn", STUBBORN, stop_timeout_s=60)])
    await said.until("deaf")
    began = time.monotonic()
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    supervisor.kill()
    await stopping
    assert time.monotonic() - began < 5


async def test_stopping_while_a_restart_is_due_starts_nothing() -> None:
    said = Said()
    supervisor = Supervisor(said)
    await supervisor.start([python("brief", "pass")])
    await said.until("starting it again")
    await supervisor.stop()
    count = len(said)
    await asyncio.sleep(0.5)
    assert len(said) == count


async def test_a_broker_that_forgets_takes_what_came_after_it_along() -> None:
    """Its hook runs while the services are down, and they start when it is ready again."""
    said, states = Said(), []
    supervisor = Supervisor(said)

    async def reset() -> None:
        states.append(
            [name for name, pid in supervisor.pids.items() if psutil.pid_exists(pid) and name != "broker"]
        )

    broker = python("broker", SLEEPER, forgets=True, before_start=reset)
    try:
        await supervisor.start([broker])
        await supervisor.start([server("service")])
        before = supervisor.pids
        os.kill(before["broker"], signal.SIGKILL)
        await said.until("serving", times=2)
        assert states == [[], []]
        assert supervisor.pids["service"] != before["service"]
    finally:
        await supervisor.stop()


async def test_a_very_long_line_and_bytes_that_are_no_text_pass() -> None:
    said = Said()
    supervisor = Supervisor(said)
    program = (
        "import sys, time; w = sys.stdout.buffer; w.write(b'x' * 200_000 + b'\\xff\\n'); w.flush(); time.sleep(60)"
    )
    try:
        await supervisor.start([python("loud", program)])
        await said.until("\ufffd")
        assert sum(len(line) for speaker, line in said if speaker == "loud") == 200_001
    finally:
        await supervisor.stop()


async def test_children_die_with_a_parent_that_is_killed() -> None:
    program = f"""
import asyncio, sys
from deploy.local.processes import ProcessSpec
from deploy.local.supervisor import Supervisor
async def main():
    supervisor = Supervisor(lambda *_: None)
    await supervisor.start([ProcessSpec(name="child", argv=(sys.executable, "-c", {STUBBORN!r}))])
    print(supervisor.pids["child"], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    assert child.is_running()
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(5):
        # An orphan that nobody has reaped yet is dead all the same.
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


async def _never() -> bool:
    return False
