"""Cutting a snapshot: everything before a boundary, of every model, in one REPEATABLE READ transaction."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, TypeVar

import asyncpg
from pydantic_core import to_json

from services.metrics.answers.store import DetailKey, detail_totals
from services.metrics.domain import histogram
from services.metrics.domain.buckets import MICROSECONDS, WINDOW_SECONDS, Tile, widths, window_tiles
from services.metrics.domain.clock import ClockName
from services.metrics.domain.figures import NO_DETAIL, DetailTotals, Totals
from services.metrics.domain.horizons import DEFAULT_HORIZONS, Horizons
from services.metrics.domain.kinds import Kind
from services.metrics.domain.reporting import FigureKey, Figures, each_set_of_figures
from services.metrics.intake import CLOCK_TOPICS
from services.metrics.store import QUERIES
from services.metrics.world import PolicyInForce, World, counted_for, read_world
from shared.contracts.base import canonical_json
from shared.contracts.snapshots import (
    Champion,
    Metrics,
    Snapshot,
    VersionMetrics,
    snapshot_id,
)
from shared.database import Connection
from shared.effects import Effects
from shared.records import Place
from shared.topics import SNAPSHOTS

SERIES_IN_A_PORTION = 400
"""Read, computed and saved together: what a portion holds is all that a cut holds in memory beside a row a model,
and PostgreSQL is spoken to again within a fraction of a second."""
SETS_IN_A_BREATH = 150
"""Sets of figures computed before others have their turn: some milliseconds' work."""
NAMES_SPELLED = 1_024
"""Versions, segments and windows whose JSON is kept."""
T = TypeVar("T")
U = TypeVar("U")


class ChampionChangedError(Exception):
    """A champion changed after new labels were counted for the one before; count again, then cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A boundary to cut: ``as_of`` in seconds since 1970; the rest as the snapshot says it.

    ``overdue``: per input partition the offset below which all was received more than an interval ago; None
    where the broker did not say.
    """

    as_of: int
    clock: ClockName
    interval_seconds: int
    bucket_seconds: int
    horizons: Horizons = DEFAULT_HORIZONS
    missed: int = 0
    overdue: Mapping[Place, int] | None = None

    @property
    def moment(self) -> datetime:
        """``as_of`` as a datetime."""
        return datetime.fromtimestamp(self.as_of, UTC)

    @property
    def microseconds(self) -> int:
        """``as_of`` in microseconds since 1970."""
        return self.as_of * MICROSECONDS


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of one model at the boundary, its sums apart."""

    model_id: int
    model: str
    last_sequence: int
    new_labels: int
    series: int
    champion: Champion | None
    newest_data_at: int | None
    newest_run_at: int | None


@dataclass(frozen=True)
class Common:
    """What the snapshots of a boundary have in common."""

    cut: Cut
    world: World
    offsets: dict[str, dict[str, int]]
    catching_up: bool

    @cached_property
    def offsets_told(self) -> bytes:
        """The offsets as canonical JSON."""
        return canonical_json(self.offsets)


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of a portion of models: rows by model, and details."""

    rows: Mapping[int, Sequence[asyncpg.Record]] = field(default_factory=dict)
    details: Mapping[DetailKey, DetailTotals] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """A snapshot, the bytes that it is published as, and the figures of all series and windows as JSON."""

    snapshot: Snapshot
    document: bytes
    figures: str


class Breath:
    """Lets the other tasks have their turn whenever enough was computed."""

    def __init__(self) -> None:
        self._sets = 0

    async def after(self, sets: int = 1) -> None:
        """So many sets of figures were computed."""
        self._sets += sets
        if self._sets >= SETS_IN_A_BREATH:
            self._sets = 0
            await asyncio.sleep(0)


async def cut_snapshots(effects: Effects, cut: Cut) -> int:
    """Make and publish one snapshot of every model that has any. Returns how many.

    The transaction must be REPEATABLE READ and hold the clock's row, so that figures and offsets agree and each
    boundary is cut by one instance. While a portion is computed, PostgreSQL saves the one before and reads the
    one behind it: nobody waits for long, neither the session for its next statement nor the other tasks.
    Raises ``ChampionChangedError`` where labels must be counted afresh first.
    """
    connection = effects.connection
    world = await read_world(connection)
    facts = await _read_facts(connection, world, cut)
    common = Common(cut, world, *await _read_offsets(connection, cut))
    portions = [*_portions(facts), []]
    sums = await _read_sums(connection, cut, portions[0])
    unsaved: list[Made] = []
    for portion, following in pairwise(portions):
        computing = _compute(effects, common, portion, sums)
        if unsaved or following:
            sums, unsaved = await _both(_save_and_read(effects, cut, unsaved, following), computing)
        else:
            unsaved = await computing
    await _save_and_read(effects, cut, unsaved, [])
    return len(facts)


async def _both(asking: Coroutine[Any, Any, T], computing: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Let PostgreSQL work while this process computes. Where one of them fails, both have ended."""
    asked = asyncio.ensure_future(asking)
    try:
        computed = await computing
        return await asked, computed
    finally:
        if not asked.done():
            asked.cancel()
            await asyncio.wait([asked])
        if not asked.cancelled():
            asked.exception()


def _portions(facts: Sequence[ModelFacts]) -> Iterator[list[ModelFacts]]:
    portion: list[ModelFacts] = []
    series = 0
    for fact in facts:
        portion.append(fact)
        series += max(1, fact.series)
        if series >= SERIES_IN_A_PORTION:
            yield portion
            portion, series = [], 0
    if portion:
        yield portion


async def _read_facts(connection: Connection, world: World, cut: Cut) -> list[ModelFacts]:
    facts = []
    breath = Breath()
    for row in await connection.fetch(QUERIES.read_models_for_snapshot, cut.as_of):
        await breath.after()
        model_id, model = row["model_id"], row["model"]
        if not world.is_known(model, model_id, cut.microseconds):
            continue
        if world.is_retired(model, model_id, cut.microseconds):
            continue
        found = world.champion_of(model, cut.microseconds)
        if counted_for(found) != (row["champion_version"], row["new_labels_after"]):
            raise ChampionChangedError
        facts.append(
            ModelFacts(
                model_id=model_id,
                model=model,
                last_sequence=row["last_sequence"],
                new_labels=row["new_labels"],
                series=row["series"],
                champion=found,
                newest_data_at=row["newest_data_at"],
                newest_run_at=row["newest_run_at"],
            )
        )
    return facts


async def _read_sums(connection: Connection, cut: Cut, portion: Sequence[ModelFacts]) -> Sums:
    """Sums of every series and window of some models, as the database has them."""
    if not portion:
        return Sums()
    kept = widths(cut.bucket_seconds)
    tiles = [(window, tile) for window in WINDOW_SECONDS for tile in window_tiles(window, cut.as_of, kept)]
    model_ids = [fact.model_id for fact in portion]
    rows = await _read_totals(connection, tiles, model_ids)
    by_model: dict[int, list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        by_model[row["model_id"]].append(row)
    return Sums(by_model, await detail_totals(connection, tiles, model_ids))


async def _read_totals(
    connection: Connection, tiles: Sequence[tuple[str, Tile]], model_ids: Sequence[int]
) -> list[asyncpg.Record]:
    rows: list[asyncpg.Record] = await connection.fetch(
        QUERIES.read_totals,
        [window for window, _ in tiles],
        [tile.width for _, tile in tiles],
        [tile.since for _, tile in tiles],
        [tile.until for _, tile in tiles],
        model_ids,
    )
    return rows


async def _compute(effects: Effects, common: Common, portion: Sequence[ModelFacts], sums: Sums) -> list[Made]:
    """Make and emit the snapshots of a portion of models."""
    made = []
    breath = Breath()
    for fact in portion:
        found = await _figures_of(fact, sums, common, breath)
        policy = common.world.policy_of(fact.model, common.cut.microseconds)
        snapshot = _snapshot(fact, found, common, policy)
        told = {"policy": policy.document, "offsets": common.offsets_told}
        document = effects.emit(SNAPSHOTS, snapshot, key=fact.model, told=told)
        made.append(Made(snapshot, document, _figure_rows(found)))
        # A snapshot takes about as long as ten sets of figures.
        await breath.after(10)
    return made


ModelTotals = dict[FigureKey, dict[Kind, Totals]]


async def _figures_of(fact: ModelFacts, sums: Sums, common: Common, breath: Breath) -> dict[FigureKey, Figures]:
    facts = {
        "new_labels": fact.new_labels,
        "data_freshness_seconds": _freshness(fact.newest_data_at, common.cut),
        "pipeline_freshness_seconds": _freshness(fact.newest_run_at, common.cut),
    }
    champion_version = None if fact.champion is None else fact.champion.version
    totals = await _totals_of(fact, sums, common.world, breath)
    found = {}
    for key, figures in each_set_of_figures(totals, champion_version, facts):
        found[key] = figures
        await breath.after()
    return found


async def _totals_of(fact: ModelFacts, sums: Sums, world: World, breath: Breath) -> ModelTotals:
    """One model's sums by version, segment and window, and by kind. What is equal is one object."""
    found: ModelTotals = defaultdict(dict)
    seen: dict[tuple[Any, ...], Totals] = {}
    for row in sums.rows.get(fact.model_id, ()):
        version_id, segment, window = row["version_id"], row["segment"], row["time_window"]
        detail = sums.details.get((version_id, segment, window), NO_DETAIL)
        same = (*row[FIRST_SUM:], id(detail))
        if same not in seen:
            seen[same] = _totals(row, detail)
        found[world.predicting[fact.model_id][version_id], segment, window][world.kinds[version_id]] = seen[same]
        await breath.after()
    return found


FIRST_SUM = 4
"""Columns of ``read_totals`` before the sums."""


def _totals(row: asyncpg.Record, detail: DetailTotals) -> Totals:
    return Totals(
        predictions=row["predictions"],
        labelled=row["labelled"],
        evaluated=row["evaluated"],
        correct=row["correct"],
        positives=row["positives"],
        predicted_positives=row["predicted_positives"],
        squared_error=int(row["squared_error"]),
        log_loss=int(row["log_loss"]),
        vector=histogram.total([row["histograms"]]),
        detail=detail,
    )


async def _read_offsets(connection: Connection, cut: Cut) -> tuple[dict[str, dict[str, int]], bool]:
    """Where every input partition stands, and whether intake is more than an interval behind the broker."""
    rows = await connection.fetch(QUERIES.read_offsets)
    offsets: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        offsets[row["topic"]][str(row["partition"])] = row["next_offset"]
    if cut.clock == "event":
        return dict(offsets), False
    if cut.overdue is None:
        return dict(offsets), any(_was_behind(row, cut) for row in rows)
    taken = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
    return dict(offsets), any(taken.get(place, 0) < end for place, end in cut.overdue.items())


def _was_behind(row: Mapping[str, Any], cut: Cut) -> bool:
    """Whether the newest batch of a partition left records unread and was itself more than an interval late."""
    if row["topic"] not in {topic.name for topic in CLOCK_TOPICS} or row["received_at"] is None:
        return False
    left = row["log_end_offset"] is not None and row["log_end_offset"] > row["next_offset"]
    return left and row["received_at"] < cut.moment - timedelta(seconds=cut.interval_seconds)


def _freshness(newest: int | None, cut: Cut) -> float | None:
    return None if newest is None else (cut.microseconds - newest) / MICROSECONDS


def _snapshot(
    fact: ModelFacts, found: Mapping[FigureKey, Figures], common: Common, in_force: PolicyInForce
) -> Snapshot:
    cut = common.cut
    window = in_force.policy.window
    judged = "" if fact.champion is None else fact.champion.version
    versions = {
        version: VersionMetrics(
            kind=known["kind"],
            evaluated_predictions=known["evaluated_predictions"],
            accuracy=known["accuracy"],
            brier_score=known["brier_score"],
            log_loss=known["log_loss"],
            mae=known["mae"],
            rmse=known["rmse"],
            bias=known["bias"],
        )
        for (version, segment, time_window), known in found.items()
        if version and not segment and time_window == window and known["evaluated_predictions"]
    }
    return Snapshot(
        snapshot_id=snapshot_id(fact.model, fact.last_sequence + 1),
        model=fact.model,
        sequence=fact.last_sequence + 1,
        as_of=cut.moment,
        clock=cut.clock,
        interval_seconds=cut.interval_seconds,
        missed_boundaries=cut.missed,
        catching_up=common.catching_up,
        window=window,
        champion=fact.champion,
        policy=in_force.policy,
        policy_sha256=in_force.sha256,
        metrics=Metrics.model_validate(found[judged, "", window]),
        versions=versions,
        offsets=common.offsets,
    )


async def _save_and_read(
    effects: Effects, cut: Cut, unsaved: Sequence[Made], following: Sequence[ModelFacts]
) -> Sums:
    """What PostgreSQL does while a portion is computed: save the one before, read the one behind."""
    if unsaved:
        await _save(effects.connection, unsaved)
        await effects.flush()
    return await _read_sums(effects.connection, cut, following)


async def _save(connection: Connection, made: Sequence[Made]) -> None:
    await connection.execute(
        QUERIES.save_snapshots,
        [one.snapshot.model for one in made],
        [one.snapshot.sequence for one in made],
        [one.snapshot.snapshot_id for one in made],
        [one.snapshot.as_of for one in made],
        [one.document.decode() for one in made],
        [one.figures for one in made],
    )


def _figure_rows(found: Mapping[FigureKey, Figures]) -> str:
    """JSON of all figures: what is the same in several places is told once, and what is unknown is left out."""
    texts: dict[int, str] = {}
    places: dict[str, list[str]] = defaultdict(list)
    for version, segment, window in sorted(found):
        figures = found[version, segment, window]
        if id(figures) not in texts:
            known = {name: value for name, value in figures.items() if value is not None}
            texts[id(figures)] = to_json(known, inf_nan_mode="constants").decode()
        places[texts[id(figures)]].append(_place(version, segment, window))
    rows = (f'{{"metrics":{told},"places":[{",".join(of)}]}}' for told, of in places.items())
    return f"[{','.join(rows)}]"


def _place(version: str, segment: str, window: str) -> str:
    return f'{{"version":{_spelled(version)},"segment":{_spelled(segment)},"window":{_spelled(window)}}}'


@lru_cache(maxsize=NAMES_SPELLED)
def _spelled(name: str) -> str:
    """A name as JSON; many models have the same ones."""
    return to_json(name).decode()
