"""The join in columns: finds what plain events meet, and changes rows and sums as the join next door does."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.metrics import store
from services.metrics.domain.buckets import MICROSECONDS, widths
from services.metrics.domain.horizons import Standing
from services.metrics.domain.hot.keys import Keys, Places, among
from services.metrics.domain.hot.ruling import Arrived, counts, rule_all
from services.metrics.domain.hot.states import PREDICTION_FIELDS, States, chosen, strung_together
from services.metrics.domain.hot.summing import Evaluations, differing, sum_up
from services.metrics.domain.joining import Label
from services.metrics.domain.sums import BucketRows
from services.metrics.hot import copying
from services.metrics.hot.combinations import Combination, Combinations
from services.metrics.hot.gathering import Gathered
from services.metrics.hot.looking_up import states_of
from services.metrics.hot.memory import Kept, Look, Memory
from services.metrics.instruments import LABELS_TOTAL, PREDICTIONS_TOTAL, TOO_LATE_TOTAL
from services.metrics.joining import Bounds, NewNames, series_of
from services.metrics.store import LabelBucketChange, Series
from shared.database import Connection
from shared.effects import Effects

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_NO_DATA = np.empty((0, 2), dtype=np.int64)
_LABEL_FIELDS = ("observed_at", "positive")


@dataclass(frozen=True, slots=True)
class Met:
    """What plain events do to their entities.

    ``new`` says of which the prediction is new; ``data`` are (combination, ``data_as_of``) of new predictions that
    have one. ``superseded`` are labels to be remembered, of entities by place.
    """

    keys: Keys
    before: States
    after: States
    new: Mask
    superseded: Arrived
    data: Integers
    combinations: Combinations
    bounds: Bounds

    @property
    def changed(self) -> Mask:
        """Of which the standing label is another afterwards, or began earlier."""
        changed: Mask = self.before["labelled"] != self.after["labelled"]
        for field in ("observed_at", "positive", "first_observed_at"):
            changed |= self.before[field] != self.after[field]
        return changed

    def within(self, states: States) -> Mask:
        """Of which the label is known and lies within the prediction's horizon."""
        apart = np.abs(states["first_observed_at"] - states["predicted_at"])
        within: Mask = states["labelled"] & (apart <= self.bounds.horizons.label)
        return within

    def concerned(self) -> list[int]:
        """The numbers of the combinations whose sums may change."""
        known = self.after["predicted"] & (self.new | self.changed)
        return [int(number) for number in np.unique(self.after["combination"][known])]

    def numbers(self) -> set[int]:
        """The numbers of the combinations that new predictions name."""
        return set(np.unique(self.after["combination"][self.new]).tolist())

    def named(self) -> NewNames:
        """What new predictions name that may not be stored yet."""
        named = [self.combinations[number] for number in sorted(self.numbers() - self.combinations.stored)]
        said = [(one.model, one.version) for one in named if one.model is not None and one.version is not None]
        return NewNames(
            models={model for model, _ in said},
            versions={(model, version, "binary") for model, version in said},
            segments={tuple(one.segments) for one in named},
        )

    def new_model_ids(self) -> set[int]:
        """The models of new predictions."""
        return {self.combinations[number].model_id for number in self.numbers()}

    def model_ids(self) -> set[int]:
        """The models whose sums may change."""
        return {self.combinations[number].model_id for number in self.concerned()}


async def find(
    effects: Effects, gathered: Gathered, apart: Keys, bounds: Bounds, memory: Memory
) -> tuple[Met, Mask]:
    """Find what plain events meet, and which entities must be taken one by one.

    So are those that are ``apart`` already, and all that the columns have no rule for. The entities must be
    locked, and the memory have looked since then.
    """
    before = await states_of(effects.connection, gathered.keys, memory, gathered.combinations)
    difficult: Mask = among(gathered.keys, apart) | ~before["plain"]
    after = strung_together([before])
    is_new = _take_predictions(gathered, before, after, difficult)
    ruled = rule_all(after, gathered.labels, bounds.horizons.correction)
    difficult[ruled.difficult] = True
    new = np.zeros(len(before), dtype=np.bool_)
    new[gathered.entity[is_new]] = True
    met = Met(gathered.keys, before, after, new, ruled.superseded, _NO_DATA, gathered.combinations, bounds)
    difficult |= _may_be_removed(met, await store.removed_through(effects.connection, met.new_model_ids()))
    taken = ~difficult[gathered.entity]
    _count(effects, taken, is_new, ruled.verdicts[~difficult[gathered.labels.entity]])
    told = taken & is_new & gathered.has_data_as_of
    data = np.stack([gathered.predictions["combination"][told], gathered.data_as_of[told]], axis=1)
    return _without(difficult, replace(met, data=data)), difficult


def _take_predictions(gathered: Gathered, before: States, after: States, difficult: Mask) -> Mask:
    """Put new predictions among the states; returns which are. A conflict is difficult."""
    entity, hashes = gathered.entity, gathered.predictions["content_hash"]
    _, firsts = np.unique(entity, return_index=True)
    is_first = np.zeros(len(entity), dtype=np.bool_)
    is_first[firsts] = True
    said = before["content_hash"].copy()
    known = before["predicted"][entity]
    is_new: Mask = is_first & ~known
    said[entity[is_new]] = hashes[is_new]
    difficult[entity[hashes != said[entity]]] = True
    for field in PREDICTION_FIELDS:
        after[field][entity[is_new]] = gathered.predictions[field][is_new]
    return is_new


def _may_be_removed(met: Met, removed: store.Removed) -> Mask:
    """What is so old that retention may have removed its like."""
    new, after = met.new, met.after
    late = np.zeros(len(after), dtype=np.bool_)
    if removed.newest is None:
        return late
    numbers = met.numbers()
    through = np.full(max(numbers, default=0) + 1, np.iinfo(np.int64).min)
    for number in numbers:
        through[number] = removed.by_model.get(met.combinations[number].model_id, through[number])
    late[new] = after["predicted_at"][new] <= through[after["combination"][new]]
    alone = after["labelled"] & ~after["predicted"]
    late |= alone & (after["observed_at"] - met.bounds.horizons.label <= removed.newest)
    return late


def _count(effects: Effects, taken: Mask, is_new: Mask, verdicts: npt.NDArray[np.int8]) -> None:
    new = int((taken & is_new).sum())
    for verdict, count in (("new", new), ("duplicate", int(taken.sum()) - new)):
        if count:
            effects.count(PREDICTIONS_TOTAL, count, verdict=verdict)
    for ruling, count in counts(verdicts).items():
        effects.count(LABELS_TOTAL, count, verdict=ruling)
        if ruling == "too_late":
            effects.count(TOO_LATE_TOTAL, count, horizon="correction")


def _without(difficult: Mask, met: Met) -> Met:
    if not difficult.any():
        return met
    kept = np.flatnonzero(~difficult)
    places = np.cumsum(~difficult) - 1
    said = met.superseded
    plain = ~difficult[said.entity]
    return replace(
        met,
        keys=met.keys[kept],
        before=chosen(met.before, kept),
        after=chosen(met.after, kept),
        new=met.new[kept],
        superseded=Arrived(places[said.entity[plain]], said.observed_at[plain], said.positive[plain]),
    )


async def settle(effects: Effects, met: Met, memory: Memory, look: Look) -> None:
    """Store what is new and change the sums. The models must be locked, and the names of ``met`` known."""
    connection = effects.connection
    concerned = {number: met.combinations[number] for number in met.concerned()}
    declared = await store.declared_segments(connection, {one.model_id for one in concerned.values()})
    series = {
        number: series_of(one.model_id, one.version_id, one.segments, declared.get(one.model_id, {}))
        for number, one in concerned.items()
    }
    limits = await store.new_label_limits(connection, {one.model_id for one in concerned.values()})
    # PostgreSQL stores the rows while the sums are made here.
    storing = asyncio.create_task(_save_rows(connection, met))
    try:
        await asyncio.sleep(0)
        sums = await _sums(effects, met, series)
        buckets, new_labels = _label_counts(met, concerned, limits)
        await asyncio.sleep(0)
        touched = {one for found in series.values() for one in found} if len(sums) else set()
        kept = Kept(met.keys, met.numbers(), [one.series_id for one in touched])
        memory.keep(look, kept, met.after)
    except BaseException:
        storing.cancel()
        await asyncio.wait([storing])
        raise
    with effects.at_leisure():
        await storing
        if len(sums):
            unknown = [one for one in touched if one.series_id not in memory.series]
            if unknown:
                await store.add_series(connection, sorted(unknown, key=lambda one: one.series_id))
            await store.add_bucket_rows(connection, sums)
        if buckets:
            await store.add_to_label_buckets(connection, buckets, met.bounds.bucket_seconds, met.bounds.horizons)
        if any(new_labels.values()):
            await store.add_new_labels(connection, new_labels)


async def _save_rows(connection: Connection, met: Met) -> None:
    after, kept_from = met.after, met.bounds.boundary
    if met.new.any():
        await _save_predictions(connection, met)
    first = _by_key(met, met.changed & ~met.before["labelled"])
    if len(first):
        observed_at = after["observed_at"][first]
        await copying.copy(
            connection,
            "label",
            {
                "entity_key": copying.uuids(met.keys[first]),
                "observed_at": copying.bigints(observed_at),
                "outcome_number": copying.doubles(after["positive"][first]),
                "first_observed_at": copying.bigints(after["first_observed_at"][first]),
                "kept_from": None if kept_from is None else copying.bigints(np.maximum(observed_at, kept_from)),
            },
            len(first),
        )
    corrected = np.flatnonzero(met.changed & met.before["labelled"]).tolist()
    if corrected:
        winners = {UUID(bytes=met.keys[place].tobytes()): _standing(after[place]) for place in corrected}
        await store.save_labels(connection, winners, met.bounds.kept_from)
    if len(met.superseded):
        await store.remember_superseded(connection, _superseded(met))


def _superseded(met: Met) -> list[tuple[UUID, Label]]:
    said = met.superseded
    columns = zip(said.entity.tolist(), said.observed_at.tolist(), said.positive.tolist(), strict=True)
    return [
        (UUID(bytes=met.keys[place].tobytes()), Label(moment, float(positive)))
        for place, moment, positive in columns
    ]


def _by_key(met: Met, entities: Mask) -> Places:
    """The places of some entities in the order of their keys: neighbours in an index are stored together."""
    places = np.flatnonzero(entities)
    # PostgreSQL compares the bytes, the first ones first.
    return places[np.argsort(met.keys[places, 0].byteswap())]


def _standing(state: np.void) -> Standing:
    label = Label(int(state["observed_at"]), float(state["positive"]))
    return Standing(label, int(state["first_observed_at"]))


async def _save_predictions(connection: Connection, met: Met) -> None:
    places = _by_key(met, met.new)
    new, boundary = chosen(met.after, places), met.bounds.boundary
    numbers, inverse = np.unique(new["combination"], return_inverse=True)
    named = [met.combinations[number] for number in numbers.tolist()]
    version_ids = np.array([one.version_id for one in named], dtype=np.int64)
    segment_ids = np.array([one.segment_id for one in named], dtype=np.int64)
    columns = {
        "prediction_key": copying.uuids(met.keys[places]),
        "entity_key": copying.uuids(met.keys[places]),
        "version_id": copying.bigints(version_ids[inverse]),
        "segment_id": copying.bigints(segment_ids[inverse]),
        "probability": copying.doubles(new["probability"]),
        "predicted_positive": copying.booleans(new["predicted_positive"]),
        "kept_from": None if boundary is None else copying.bigints(np.maximum(new["predicted_at"], boundary)),
        **{field: copying.bigints(new[field]) for field in PREDICTION_FIELDS if new[field].dtype == np.int64},
    }
    del columns["combination"]
    await copying.copy(connection, "prediction", columns, len(new))


async def _sums(effects: Effects, met: Met, series: Mapping[int, Sequence[Series]]) -> BucketRows:
    within_before, within_after = met.within(met.before), met.within(met.after)
    changed, old = met.changed, ~met.new & met.after["predicted"]
    # An old prediction's evaluation goes and comes again where it is another one.
    same = within_before & within_after & ~differing(met.before, met.after)
    goes = old & changed & within_before & ~same
    comes = (old & changed & within_after & ~same) | (met.new & within_after)
    too_late = old & changed & ~within_after & (~met.before["labelled"] | within_before)
    too_late |= met.new & met.after["labelled"] & ~within_after
    if too_late.any():
        effects.count(TOO_LATE_TOTAL, int(too_late.sum()), horizon="label")
    evaluations = Evaluations.of(met.before, goes, -1) + Evaluations.of(met.after, comes, 1)
    ids = {number: [one.series_id for one in found] for number, found in series.items()}
    parts = []
    for part in sum_up(chosen(met.after, met.new), evaluations, ids, widths(met.bounds.bucket_seconds)):
        parts.append(part)
        await asyncio.sleep(0)
    return BucketRows.together(parts)


def _label_counts(
    met: Met, concerned: Mapping[int, Combination], limits: Mapping[int, int | None]
) -> tuple[dict[tuple[int, int], LabelBucketChange], Counter[int]]:
    """Per model: which buckets its distinct labelled entities fall in, its newest data; and its new labels."""
    width = met.bounds.bucket_seconds
    buckets: dict[tuple[int, int], LabelBucketChange] = defaultdict(LabelBucketChange)
    new_labels: Counter[int] = Counter()
    for number, moments, sign in _moved_labels(met):
        model_id = concerned[number].model_id
        limit = limits.get(model_id)
        new_labels[model_id] += sign * int(len(moments) if limit is None else (moments > limit).sum())
        _count_labels(buckets, model_id, moments, sign, width)
    for number, moment in met.data.tolist():
        model_id = met.combinations[number].model_id
        buckets[model_id, moment // MICROSECONDS // width * width].saw_data(moment)
    return buckets, new_labels


def _count_labels(
    buckets: dict[tuple[int, int], LabelBucketChange], model_id: int, moments: Integers, sign: int, width: int
) -> None:
    """Of labels that come, only the newest in a bucket may become its newest; of those that go, any may be it."""
    moments = np.sort(moments)
    starts = moments // MICROSECONDS // width * width
    begins = np.flatnonzero(np.diff(starts, prepend=np.iinfo(np.int64).min))
    sizes = np.diff(np.r_[begins, len(moments)])
    for start, begin, size in zip(starts[begins].tolist(), begins.tolist(), sizes.tolist(), strict=True):
        bucket = buckets[model_id, start]
        bucket.labelled_entities += sign * size
        within = moments[begin : begin + size]
        told = within[within == within[-1]] if sign > 0 else within
        for moment in told.tolist():
            bucket.labels[moment] += sign


def _moved_labels(met: Met) -> Iterator[tuple[int, Integers, int]]:
    """By combination the moments of labels that its entities lose (-1) and get (1)."""
    had = ~met.new & met.before["predicted"] & met.within(met.before)
    has = met.after["predicted"] & met.within(met.after)
    same = had & has
    for field in _LABEL_FIELDS:
        same &= met.before[field] == met.after[field]
    for states, within, sign in ((met.before, had & ~same, -1), (met.after, has & ~same, 1)):
        moved = chosen(states, within)
        for number in np.unique(moved["combination"]).tolist():
            yield number, moved["observed_at"][moved["combination"] == number], sign
