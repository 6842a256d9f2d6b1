"""One child process: what it is, how it is started so that it never outlives its parent, when it is ready."""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.errors import TruewardError, UsageError

LOOPBACK: Final = "127.0.0.1"
PORTS: Final = range(12_000, 32_000)
PROBE_INTERVAL_S: Final = 0.05

Probe = Callable[[], Awaitable[bool]]
"""Asks once whether a process does its work; answers False, never an error, when it does not yet."""


async def always_ready() -> bool:
    """The probe of a process that is ready as soon as it runs."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user and group that a process runs as."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A process to run: its name in the output, its command, and how to treat it.

    ``env`` is added to the parent's environment. ``stop_signal`` asks it to end; after ``stop_timeout_s`` seconds
    it is killed. ``death_signal`` is what the kernel sends it when its parent dies without a word.
    ``before_start`` runs before every start of it, the first included. ``essential`` says that nothing can go on
    when it does not come up at first. ``forgets`` says that it loses its state when it ends, so that what was
    started after it must start anew too. ``usage_exit_code`` is how it ends when it is told something wrong, which
    no further start would mend.
    """

    name: str
    argv: tuple[str, ...]
    ready: Probe = always_ready
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 15.0
    death_signal: signal.Signals = signal.SIGKILL
    before_start: Callable[[], Awaitable[None]] | None = None
    essential: bool = False
    forgets: bool = False
    usage_exit_code: int | None = None


# Loaded before any fork: between fork and exec nothing may be imported or looked up.
_PR_SET_PDEATHSIG: Final = 1
_prctl: Callable[..., int] | None = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def _dies_with(parent_pid: int, death_signal: int) -> Callable[[], None]:
    """What a child does between fork and exec: ask the kernel for a signal when its parent dies.

    Handlers and ``finally`` blocks of the parent do not run on ``kill -9``; this holds even then. The kernel
    watches the *thread* that forked: start processes from a thread that lives as long as they should.
    """
    prctl = _prctl

    def before_exec() -> None:
        if prctl is None:
            return
        prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent_pid:  # the parent died before the request was made
            os._exit(1)

    return before_exec


def popen_arguments(spec: ProcessSpec) -> dict[str, Any]:
    """Keyword arguments for ``subprocess.Popen`` and ``asyncio.create_subprocess_exec`` alike.

    The child gets a session of its own, so that Ctrl-C reaches the parent alone, which stops all in order.
    """
    arguments: dict[str, Any] = {
        "env": {**os.environ, **spec.env},
        "cwd": spec.cwd,
        "stdin": subprocess.DEVNULL,
        "start_new_session": True,
        "preexec_fn": _dies_with(os.getpid(), spec.death_signal),
    }
    if spec.account is not None:
        arguments |= {
            "user": spec.account.uid,
            "group": spec.account.gid,
            "extra_groups": [],
            "cwd": spec.cwd or "/",
        }
    return arguments


class ManagedProcess:
    """A child process whose output goes to a file; for tests and for whoever needs no supervisor."""

    def __init__(self, spec: ProcessSpec, log_path: Path) -> None:
        self.spec = spec
        self.log_path = log_path
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id. Raises ``TruewardError`` when it was never started."""
        if self._popen is None:
            raise TruewardError(f"{self.spec.name} was not started")
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, a signal as a negative number; None while it runs, or before it was started."""
        return None if self._popen is None else self._popen.poll()

    def start(self) -> None:
        """Start it; says nothing of whether it is ready. Raises ``TruewardError`` when it cannot be executed."""
        with self.log_path.open("ab") as log:
            try:
                self._popen = subprocess.Popen(  # noqa: S603 - the command is this package's own
                    self.spec.argv, stdout=log, stderr=subprocess.STDOUT, **popen_arguments(self.spec)
                )
            except OSError as error:
                raise TruewardError(f"{self.spec.name} cannot be started: {error}") from error

    async def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Wait for its probe. Raises ``TruewardError`` when it ends first, or takes longer than ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while not await self.spec.ready():
            if self._popen is None or self._popen.poll() is not None:
                raise TruewardError(f"{self.spec.name} ended before it was ready: {self.last_words()}")
            if time.monotonic() > deadline:
                raise TruewardError(f"{self.spec.name} was not ready in {timeout_s:g} s: {self.last_words()}")
            await asyncio.sleep(PROBE_INTERVAL_S)

    def last_words(self) -> str:
        """The last line that it wrote."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """Ask it to end, and kill it when it does not; harmless when it has ended already."""
        if self._popen is None or self._popen.poll() is not None:
            return
        self._popen.send_signal(self.spec.stop_signal)
        try:
            self._popen.wait(self.spec.stop_timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it without warning (SIGKILL), and wait until it is gone."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()


def free_port() -> int:
    """A TCP port that is free on the loopback address now; take it soon.

    It lies below the range that systems give to outgoing connections: a service that is restarted finds its port
    still free, not taken meanwhile by some client.
    """
    for _ in range(1000):
        port = PORTS.start + secrets.randbelow(len(PORTS))
        if _is_free(port):
            return port
    raise TruewardError("no free TCP port was found")


def claim_port(port: int, *, what: str, option: str) -> int:
    """``port`` if it is free, or a free one for 0. Raises ``UsageError`` when something listens on it."""
    if port == 0:
        return free_port()
    if not _is_free(port):
        raise UsageError(f"port {port} for {what} is in use: choose another with {option}")
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        # As servers do it: a port whose last connections linger in TIME_WAIT is free all the same.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
