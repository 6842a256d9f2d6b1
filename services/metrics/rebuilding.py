"""Sums held against the raw rows they are of, and mended where they differ, while the services go on.

Everything is read of one moment, without a lock: raw rows, and what retention has kept of those that are gone, say
what the buckets should hold. Whatever the services do meanwhile, they add the same to both sides; so what differs
stays the same, and is added to the buckets in one transaction under the model's lock: figures go from wrong to
right at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from services.metrics import store
from services.metrics.answers import store as answers
from services.metrics.domain.buckets import DAY_SECONDS, widths
from services.metrics.domain.differences import (
    DETAIL_SCALARS,
    SCALARS,
    missing,
    names_of,
    read_classes,
    read_histogram,
)
from services.metrics.domain.horizons import DEFAULT_HORIZONS
from services.metrics.domain.identity import id_of
from services.metrics.domain.joining import Label
from services.metrics.domain.retention import SETTLED_WIDTH
from services.metrics.domain.sums import BucketKey, Detail, Sums
from services.metrics.joining import Bounds, Declared
from services.metrics.store import QUERIES, UPKEEP, Series
from services.metrics.tallying import Tally
from shared.database import Connection, take_all_the_time
from shared.errors import TruewardError, UsageError

ROWS_A_STEP = 5_000
BUCKETS_A_STATEMENT = 2_000
ATTEMPTS = 12
"""An attempt that finds the model locked has waited five seconds for it."""

LabelCount = tuple[int, int | None, int]
"""Labelled entities, the newest moment of their labels, how many have it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A bucket that held something else. ``start`` in seconds since 1970; ``figures`` name what differed."""

    what: str
    version: str | None
    segment: str | None
    width_seconds: int | None
    start: int | None
    figures: tuple[str, ...]


@dataclass(slots=True)
class Findings:
    """What was found of one model, and what must be added to mend it."""

    model: str
    raw_predictions: int = 0
    buckets: int = 0
    differences: list[Difference] = field(default_factory=list)
    sums: dict[BucketKey, Sums] = field(default_factory=dict)
    broken_histograms: dict[BucketKey, bytes] = field(default_factory=dict)
    broken_classes: dict[BucketKey, bytes] = field(default_factory=dict)
    unknown_classes: set[str] = field(default_factory=set)
    touched: set[Series] = field(default_factory=set)
    label_counts: dict[int, int] = field(default_factory=dict)
    new_labels: int = 0
    seen: int = 0


@dataclass(frozen=True, slots=True)
class ModelRows:
    """A model, and how many raw predictions of it there are."""

    model_id: int
    model: str
    predictions: int


async def models_to_rebuild(connection: Connection, names: Sequence[str] = ()) -> list[ModelRows]:
    """The models, all by default. Raises ``UsageError`` for one that is not known."""
    known = {row["model"]: ModelRows(**row) for row in await connection.fetch(UPKEEP.count_raw_rows)}
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise UsageError(f"no model {unknown[0]!r} is known here; known are {', '.join(known) or 'none'}")
    return [row for name, row in known.items() if not names or name in names]


async def rebuild_model(
    connection: Connection, model_id: int, *, check: bool, step: Callable[[int], object] = lambda _: None
) -> Findings:
    """Compare a model's sums with its raw rows; mend them unless ``check``. ``step`` is told of the rows read.

    Raises ``TruewardError`` where the model is locked, or its sums are replaced, again and again.
    """
    for _ in range(ATTEMPTS):
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await take_all_the_time(connection)
            findings = await _find(connection, model_id, step)
        if check or not findings.differences:
            return findings
        try:
            async with connection.transaction():
                await _mend(connection, model_id, findings)
        except (_ReplacedError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            continue
        return findings
    raise TruewardError(
        f"the sums of {findings.model} could not be mended: others are at them all the time; try again"
    )


class _ReplacedError(Exception):
    """What was read is not what is there any more."""


async def _find(connection: Connection, model_id: int, step: Callable[[int], object]) -> Findings:
    row = await connection.fetchrow(UPKEEP.read_model, model_id)
    clock = await connection.fetchrow(QUERIES.read_clock)
    if row is None or clock is None:
        raise TruewardError("the metrics service has not been started on this database yet")
    bounds = Bounds(clock["bucket_seconds"], store.begun_horizons(clock) or DEFAULT_HORIZONS)
    declared = (await store.declared_segments(connection, [model_id])).get(model_id, {})
    tally = Tally(model_id, declared, bounds)
    findings = Findings(row["model"], seen=row["summed_anew"])
    await _sum_up(connection, tally, row, findings, step)
    findings.touched = tally.touched
    await _compare_buckets(connection, tally, model_id, bounds, findings)
    await _compare_label_buckets(connection, tally, model_id, findings)
    findings.new_labels = tally.new_labels + row["settled_new_labels"] - row["new_labels"]
    if findings.new_labels:
        findings.differences.append(Difference("model", None, None, None, None, ("new_labels",)))
    return findings


async def _sum_up(
    connection: Connection, tally: Tally, model: asyncpg.Record, findings: Findings, step: Callable[[int], object]
) -> None:
    """Add up every raw row of the model; an entity's label counts once, whatever the number of its predictions."""
    entity: UUID | None = None
    label: Label | None = None

    def close() -> None:
        if label is not None:
            tally.add_label(label, model["new_labels_after"])

    read = 0
    async for stored, standing in store.raw_rows_by_entity(connection, model["model_id"]):
        if stored.entity_key != entity:
            close()
            entity, label = stored.entity_key, None
        await tally.know_segments(connection, [stored.segment_id])
        label = tally.add(stored, standing) or label
        read += 1
        if read % ROWS_A_STEP == 0:
            step(ROWS_A_STEP)
    close()
    step(read % ROWS_A_STEP)
    findings.raw_predictions = read


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What the buckets of a model should hold, against what they hold."""

    series: Mapping[int, Series]
    versions: Mapping[int, str]
    declared: Declared
    narrow_before: int | None
    expected: dict[BucketKey, Sums]
    findings: Findings

    def settled(self, key: BucketKey, stored: Sums) -> None:
        """Rows that are gone have contributed this; of dimensions that are not declared any more it rests."""
        segment = self.series[key[0]].segment
        if not segment or any(segment.startswith(f"{dimension}:") for dimension in self.declared):
            self.expected[key[0], DAY_SECONDS, key[2]].add(stored)

    def compare(self, key: BucketKey, stored: Sums) -> None:
        """Note what is missing of a bucket; buckets that no window reaches any more say nothing."""
        if key[1] != DAY_SECONDS and self.narrow_before is not None and key[2] < self.narrow_before:
            return
        change = missing(self.expected.get(key, Sums()), stored)
        broken = {"histogram": self.findings.broken_histograms, "detail_classes": self.findings.broken_classes}
        figures = names_of(change)
        figures += tuple(name for name, found in broken.items() if key in found and name not in figures)
        if not figures:
            return
        series = self.series[key[0]]
        self.findings.sums[key] = change
        self.findings.differences.append(
            Difference("bucket", self.versions.get(series.version_id), series.segment, key[1], key[2], figures)
        )


async def _compare_buckets(
    connection: Connection, tally: Tally, model_id: int, bounds: Bounds, findings: Findings
) -> None:
    known = [
        Series(model_id, row["version_id"], row["segment"])
        for row in await connection.fetch(UPKEEP.read_series, model_id)
    ]
    series = {one.series_id: one for one in (*known, *tally.touched)}
    rows = await connection.fetch(UPKEEP.read_versions_of_model, model_id)
    versions = {row["version_id"]: row["version"] for row in rows}
    for one in sorted(tally.touched - set(known), key=lambda one: one.series_id):
        findings.differences.append(
            Difference("series", versions.get(one.version_id), one.segment, None, None, ("series",))
        )
    expected: dict[BucketKey, Sums] = defaultdict(Sums)
    expected |= tally.changes.by_bucket(widths(bounds.bucket_seconds))
    comparison = _Comparison(
        series=series,
        versions=versions,
        declared=tally.declared,
        narrow_before=await connection.fetchval(UPKEEP.read_narrow_before),
        expected=expected,
        findings=findings,
    )
    names = await _class_names(connection, expected, findings)
    there: set[BucketKey] = set()
    async for row in connection.cursor(UPKEEP.read_buckets, list(series), prefetch=ROWS_A_STEP):
        key, stored = _read_bucket(row, names, findings)
        if row["width"] == SETTLED_WIDTH:
            comparison.settled(key, stored)
            continue
        comparison.compare(key, stored)
        there.add(key)
    for key in expected.keys() - there:
        comparison.compare(key, Sums())
    findings.buckets = len(there)


async def _class_names(
    connection: Connection, expected: Mapping[BucketKey, Sums], findings: Findings
) -> dict[int, str]:
    """The classes by id; one that happened by the raw rows and is not known is a difference too."""
    known = await answers.class_names(connection)
    details = [sums.detail for sums in expected.values() if sums.detail is not None]
    happened = {name for detail in details for name in detail.support}
    findings.unknown_classes = happened - set(known.values())
    for name in sorted(findings.unknown_classes):
        findings.differences.append(Difference("class", None, None, None, None, (name,)))
    return known | {id_of(name): name for name in happened}


def _read_bucket(row: asyncpg.Record, names: Mapping[int, str], findings: Findings) -> tuple[BucketKey, Sums]:
    """The sums of a stored bucket; what cannot be read of it counts as nothing, and is noted as broken."""
    key: BucketKey = (row["series_id"], row["width"], row["start"])
    counts, classes = read_histogram(row["histogram"]), read_classes(row["classes"], names)
    stored = Sums(**{name: int(row[name]) for name in SCALARS})  # type: ignore[arg-type]  # all but the collections
    stored.histogram.update(counts or {})
    if row["detailed"]:
        figures = {
            name: int(row["detail_squared_error" if name == "squared_error" else name]) for name in DETAIL_SCALARS
        }
        stored.detail = Detail(**figures)  # type: ignore[arg-type]  # all but the collections
        for name, (support, hits) in (classes or {}).items():
            stored.detail.support[name], stored.detail.hits[name] = support, hits
    if key[1] != SETTLED_WIDTH:
        findings.broken_histograms |= {key: row["histogram"]} if counts is None else {}
        findings.broken_classes |= {key: row["classes"]} if classes is None else {}
    return key, stored


async def _compare_label_buckets(connection: Connection, tally: Tally, model_id: int, findings: Findings) -> None:
    expected: dict[int, LabelCount] = {
        start: (found.entities, max(found.moments), found.moments[max(found.moments)])
        for start, found in tally.labels.items()
    }
    for row in await connection.fetch(UPKEEP.read_label_buckets, model_id):
        entities, moment, labels = expected.pop(row["start"], (0, None, 0))
        settled = row["settled_label_at"]
        if settled is not None and (moment is None or settled >= moment):
            labels = row["settled_labels"] + (labels if settled == moment else 0)
            moment = settled
        wanted = (entities + row["settled_entities"], moment, labels)
        stored = (row["labelled_entities"], row["newest_label_at"], row["newest_labels"] or 0)
        _compare_label_bucket(findings, row["start"], wanted, stored)
    for start, wanted in expected.items():
        _compare_label_bucket(findings, start, wanted, (0, None, 0))


def _compare_label_bucket(findings: Findings, start: int, wanted: LabelCount, stored: LabelCount) -> None:
    names = ("labelled_entities", "newest_label_at", "newest_labels")
    differing = tuple(name for name, one, two in zip(names, wanted, stored, strict=True) if one != two)
    if differing:
        findings.label_counts[start] = wanted[0] - stored[0]
        findings.differences.append(Difference("label_bucket", None, None, None, start, differing))


async def _empty_broken(connection: Connection, findings: Findings) -> None:
    for statement, broken in (
        (UPKEEP.empty_broken_histogram, findings.broken_histograms),
        (UPKEEP.empty_broken_classes, findings.broken_classes),
    ):
        for key, stored in broken.items():
            if await connection.fetchval(statement, *key, stored) is None:
                raise _ReplacedError


async def _mend(connection: Connection, model_id: int, findings: Findings) -> None:
    """Add what is missing, all of it in one transaction. Raises ``_ReplacedError`` where it must be read again."""
    await store.lock_models(connection, [model_id])
    if await connection.fetchval(UPKEEP.claim_rebuild, model_id, findings.seen) is None:
        raise _ReplacedError
    await _empty_broken(connection, findings)
    if findings.unknown_classes:
        await answers.add_classes(connection, findings.unknown_classes)
    if findings.touched:
        await store.add_series(connection, sorted(findings.touched, key=lambda one: one.series_id))
    keys = sorted(findings.sums)
    for place in range(0, len(keys), BUCKETS_A_STATEMENT):
        portion = keys[place : place + BUCKETS_A_STATEMENT]
        await store.add_to_buckets(connection, {key: findings.sums[key] for key in portion})
    if findings.label_counts:
        clock = await connection.fetchrow(QUERIES.read_clock)
        if clock is None:
            raise _ReplacedError
        horizons = store.begun_horizons(clock) or DEFAULT_HORIZONS
        starts = sorted(findings.label_counts)
        models = [model_id] * len(starts)
        counts = [findings.label_counts[start] for start in starts]
        await connection.execute(UPKEEP.mend_label_buckets, models, starts, counts)
        await connection.execute(
            QUERIES.look_up_newest_labels, models, starts, clock["bucket_seconds"], horizons.label
        )
    if findings.new_labels:
        await connection.execute(QUERIES.add_new_labels, [model_id], [findings.new_labels])
