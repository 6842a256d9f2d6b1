"""docs/performance.md: prose by hand, with tables between marks that are written here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.draining import Drained
from benchmarks.results import FIGURES

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
Results = Mapping[str, Mapping[str, Any]]
TITLES = {
    "pathway": "Pathway",
    "flink": "Flink SQL",
    "bytewax": "Bytewax",
    "quixstreams": "Quix Streams",
    "faust": "Faust",
}


def write(blocks: Mapping[str, str], page: Path = PAGE) -> None:
    """Put each block between its marks. Raises ``ValueError`` where the page has no such marks."""
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
        pattern = re.compile(f"({re.escape(begin)}\\n).*?({re.escape(end)})", re.DOTALL)
        literally = f"{block}\n".replace("\\", r"\\")
        text, count = pattern.subn(rf"\g<1>{literally}\g<2>", text)
        if count != 1:
            raise ValueError(f"{page.name} must have the mark {begin!r} once")
    page.write_text(text, encoding="utf-8")


def figures_block(results: Results) -> str:
    """Every figure with its target; one that was missed says so."""
    rows = []
    for figure in FIGURES:
        found = results.get(figure.name)
        value = "not measured" if found is None else f"**{found['value']:g}**"
        verdict = (
            "" if found is None else "met" if figure.is_met_by(found["value"], found["runs"]) else "**missed**"
        )
        unit = "" if figure.measure == "ratio" else f" {figure.measure}"
        rows.append((f"`{figure.name}`", figure.what, value + unit, figure.target_in_words(), verdict))
    return table(("figure", "what", "value", "target", ""), rows)


def drains_block(results: Results) -> str:
    """Who drained how fast, and how exactly."""
    rows = []
    bare = _runs(results, "drain_vs_bare_aiokafka")
    if bare:
        rows.append(("bare aiokafka", _rate(bare, "other_events_per_second"), "", "decodes nothing"))
        rows.append(("Trueward", _rate(bare, "events_per_second"), _memory(results), "every sum exact"))
    for peer, title in TITLES.items():
        runs = _runs(results, f"drain_vs_{peer}")
        if runs:
            memory = f"{median(run['other_peak_rss_mb'] for run in runs):,.0f} MB"
            rows.append((title, _rate(runs, "other_events_per_second"), memory, _exactness(runs)))
    return table(("who", "events/s", "peak memory", "exactness"), rows)


def details_block(results: Results) -> str:
    """The parts of figures that say more than one number."""
    lines = []
    for name, runs in ((figure.name, _runs(results, figure.name)) for figure in FIGURES):
        if not runs or name.startswith("drain_vs"):
            continue
        parts = ", ".join(f"{key} {median(run[key] for run in runs):,.4g}" for key in runs[0])
        lines.append(f"- `{name}` ({len(runs)} {'run' if len(runs) == 1 else 'runs, medians'}): {parts}")
    return "\n".join(lines) or "Nothing was measured yet."


def profile_block(shares: Mapping[str, float], drained: Drained) -> str:
    """Stages of the service's own time, and PostgreSQL's and the broker's beside them."""
    rows = [(stage, f"{share:.0%}", f"{share * drained.service_cpu:.1f}") for stage, share in shares.items()]
    rows += [
        ("the service, all of it", "100%", f"{drained.service_cpu:.1f}"),
        ("PostgreSQL", "", f"{drained.postgres_cpu:.1f}"),
        ("the broker", "", f"{drained.broker_cpu:.1f}"),
    ]
    return table(("stage", "of the service's time", "CPU seconds per million events"), rows)


def machine_block(description: Iterable[tuple[str, str]]) -> str:
    return table(("", ""), description)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _runs(results: Results, name: str) -> Sequence[Mapping[str, float]]:
    runs: Sequence[Mapping[str, float]] = results.get(name, {}).get("runs", ())
    return runs


def _rate(runs: Sequence[Mapping[str, float]], name: str) -> str:
    return f"{median(run[name] for run in runs):,.0f}"


def _memory(results: Results) -> str:
    found = results.get("metrics_rss_mb")
    return "" if found is None else f"{found['value']:,.0f} MB"


def _exactness(runs: Sequence[Mapping[str, float]]) -> str:
    wrong = max(run["other_wrong_minutes"] for run in runs)
    drift = max(run["other_error_drift"] for run in runs)
    counts = (
        "counts exact"
        if not wrong
        else f"{wrong:.0f} minutes wrong, in their counts or by more than 0.1 % of their sums"
    )
    return f"{counts}; sums of floats off by up to {drift:.0e}"
