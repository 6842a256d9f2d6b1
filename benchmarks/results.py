"""The figures, their targets, and what was measured of them: ``results.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

RESULTS = Path(__file__).with_name("results.json")

Run = Mapping[str, float]
"""What one interleaved run gave, by name; names say the unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure: what it compares, and the target that its value should reach, or keep below.

    ``also_below``: a number of its runs, and what the median of that must stay below.
    """

    name: str
    what: str
    target: float
    sense: Literal["at least", "at most"]
    measure: Literal["ratio", "MB", "s"] = "ratio"
    also_below: tuple[str, float] | None = None

    @property
    def unit(self) -> str:
        """The value's unit, and which way the target lies."""
        return f"{self.measure}, {self.sense}"

    def is_met_by(self, value: float, runs: Iterable[Run]) -> bool:
        """Whether value and runs reach the target."""
        if self.also_below is not None and middle(runs, self.also_below[0]) >= self.also_below[1]:
            return False
        return value >= self.target if self.sense == "at least" else value <= self.target

    def target_in_words(self) -> str:
        unit = "" if self.measure == "ratio" else f" {self.measure}"
        also = "" if self.also_below is None else f", {self.also_below[0]} below {self.also_below[1]:g}"
        return f"{self.sense} {self.target:g}{unit}{also}"


def _drain(peer: str, what: str, target: float) -> Figure:
    return Figure(
        name=f"drain_vs_{peer}", what=f"events/s drained, against {what}", target=target, sense="at least"
    )


FIGURES = (
    _drain("bare_aiokafka", "a bare aiokafka drain of the same topics (no decode)", 0.4),
    _drain("quixstreams", "Quix Streams, exactly once", 20),
    _drain("faust", "Faust", 30),
    _drain("bytewax", "Bytewax", 6),
    _drain("pathway", "Pathway with persistence", 2),
    _drain("flink", "Flink SQL with checkpoints", 3),
    Figure(
        name="alert_p99_vs_three_hops",
        what="p99 from the boundary that includes a label to its alert event, against three bare Kafka hops",
        target=3,
        sense="at most",
    ),
    Figure(
        name="pending_10m_vs_empty",
        what="events/s drained with 10 million pending predictions in the store, against an empty store",
        target=0.85,
        sense="at least",
    ),
    Figure(
        name="cpu_per_event_8_vs_1",
        what="CPU seconds an event (metrics service and PostgreSQL), 8 instances against 1",
        target=1.25,
        sense="at most",
    ),
    Figure(
        name="metrics_rss_mb",
        what="peak resident memory of the metrics service while draining",
        target=300,
        sense="at most",
        measure="MB",
    ),
    Figure(
        name="monitoring_vs_constant_body",
        what="requests/s of `GET /monitoring`, against the same server returning a constant body of that size",
        target=0.6,
        sense="at least",
        also_below=("p99_ratio", 2),
    ),
    Figure(
        name="constant_body_vs_raw_asgi",
        what="requests/s of that constant body, against a raw ASGI app on granian",
        target=0.5,
        sense="at least",
    ),
    Figure(
        name="trend_p99_vs_monitoring",
        what="p99 of `GET /monitoring/trend` over 90 days of minute snapshots, against `GET /monitoring`",
        target=2,
        sense="at most",
    ),
    Figure(
        name="snapshot_10k_models_s",
        what="from a boundary to the last of 10,000 models' snapshots published",
        target=5,
        sense="at most",
        measure="s",
    ),
)
NAMES = tuple(figure.name for figure in FIGURES)


def figure_named(name: str) -> Figure:
    """Raises ``KeyError`` for a name that is no figure's."""
    return {figure.name: figure for figure in FIGURES}[name]


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure's value and the runs that it is of."""

    value: float
    runs: tuple[Run, ...]


def middle(runs: Iterable[Run], name: str) -> float:
    """The median of one of the runs' numbers."""
    return median(run[name] for run in runs)


def ratio(runs: Iterable[Run], above: str, below: str) -> Measured:
    """The ratio of two medians."""
    kept = tuple(runs)
    return Measured(middle(kept, above) / middle(kept, below), kept)


def load(path: Path = RESULTS) -> dict[str, Any]:
    """What was measured before; empty where nothing was."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def save(measured: Mapping[str, Measured], path: Path = RESULTS) -> dict[str, Any]:
    """Put what was measured beside what was measured before; returns all of it."""
    found = load(path)
    for name, one in measured.items():
        figure = figure_named(name)
        found[name] = {
            "value": _rounded(one.value),
            "target": figure.target,
            "runs": [{key: _rounded(number) for key, number in run.items()} for run in one.runs],
            "unit": figure.unit,
        }
    ordered = {name: found[name] for name in NAMES if name in found}
    path.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")
    return ordered


def _rounded(number: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{number:.4g}")
