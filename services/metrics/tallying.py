"""Raw rows summed from nothing: what a model's rows contribute, to be put beside what the buckets hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.metrics import store
from services.metrics.domain.buckets import DAY_SECONDS, start_of, widths
from services.metrics.domain.horizons import Standing
from services.metrics.domain.joining import Label, StoredPrediction, evaluate, is_new
from services.metrics.domain.sums import Changes
from services.metrics.joining import Bounds, Declared, series_of
from services.metrics.store import QUERIES, UPKEEP, Names, Series
from shared.database import Connection, take_all_the_time


@dataclass(slots=True)
class LabelTally:
    """Labelled entities of one label bucket, and the moments that their labels were observed at."""

    entities: int = 0
    moments: Counter[int] = field(default_factory=Counter)


class Tally:
    """The sums of one model's raw rows; ``width`` is that of the narrowest buckets that are told apart."""

    def __init__(self, model_id: int, declared: Declared, bounds: Bounds, width: int | None = None) -> None:
        self._model_id = model_id
        self.declared = declared
        self._bounds = bounds
        self._names: dict[int, Names] = {}
        self.changes = Changes(width or bounds.bucket_seconds)
        self.touched: set[Series] = set()
        self.labels: dict[int, LabelTally] = defaultdict(LabelTally)
        self.new_labels = 0
        self.newest_prediction: int | None = None

    async def know_segments(self, connection: Connection, segment_ids: Iterable[int]) -> None:
        """Look up what the ids of segments stand for, before rows that have them are added."""
        unknown = set(segment_ids) - self._names.keys()
        if unknown:
            self._names.update(await store.segment_names(connection, unknown))

    def add(
        self, stored: StoredPrediction, standing: Standing | None, *, segments_only: bool = False
    ) -> Label | None:
        """Count a prediction and, where its entity is labelled within the horizon, its evaluation.

        Returns the label that it was given, which counts once an entity: see :meth:`add_label`.
        """
        series = series_of(self._model_id, stored.version_id, self._names[stored.segment_id], self.declared)
        if segments_only:
            series = series[1:]
        ids = tuple(one.series_id for one in series)
        self.touched.update(series)
        self.changes.predicted(ids, stored)
        self.newest_prediction = max(stored.predicted_at, self.newest_prediction or stored.predicted_at)
        label = None if standing is None else standing.label_for(stored.predicted_at, self._bounds.horizons)
        evaluation = evaluate(stored, label)
        if evaluation is not None:
            self.changes.evaluated(ids, stored, evaluation, 1)
        return label

    def add_label(self, label: Label, limit: int | None) -> None:
        """Count the label of an entity; ``limit`` is what it must be later than to be new (None: nothing)."""
        tally = self.labels[start_of(label.observed_at, self._bounds.bucket_seconds)]
        tally.moments[label.observed_at] += 1
        if label.outcome is not None:
            tally.entities += 1
            self.new_labels += is_new(label, limit)


async def sum_segments_anew(
    connection: Connection, model_id: int, declared: Mapping[str, frozenset[str]], bounds: Bounds
) -> None:
    """Declared segments changed: sum the model's raw rows again, so that the order of events does not matter.

    What rows that are gone have contributed stays as it was, by day, where the dimension still is declared. The
    model must be locked.
    """
    await take_all_the_time(connection)
    await connection.execute(UPKEEP.say_summed_anew, model_id)
    await connection.execute(QUERIES.remove_segment_buckets, model_id)
    await connection.execute(QUERIES.restore_settled_segment_buckets, model_id, list(declared))
    narrow_before = await connection.fetchval(UPKEEP.read_narrow_before)
    tally = Tally(model_id, declared, bounds)
    async for stored, standing in store.raw_rows_of(connection, model_id):
        await tally.know_segments(connection, [stored.segment_id])
        tally.add(stored, standing, segments_only=True)
    sums = {
        (series_id, width, start): found
        for (series_id, width, start), found in tally.changes.by_bucket(widths(bounds.bucket_seconds)).items()
        if width == DAY_SECONDS or narrow_before is None or start >= narrow_before
    }
    if sums:
        await store.add_series(connection, sorted(tally.touched, key=lambda one: one.series_id))
        await store.add_to_buckets(connection, sums)
