"""The state of the metrics service in its database, compared with the plain recomputation."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from services.metrics.rebuilding import models_to_rebuild, rebuild_model
from shared.contracts.base import canonical_json
from shared.contracts.snapshots import Metrics
from tests.metrics_world import START_SECONDS, Fact, MetricsWorld
from tests.plain_metrics import Plain

FORMULAS = {
    "accuracy_interval_95": ("binary", "multiclass"),
    "ece": ("binary",),
    "label_delay_p50_seconds": ("binary", "multiclass", "regression"),
    "label_delay_p95_seconds": ("binary", "multiclass", "regression"),
}
"""Figures that are compared elsewhere, and the kinds that have them."""

SUMS = ("predictions", "labelled", "evaluated", "correct", "positives", "predicted_positives")


async def every_byte(world: MetricsWorld) -> dict[str, list[str]]:
    """Every row of what is summed and counted, as PostgreSQL writes it."""
    tables = ("bucket", "bucket_detail", "label_bucket", "model")
    return {
        table: [row[0] for row in await world.pool.fetch(f"SELECT t::text FROM {table} AS t ORDER BY 1")]
        for table in tables
    }


async def assert_nothing_to_rebuild(world: MetricsWorld) -> None:
    """Every bucket, label bucket and count is what the raw rows, and what was kept of those that are gone, say."""
    async with world.pool.acquire() as connection:
        for model in await models_to_rebuild(connection):
            findings = await rebuild_model(connection, model.model_id, check=True)
            assert (findings.differences, findings.raw_predictions) == ([], model.predictions)


async def buckets_of(world: MetricsWorld) -> dict[tuple[str, str, str, str, int, int], tuple[dict[str, int], Any]]:
    """Every bucket that holds anything, in the form of the plain recomputation."""
    found = {}
    classes = {row["class_id"]: row["name"] for row in await world.pool.fetch("SELECT * FROM class")}
    for row in await world.pool.fetch(
        "SELECT bucket.*, series.segment, version.version, version.kind, model.model, detail.error, "
        "detail.absolute_error, detail.squared_error AS detail_squared_error, detail.classes "
        "FROM bucket JOIN series USING (series_id) JOIN version USING (version_id) "
        "JOIN model ON model.model_id = series.model_id "
        "LEFT JOIN bucket_detail AS detail USING (series_id, width, start) WHERE bucket.width > 0"
    ):
        sums = {name: row[name] for name in SUMS if row[name]}
        sums |= {name: int(row[name]) for name in ("squared_error", "log_loss") if row[name]}
        bins: dict[Any, Any] = dict(struct.iter_unpack("<Hq", row["histogram"]))
        for class_id, support, hits in struct.iter_unpack("<qqq", row["classes"] or b""):
            name = classes[class_id]
            bins |= {place: n for place, n in ((("support", name), support), (("hits", name), hits)) if n}
        for name, places in (("error", 324), ("absolute_error", 324), ("squared_error", 648)):
            amount = row["detail_squared_error" if name == "squared_error" else name]
            if amount:
                bins[name] = Fraction(int(amount), 10**places)
        if sums or bins:
            key = (row["model"], row["version"], row["kind"], row["segment"], row["width"], row["start"])
            found[key] = (sums, bins)
    return found


async def label_buckets_of(world: MetricsWorld) -> dict[tuple[str, int], tuple[int, int | None, int | None]]:
    rows = await world.pool.fetch("SELECT * FROM label_bucket JOIN model USING (model_id)")
    found = {
        (row["model"], row["start"]): (row["labelled_entities"], row["newest_label_at"], row["newest_data_at"])
        for row in rows
    }
    return {key: row for key, row in found.items() if row != (0, None, None)}


async def winning_labels_of(world: MetricsWorld) -> list[tuple[int, Any]]:
    """Labels that stand, in no order: the database knows entities by their keys alone."""
    rows = await world.pool.fetch("SELECT observed_at, outcome_number, outcome_text FROM label")
    return sorted(
        (
            (row["observed_at"], row["outcome_text"] if row["outcome_number"] is None else row["outcome_number"])
            for row in rows
        ),
        key=repr,
    )


async def assert_state(world: MetricsWorld, facts: Sequence[Fact], **horizons: int) -> Plain:
    """The whole state of the join is what the set of events stands for; horizons in seconds."""
    plain = Plain(facts, **horizons)
    assert await buckets_of(world) == plain.buckets()
    assert await label_buckets_of(world) == plain.label_buckets()
    labels = [(at, outcome if outcome is None or isinstance(outcome, str) else float(outcome))
              for at, outcome in plain.labels.values()]  # fmt: skip
    assert await winning_labels_of(world) == sorted(labels, key=repr)
    return plain


async def assert_figures(world: MetricsWorld, plain: Plain, as_of: int) -> None:
    """Every published figure of the boundary (seconds of the tests' time) is the plain one."""
    snapshots = await world.cut(as_of)
    expected = plain.figures(START_SECONDS + as_of)
    # PostgreSQL writes 1e300 out, and Python reads an integer: what the service said was a float.
    found = {
        key: {name: float(n) if isinstance(n, int) and abs(n) >= 2**63 else n for name, n in figures.items()}
        for key, figures in (await world.figures()).items()
    }
    assert found.keys() == expected.keys()
    for key, figures in expected.items():
        assert Metrics.model_validate_json(canonical_json(found[key])).known() == found[key]
        # Their formulas are tested as such; here it matters that they are of the right predictions.
        unknown = figures["evaluated_predictions"] == 0
        for name, kinds in FORMULAS.items():
            assert (found[key].pop(name) is None) == (unknown or figures["kind"] not in kinds), (key, name)
        assert found[key] == figures, key
    rows = await world.pool.fetch("SELECT model, new_labels FROM model")
    assert {row["model"] for row in rows} == plain.models == {snapshot.model for snapshot in snapshots}
    for row in rows:
        assert row["new_labels"] == plain.new_labels(row["model"], 10**12), row["model"]
    for snapshot in snapshots:
        champion = plain.champion(snapshot.model, START_SECONDS + as_of)
        judged = champion[1] if champion else ""
        figures = expected[snapshot.model, judged, "", "7d"]
        assert {name: snapshot.metrics.known()[name] for name in figures} == figures
