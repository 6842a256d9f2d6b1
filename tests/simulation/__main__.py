"""Campaigns: ``python -m tests.simulation --seeds 1000`` runs worlds 0 to 999, ``--seeds 17-17`` one of them.

Python's order of sets depends on a seed of its own, which is fixed here: a world is the same on every machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from tests import parts
from tests.simulation.workers import Report, campaign, show, systematic


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", default="200", help="how many worlds (200), or which (17-42)")
    parser.add_argument("--every-crash-point", action="store_true", help="crash once before every effect")
    parser.add_argument("--one-in", type=int, default=1, help="with --every-crash-point: before one in so many")
    parser.add_argument("--crash-point", type=int, help="crash before this effect alone")
    parser.add_argument("--show", action="store_true", help="print the whole history of each world")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--dsn", help="a PostgreSQL to use, with an administrator's rights; absent: its own")
    return parser.parse_args(arguments)


def seeds_of(text: str) -> range:
    """``200``: the first so many; ``17-42``: those."""
    first, dash, last = text.partition("-")
    return range(int(first), int(last) + 1) if dash else range(int(first))


def run(options: argparse.Namespace, dsn: str) -> int:
    seeds, begun = seeds_of(options.seeds), time.monotonic()
    if options.show:
        return show(dsn, seeds)
    if options.every_crash_point or options.crash_point is not None:
        report = Report()
        for seed in seeds:
            report.merge(systematic(dsn, seed, options.workers, options.crash_point, options.one_in))
    else:
        report = campaign(dsn, seeds, options.workers)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(report.faults.items()))
    print(  # noqa: T201 - what a person reads
        f"{report.worlds} worlds, {report.effects} effects, {report.faults.total()} faults ({told or 'none'}), "
        f"{len(report.failures)} failures, {time.monotonic() - begun:.0f} s"
    )
    return 1 if report.failures else 0


def main(arguments: Sequence[str]) -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        return subprocess.call([sys.executable, "-m", "tests.simulation", *arguments], env=environment)
    options = parse(arguments)
    if options.dsn is not None:
        return run(options, options.dsn)
    with parts.running_postgres() as (dsn, _line):
        return run(options, dsn)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
