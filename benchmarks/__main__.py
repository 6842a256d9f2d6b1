"""``python -m benchmarks``: measure every figure, or those that are named."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import (
    drains,
    http_load,
    latency,
    machine,
    parts,
    pending,
    profiling,
    report,
    results,
    snapshots,
)
from benchmarks.results import Measured
from benchmarks.session import FULL, QUICK, Scale, Session
from shared.errors import TruewardError, UsageError

Measure = Callable[[Session, Collection[str]], Awaitable[dict[str, Measured]]]

GROUPS: tuple[tuple[Collection[str], Measure], ...] = (
    (drains.NAMES, drains.measure),
    (pending.NAMES, lambda session, _: pending.measure(session)),
    (latency.NAMES, lambda session, _: latency.measure(session)),
    (http_load.NAMES, http_load.measure),
    (snapshots.NAMES, lambda session, _: snapshots.measure(session)),
)
"""Figures that are measured together, in this order."""


def main(
    only: Annotated[
        str | None, typer.Option(help="Figures to measure, with commas between them; `profile` is one more.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Little data, for errors and not for speed; writes no figures.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = FULL.rounds,
    results_file: Annotated[
        Path | None, typer.Option("--results", help="Where the figures go; default benchmarks/results.json.")
    ] = None,
) -> None:
    """Measure, and write benchmarks/results.json and the tables of docs/performance.md."""
    known = {*results.NAMES, profiling.NAME}
    wanted = set(only.split(",")) if only else known
    if wanted - known:
        raise typer.BadParameter(f"no such figure: {', '.join(sorted(wanted - known))}")
    try:
        asyncio.run(_run(wanted, QUICK if quick else replace(FULL, rounds=rounds), results_file))
    except TruewardError as error:
        sys.exit(f"benchmarks: {error}")


async def _run(wanted: Collection[str], scale: Scale, results_file: Path | None) -> None:
    begun = datetime.now(UTC)
    blocks: dict[str, str] = {}
    measured: dict[str, Measured] = {}
    async with parts.running_parts() as running:
        session = Session(running, scale)
        session.say(running.broker.line())
        session.say(running.postgres_line)
        blocks["machine"] = report.machine_block(
            [("measured", f"{begun:%Y-%m-%d}, by `make bench`"), *machine.description(running)]
        )
        if profiling.NAME in wanted:
            blocks |= await _profile(session)
        for names, measure in GROUPS:
            asked = [name for name in names if name in wanted]
            if asked:
                found = await measure(session, asked)
                measured |= found
                for name, one in found.items():
                    session.say(_line(name, one))
                if not scale.quick:  # at once: what was measured is kept, whatever comes after
                    results.save(found, results_file or results.RESULTS)
    session.say(f"measured in {(datetime.now(UTC) - begun).total_seconds():.0f} s")
    if scale.quick:
        if results_file is not None:
            results.save(measured, results_file)
        return
    kept = results.load(results_file or results.RESULTS)
    blocks |= {
        "figures": report.figures_block(kept),
        "drains": report.drains_block(kept),
        "details": report.details_block(kept),
    }
    report.write(blocks)


async def _profile(session: Session) -> dict[str, str]:
    try:
        shares, drained = await profiling.profile(session)
    except UsageError as error:
        if not session.scale.quick:
            raise
        session.say(f"profile skipped: {error}")
        return {}
    block = report.profile_block(shares, drained)
    session.say(block)
    return {"profile": block}


def _line(name: str, one: Measured) -> str:
    figure = results.figure_named(name)
    verdict = "met" if figure.is_met_by(one.value, one.runs) else "missed"
    return f"{name}: {one.value:.3g} ({figure.target_in_words()}: {verdict})"


if __name__ == "__main__":
    typer.run(main)
