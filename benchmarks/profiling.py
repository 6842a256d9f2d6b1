"""Where the time of a drain goes, stage by stage: py-spy's samples of the service, grouped by module."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.draining import Drained, service_drain
from benchmarks.session import Session
from shared.errors import UsageError

NAME = "profile"
PY_SPY = Path(__file__).with_name("tools") / ".venv" / "bin" / "py-spy"
SAMPLES_A_SECOND = 200

# The innermost frame that any of these begins decides; each names the end of a file's path, or a folder in it.
STAGES = {
    "fetch": (
        "aiokafka/",
        "faststream/",
        "shared/broker.py",
        "shared/records.py",
        "shared/reading.py",
        "shared/fetching.py",
    ),
    "decode and validate": (
        *("shared/decoding.py", "pydantic", "json/", "shared/contracts/"),
        *("metrics/hot/decoding.py", "metrics/hot/combinations.py", "metrics/domain/hot/times.py"),
    ),
    "join": (
        *("metrics/hot/gathering.py", "metrics/hot/looking_up.py", "metrics/hot/memory.py"),
        *("metrics/domain/hot/keys.py", "metrics/domain/hot/membership.py"),
        *("metrics/domain/hot/ruling.py", "metrics/domain/hot/states.py"),
        "metrics/hot/joining.py",
        "services/metrics/joining.py",
        "services/metrics/intake.py",
        "services/metrics/handlers.py",
        "metrics/domain/joining.py",
        "metrics/domain/identity.py",
        "metrics/domain/contributions.py",
        "metrics/domain/clock.py",
        "uuid.py",
    ),
    "aggregate": (
        "metrics/domain/hot/summing.py",
        "metrics/domain/sums.py",
        "metrics/domain/histogram.py",
        "metrics/domain/buckets.py",
        "metrics/domain/newest.py",
    ),
    "write": (
        "asyncpg/",
        "metrics/hot/copying.py",
        "services/metrics/store.py",
        "shared/inbox.py",
        "shared/consumer.py",
        "shared/effects.py",
        "shared/database.py",
    ),
    "publish": (
        "services/metrics/cutting.py",
        "services/metrics/clocks.py",
        "metrics/domain/figures.py",
        "metrics/domain/versions.py",
        "shared/outbox.py",
        "shared/publishing.py",
    ),
}
OTHER = "everything else"


async def profile(session: Session) -> tuple[dict[str, float], Drained]:
    """Shares of the service's own CPU time by stage, and the drain they are of. Needs ``make bench-peers``."""
    if not PY_SPY.exists():
        raise UsageError("py-spy is not installed: make bench-peers")
    samples = session.parts.folder / "samples.txt"

    @asynccontextmanager
    async def sampled(pid: int) -> AsyncIterator[None]:
        argv = (str(PY_SPY), "record", "--pid", str(pid), "--format", "raw", "--output", str(samples))
        recorder = await asyncio.create_subprocess_exec(
            *argv,
            *("--rate", str(SAMPLES_A_SECOND), "--duration", "unlimited", "--full-filenames"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            if recorder.returncode is None:
                recorder.send_signal(signal.SIGINT)
            await recorder.wait()

    drained = await service_drain(
        session.parts, await session.data(), meet_boundary=not session.scale.quick, meanwhile=sampled
    )
    text = await asyncio.to_thread(samples.read_text, "utf-8")
    return shares(text.splitlines()), drained


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Stage to its share of the samples, from folded stacks: ``frame;frame;frame count``, the outermost first."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        counts[stage_of(stack.split(";"))] += int(count)
    total = counts.total()
    return {stage: counts[stage] / total for stage in (*STAGES, OTHER)} if total else {}


def stage_of(frames: Iterable[str]) -> str:
    """The stage of the innermost frame that belongs to one."""
    for frame in reversed(list(frames)):
        path = frame.rpartition("(")[2].rpartition(":")[0]
        for stage, places in STAGES.items():
            if any(f"/{place}" in path or path.endswith(place) for place in places):
                return stage
    return OTHER
