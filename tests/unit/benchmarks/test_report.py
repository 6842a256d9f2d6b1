"""Results and what is written of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import profiling, report, results
from benchmarks.results import Measured

# As the plan names them; a reader of results.json relies on it.
NAMES = {
    "drain_vs_bare_aiokafka",
    "drain_vs_quixstreams",
    "drain_vs_faust",
    "drain_vs_bytewax",
    "drain_vs_pathway",
    "drain_vs_flink",
    "alert_p99_vs_three_hops",
    "pending_10m_vs_empty",
    "cpu_per_event_8_vs_1",
    "metrics_rss_mb",
    "monitoring_vs_constant_body",
    "constant_body_vs_raw_asgi",
    "trend_p99_vs_monitoring",
    "snapshot_10k_models_s",
}


def test_figures_have_their_names() -> None:
    assert set(results.NAMES) == NAMES


def test_a_figure_measured_anew_takes_the_place_of_the_old_one_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results.save({"metrics_rss_mb": Measured(250, ({"peak_rss_mb": 250},))}, file)
    results.save({"drain_vs_bare_aiokafka": results.ratio([{"a": 2.0, "b": 4.0}], "a", "b")}, file)
    results.save({"metrics_rss_mb": Measured(350.123, ({"peak_rss_mb": 350.123},))}, file)
    assert json.loads(file.read_text()) == {
        "drain_vs_bare_aiokafka": {
            "value": 0.5,
            "target": 0.4,
            "runs": [{"a": 2.0, "b": 4.0}],
            "unit": "ratio, at least",
        },
        "metrics_rss_mb": {"value": 350.1, "target": 300, "runs": [{"peak_rss_mb": 350.1}], "unit": "MB, at most"},
    }
    block = report.figures_block(results.load(file))
    assert "| **0.5** | at least 0.4 | met |" in block
    assert "| **350.1** MB | at most 300 MB | **missed** |" in block
    assert block.count("not measured") == len(NAMES) - 2


def test_half_a_target_is_not_enough() -> None:
    figure = results.figure_named("monitoring_vs_constant_body")
    assert figure.is_met_by(0.7, [{"p99_ratio": 1.9}])
    assert not figure.is_met_by(0.7, [{"p99_ratio": 2.0}])
    assert not figure.is_met_by(0.5, [{"p99_ratio": 1.9}])


def test_a_ratio_is_of_medians() -> None:
    runs = [{"a": 1.0, "b": 1.0}, {"a": 10.0, "b": 2.0}, {"a": 3.0, "b": 30.0}]
    assert results.ratio(runs, "a", "b").value == 1.5


def test_blocks_are_replaced_between_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("by hand\n<!-- generated: one -->\nold\n<!-- end -->\nby hand too\n")
    report.write({"one": r"new \1"}, page)
    assert page.read_text() == "by hand\n<!-- generated: one -->\nnew \\1\n<!-- end -->\nby hand too\n"
    page.write_text("<!-- generated: one -->\n<!-- end -->\n<!-- generated: two -->\nold\n<!-- end -->\n")
    report.write({"one": "new"}, page)
    assert (
        page.read_text()
        == "<!-- generated: one -->\nnew\n<!-- end -->\n<!-- generated: two -->\nold\n<!-- end -->\n"
    )
    page.write_text("by hand")
    with pytest.raises(ValueError, match="two"):
        report.write({"two": ""}, page)


def test_the_page_has_every_mark() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    for name in ("machine", "figures", "drains", "details", "profile"):
        assert text.count(f"<!-- generated: {name} -->") == 1


@pytest.mark.parametrize(
    ("stack", "stage"),
    [
        ("main (/x/app.py:1);poll (/y/aiokafka/consumer/fetcher.py:9)", "fetch"),
        ("poll (/y/aiokafka/fetcher.py:9);decode (/x/shared/decoding.py:3);f (/y/pydantic/main.py:1)",
         "decode and validate"),
        ("join (/x/services/metrics/joining.py:3);add (/x/services/metrics/domain/sums.py:3)", "aggregate"),
        ("join (/x/services/metrics/joining.py:3);add (/x/services/metrics/domain/joining.py:3)", "join"),
        ("join (/x/services/metrics/joining.py:3);f (/x/services/metrics/store.py:3);g (/y/asyncpg/pool.py:1)",
         "write"),
        ("cut (/x/services/metrics/cutting.py:3);dumps (/y/weird.py:3)", "publish"),
        ("run (/y/asyncio/base_events.py:3)", profiling.OTHER),
    ],
)  # fmt: skip
def test_a_sample_belongs_to_the_stage_of_its_innermost_known_frame(stack: str, stage: str) -> None:
    assert profiling.stage_of(stack.split(";")) == stage
    assert profiling.shares([f"{stack} 3"])[stage] == 1
