"""Campaigns on several processes. Each worker has a database of its own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simulation.campaign import WORLDS_OF_A_HISTORY, Laboratory, Verdict

LINES_SHOWN = 80
SYSTEMATIC_PORTION = 20


@dataclass
class Report:
    """What a campaign, or a part of one, came to."""

    worlds: int = 0
    effects: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.worlds += 1
        self.effects += verdict.effects
        self.faults.update(fault.kind for fault in verdict.struck)

    def merge(self, other: Report) -> None:
        self.worlds += other.worlds
        self.effects += other.effects
        self.faults += other.faults
        self.failures += other.failures


def run_seeds(dsn: str, seeds: Sequence[int]) -> Report:
    """The worlds of these seeds; a failing one is shrunk and told."""
    report = Report()
    with Laboratory(dsn, f"simulation_{os.getpid()}") as laboratory:
        for seed in seeds:
            verdict = laboratory.world(seed)
            report.add(verdict)
            if verdict.failure is not None:
                report.failures.append(tell(verdict, laboratory.shrink(verdict), f"SEEDS={seed}-{seed}"))
    return report


def run_crash_points(dsn: str, seed: int, points: Sequence[int]) -> Report:
    """The compact world of a seed, once for each point with a crash there."""
    report = Report()
    with Laboratory(dsn, f"simulation_{os.getpid()}") as laboratory:
        for point in points:
            verdict = laboratory.crash_at(seed, point)
            report.add(verdict)
            if verdict.failure is not None:
                how = f"SEEDS={seed}-{seed} ARGS='--crash-point {point}'"
                report.failures.append(tell(verdict, laboratory.shrink(verdict), how))
    return report


def find_crash_points(dsn: str, seed: int) -> list[int]:
    with Laboratory(dsn, f"simulation_{os.getpid()}") as laboratory:
        return laboratory.crash_points(seed)


def show(dsn: str, seeds: Iterable[int]) -> int:
    """Print what happens in the worlds of these seeds, line by line. Returns 1 where one fails."""
    failed = 0
    with Laboratory(dsn, f"simulation_{os.getpid()}") as laboratory:
        for seed in seeds:
            verdict = laboratory.world(seed)
            failed |= verdict.failure is not None
            print(*verdict.history, verdict.failure or "every promise kept", sep="\n")  # noqa: T201 - for people
    return int(failed)


def tell(verdict: Verdict, smallest: Verdict, replay: str) -> str:
    """A failure for people: what broke, how to see it again, and the smallest history in which it does."""
    faults = ", ".join(f"{fault.kind} at {fault.at} ({fault.seconds:g} s)" for fault in smallest.plan.faults)
    left_out = sorted(smallest.plan.history.without)
    return "\n".join(
        [
            f"FAILED: seed {verdict.seed}: {verdict.failure}",
            f"replay: make simulate {replay}",
            f"shrunk from {len(verdict.plan.faults)} faults to {len(smallest.plan.faults)}: {faults or 'none'}",
            f"without {len(left_out)} of its predictions; {len(smallest.history)} lines of history, the last:",
            f"it then says: {smallest.failure}",
            *smallest.history[-LINES_SHOWN:],
        ]
    )


def campaign(dsn: str, seeds: range, workers: int) -> Report:
    """All seeds, on as many processes; seeds that share a history stay together."""
    portions = list(_portions(seeds, WORLDS_OF_A_HISTORY * 2))
    with _pool(workers) as pool:
        return _merged(pool.map(run_seeds, [dsn] * len(portions), portions))


def systematic(dsn: str, seed: int, workers: int, point: int | None, one_in: int = 1) -> Report:
    """A crash before every effect of a compact world, or before one in so many; or before a single one."""
    with _pool(workers) as pool:
        points = [point] if point else pool.submit(find_crash_points, dsn, seed).result()[::one_in]
        portions = [
            points[start : start + SYSTEMATIC_PORTION] for start in range(0, len(points), SYSTEMATIC_PORTION)
        ]
        return _merged(pool.map(run_crash_points, [dsn] * len(portions), [seed] * len(portions), portions))


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def _portions(numbers: range, size: int) -> Iterator[range]:
    start = numbers.start
    while start < numbers.stop:
        # At multiples, so that worlds with one history are in one portion.
        stop = min((start // size + 1) * size, numbers.stop)
        yield range(start, stop)
        start = stop


def _merged(reports: Iterable[Report]) -> Report:
    total = Report()
    for report in reports:
        total.merge(report)
        print(  # noqa: T201 - likewise
            f"... {total.worlds} worlds, {total.faults.total()} faults, {len(total.failures)} failures", flush=True
        )
        for failure in report.failures:
            print(failure, flush=True)  # noqa: T201 - likewise
    return total
