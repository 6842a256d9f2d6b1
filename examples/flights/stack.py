"""The local stack under the demo: ``trueward up`` as a process of its own, and the trainer beside it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

STARTS_WITHIN_SECONDS = 180
STOPS_WITHIN_SECONDS = 30
HOUSE = Path(__file__).resolve().parents[2]

# Loaded before any fork: between fork and exec nothing may be imported or looked up.
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
ENDPOINTS = "endpoints.json"


class StackError(RuntimeError):
    """The local stack did not start, or has ended; the message holds the last lines it wrote."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the local stack answers, as it says itself."""

    http: str
    kafka: str
    broker: str
    processes: dict[str, int]

    @classmethod
    def read(cls, data_dir: Path) -> Endpoints:
        """What the stack of ``data_dir`` says now; a process that was restarted has a new pid there."""
        said = json.loads((data_dir / ENDPOINTS).read_bytes())
        return cls(said["http"], said["kafka"], said["broker"], said["processes"])


@dataclass(slots=True)
class Child:
    """A process of the demo's own, writing to a log file."""

    process: asyncio.subprocess.Process
    log: Path

    @classmethod
    async def start(cls, *arguments: str, log: Path) -> Child:
        """Start a Python program; its output goes to ``log``."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=HOUSE,
                # Ctrl-C is for the demo, which stops its children in order.
                start_new_session=True,
                preexec_fn=_end_with_the_demo,
            )
        return cls(process, log)

    def last_lines(self, count: int = 12) -> str:
        """The end of what it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    async def stop(self) -> None:
        """Ask it to stop; after :data:`STOPS_WITHIN_SECONDS` no longer ask."""
        if self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOPS_WITHIN_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def local_stack(data_dir: Path, options: Sequence[str]) -> AsyncIterator[Child]:
    """Run ``trueward up`` until the block ends; inside it, everything answers."""
    command = ("-m", "trueward", "up", "--clock", "event", "--snapshot-interval", "1d")
    child = await Child.start(*command, "--data-dir", str(data_dir), *options, log=data_dir / "up.log")
    try:
        await _answering(child, data_dir)
        yield child
    finally:
        await child.stop()


async def _answering(child: Child, data_dir: Path) -> None:
    """Wait for the endpoints, which ``up`` writes when everything answers. Raises :class:`StackError`."""
    endpoints = data_dir / ENDPOINTS
    try:
        async with asyncio.timeout(STARTS_WITHIN_SECONDS):
            while not endpoints.exists():
                if child.process.returncode is not None:
                    raise StackError(f"trueward up has ended:\n{child.last_lines()}")
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        waited = f"after {STARTS_WITHIN_SECONDS} s trueward up does not answer"
        raise StackError(f"{waited}:\n{child.last_lines()}") from error


@asynccontextmanager
async def trainer(kafka: str, artifacts: Path, seed: int, log: Path) -> AsyncIterator[Supervised]:
    """Run the trainer until the block ends; a trainer that dies is started again."""
    arguments = ("--kafka", kafka, "--artifacts", str(artifacts), "--seed", str(seed))
    supervised = Supervised(("-m", "examples.flights.trainer", *arguments), log)
    await supervised.start()
    watching = asyncio.create_task(supervised.keep_running())
    try:
        yield supervised
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await supervised.stop()


class Supervised:
    """A process that is started again whenever it ends."""

    def __init__(self, arguments: tuple[str, ...], log: Path) -> None:
        self._arguments = arguments
        self._log = log
        self._child: Child | None = None
        self.restarts = 0

    async def start(self) -> None:
        """Start the process."""
        self._child = await Child.start(*self._arguments, log=self._log)

    async def keep_running(self) -> None:
        """Start it again, a second after it has ended, until cancelled."""
        while self._child is not None:
            await self._child.process.wait()
            await asyncio.sleep(1)
            self.restarts += 1
            await self.start()

    async def stop(self) -> None:
        """Stop it for good."""
        if self._child is not None:
            await self._child.stop()

    def kill(self) -> int:
        """End it as a crash would; returns the pid that it had."""
        if self._child is None:
            raise StackError("the process was never started")
        kill(self._child.process.pid)
        return self._child.process.pid


def _end_with_the_demo() -> None:
    """Between fork and exec: have the kernel ask the child to stop when the demo dies without a word."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def kill(pid: int) -> None:
    """End a process as a crash would: without a word."""
    os.kill(pid, signal.SIGKILL)
