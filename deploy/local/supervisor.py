"""Keeps processes running: starts them stage by stage, restarts what dies, stops all in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterable
from typing import Final

from deploy.local.processes import PROBE_INTERVAL_S, ProcessSpec, popen_arguments
from shared.errors import TruewardError, UsageError

FIRST_DELAY_S: Final = 0.25
LONGEST_DELAY_S: Final = 5.0
HEALTHY_AFTER_S: Final = 10.0
REMINDER_S: Final = 15.0
LONGEST_LINE_BYTES: Final = 65_536
LAST_OUTPUT_S: Final = 1.0

Say = Callable[[str, str], None]
"""Told who speaks (a process, or the supervisor by its own name) and one line of text."""
SUPERVISOR: Final = "up"


def restart_delay_s(failures: int) -> float:
    """How long to wait before a start, after so many failures in a row (from 1): doubling, at most 5 s."""
    doublings = min(failures - 1, 10)  # far past the longest delay, and no float overflows
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**doublings)


def describe_exit(code: int) -> str:
    """How a process ended, in words: negative codes are signals."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"


class Child:
    """One process, kept running from ``start`` until ``stop``."""

    def __init__(self, spec: ProcessSpec, supervisor: Supervisor, say: Say) -> None:
        self.spec = spec
        self.failures = 0
        self.last_line = "it said nothing"
        self.last_code: int | None = None
        self._supervisor = supervisor
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, that of the last one while none runs; None before the first start."""
        return self._process.pid if self._process is not None else None

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.returncode is None

    def start(self) -> None:
        """Begin to keep it running; harmless when it is kept already."""
        if self._task is None:
            self.failures = 0
            self._task = asyncio.create_task(self._keep_running(), name=f"keep {self.spec.name} running")

    async def stop(self) -> None:
        """Stop it, gently at first, and keep it stopped."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def kill(self) -> None:
        """Kill its process now; ``stop`` then has nothing to wait for."""
        if self._process is not None and self.is_running:
            self._process.kill()

    async def wait_ready(self, *, first: bool = False) -> None:
        """Wait until its probe answers, through as many starts as it takes.

        Raises ``TruewardError`` when an essential one ends before its ``first`` readiness.
        """
        while not (self.is_running and await self.spec.ready()):
            if first and self.spec.essential and self.failures:
                raise TruewardError(f"{self.spec.name} does not start: {self.last_line}")
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _keep_running(self) -> None:
        while True:
            began = time.monotonic()
            how = await self._run_once()
            if self._supervisor.is_stopping:
                return
            if self.last_code is not None and self.last_code == self.spec.usage_exit_code:
                self._supervisor.give_up(UsageError(f"{self.spec.name} cannot run like this: {self.last_line}"))
                return
            self.failures = 1 if time.monotonic() - began > HEALTHY_AFTER_S else self.failures + 1
            delay = restart_delay_s(self.failures)
            self._say(SUPERVISOR, f"{self.spec.name} {how}; starting it again in {delay:g} s")
            if self.spec.forgets:
                await self._supervisor.pause_after(self)
            await asyncio.sleep(delay)

    async def _run_once(self) -> str:
        """Run it until it ends; returns how that went. When cancelled, the process is ended first."""
        self.last_code = None
        try:
            if self.spec.before_start is not None:
                await self.spec.before_start()
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                **popen_arguments(self.spec),
            )
        except (OSError, TruewardError) as error:
            self.last_line = str(error)
            return f"could not be started ({error})"
        self._supervisor.child_started(self)
        output = asyncio.create_task(self._pass_on_output(self._process))
        try:
            self.last_code = await self._process.wait()
            return f"ended ({describe_exit(self.last_code)})"
        finally:
            await self._end(self._process)
            # A grandchild may hold the pipe open; what the process itself said has arrived by then.
            await asyncio.wait([output], timeout=LAST_OUTPUT_S)
            output.cancel()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self.spec.stop_signal)
        try:
            async with asyncio.timeout(self.spec.stop_timeout_s):
                await process.wait()
        except TimeoutError:
            self._say(SUPERVISOR, f"{self.spec.name} did not stop in {self.spec.stop_timeout_s:g} s: killed")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _pass_on_output(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        rest = b""
        while chunk := await process.stdout.read(LONGEST_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._speak(line)
        if rest:
            self._speak(rest)

    def _speak(self, line: bytes) -> None:
        text = line.decode("utf-8", errors="replace").rstrip()
        if text:
            if not text[0].isspace():  # a stack trace's frames say less than what stands above them
                self.last_line = text
            self._say(self.spec.name, text)


class Supervisor:
    """Processes in stages: a stage starts when the one before it is ready, and stops before it.

    ``changed`` is called whenever a process was started, with none of them necessarily ready.
    """

    def __init__(self, say: Say, changed: Callable[[], None] = lambda: None) -> None:
        self._say = say
        self._changed = changed
        self._stages: list[list[Child]] = []
        self._resuming: dict[Child, asyncio.Task[None]] = {}
        self._given_up: TruewardError | None = None
        self._has_given_up = asyncio.Event()
        self.is_stopping = False

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by name; of a process that is about to be started again, the old one."""
        return {child.spec.name: child.pid for child in self._children() if child.pid is not None}

    async def start(self, specs: Iterable[ProcessSpec]) -> None:
        """Start a stage, and wait until all of it is ready, however long that takes.

        Raises ``TruewardError`` when an essential process ends before it was ready.
        """
        stage = [Child(spec, self, self._say) for spec in specs]
        self._stages.append(stage)
        for child in stage:
            child.start()
        waiting = {asyncio.create_task(child.wait_ready(first=True)): child.spec.name for child in stage}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, timeout=REMINDER_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del waiting[task]
                    task.result()
                if not done:
                    self._say(SUPERVISOR, f"still waiting for {', '.join(sorted(waiting.values()))}")
        finally:
            for task in waiting:
                task.cancel()

    def give_up(self, reason: TruewardError) -> None:
        """Told by a child that no further start of it would help."""
        self._given_up = self._given_up or reason
        self._has_given_up.set()

    async def watch(self) -> None:
        """Wait, for ever if all goes well. Raises ``TruewardError`` once a process cannot be helped by a start."""
        await self._has_given_up.wait()
        if self._given_up is not None:
            raise self._given_up

    async def stop(self) -> None:
        """Stop everything, the last stage first, for good."""
        for task in list(self._resuming.values()):
            task.cancel()
        self.is_stopping = True
        for stage in reversed(self._stages):
            await asyncio.gather(*(child.stop() for child in stage))

    def kill(self) -> None:
        """Kill every process now, for someone who does not want to wait for ``stop``."""
        for child in self._children():
            child.kill()

    def child_started(self, child: Child) -> None:
        """Told by a child that its process runs: those that were paused for it go on when it is ready."""
        self._changed()
        if child.spec.forgets and child.failures and child not in self._resuming:
            self._resuming[child] = asyncio.create_task(self._resume_after(child))

    async def pause_after(self, child: Child) -> None:
        """Stop what was started after ``child``: what it knew of the state of ``child`` holds no more."""
        await asyncio.gather(*(follower.stop() for follower in self._followers(child)))

    async def _resume_after(self, child: Child) -> None:
        try:
            await child.wait_ready()
        finally:
            del self._resuming[child]
        for follower in self._followers(child):
            if not self.is_stopping:
                follower.start()

    def _followers(self, child: Child) -> list[Child]:
        """The children of later stages."""
        position = next((i for i, stage in enumerate(self._stages) if child in stage), len(self._stages))
        return [follower for stage in self._stages[position + 1 :] for follower in stage]

    def _children(self) -> list[Child]:
        return [child for stage in self._stages for child in stage]
