"""The last release, as processes of its own beside the present code: what a rolling upgrade runs side by side."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from deploy.local.processes import free_port

ROOT = Path(__file__).parents[1]


def unpack_last_release(folder: Path) -> str:
    """Put the code of the newest tag that this commit descends from into a folder; returns the tag.

    Skips the test where there is none to be had: no git, no tag, or a shallow clone that ends before it.
    """
    tag = _git("describe", "--tags", "--abbrev=0")
    if tag is None:
        pytest.skip("needs the last release: git is away, or no tag can be reached from this commit")
    name = tag.decode().strip()
    archive = _git("archive", "--format=tar", name)
    if archive is None:
        pytest.skip(f"needs the code of {name}, which this clone does not hold")
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return name


def _git(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass
class ServiceOf:
    """A service of the code in ``folder``, in a process of its own."""

    folder: Path
    name: str
    environment: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it. Its folder comes first on Python's path, before the package that is installed."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("TRUEWARD_", "PYTHON"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trueward", "service", self.name],
                cwd=self.folder,
                env={
                    **bare,
                    **self.environment,
                    "TRUEWARD_HTTP_PORT": str(self.port),
                    "PYTHONPATH": str(self.folder),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def readiness(self) -> tuple[int, str]:
        """Status and text of ``/health/ready``; 0 where nobody answers. A process that has ended is an error."""
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} of {self.folder.name} ended:\n{self.words()}"
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"http://127.0.0.1:{self.port}/health/ready", timeout=10)
        except httpx.TransportError as error:
            return 0, repr(error)
        return answer.status_code, answer.text

    def words(self) -> str:
        """What it logged, the end of it."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def terminate(self) -> None:
        """Ask it to stop."""
        assert self.process is not None
        self.process.terminate()

    def exit_code(self) -> int:
        """Wait for its end."""
        assert self.process is not None
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """End it whatever it does; nothing happens where it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
