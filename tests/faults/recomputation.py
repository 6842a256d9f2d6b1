"""The plain recomputation, quick enough to be asked for many figures of many records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

from shared.topics import MODEL_VERSIONS
from tests.metrics_world import Fact
from tests.plain_kinds import KINDS, SECOND, kind_of, most
from tests.plain_metrics import WINDOWS, Plain, micro

DERIVED = {
    "accuracy_interval_95": ("binary", "multiclass"),
    "ece": ("binary",),
    "label_delay_p50_seconds": KINDS,
    "label_delay_p95_seconds": KINDS,
}
"""Figures that the plain recomputation leaves out, by the kinds that have them; formulas are tested as such."""


class Recomputation(Plain):
    """What the plain one says, remembered; and a champion of later than ``as_of`` is none yet."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        known = list(facts)
        super().__init__(known)
        self._champion_events: dict[str, list[tuple[int, str, dict[str, Any]]]] = defaultdict(list)
        for topic, event in known:
            if topic is MODEL_VERSIONS and event["stage"] == "champion":
                since = micro(event.get("changed_at") or event["registered_at"])
                self._champion_events[event["model"]].append((since, event["version"], event))
        self.known_labels = cache(self.known_labels)  # type: ignore[method-assign]
        self.new_labels = cache(self.new_labels)  # type: ignore[method-assign]
        self.data_freshness = cache(self.data_freshness)  # type: ignore[method-assign]
        self._made: dict[str, list[tuple[int, tuple[str, ...], dict[str, Any]]]] = defaultdict(list)
        for event in self.predictions.values():
            self._made[event["model"]].append((micro(event["predicted_at"]), self.segments_of(event), event))
        self._settled: dict[str, list[Any]] = defaultdict(list)
        for one in self.evaluated():
            self._settled[one.model].append(one)

    def champion(self, model: str, as_of: int) -> tuple[int, str, dict[str, Any]] | None:
        begun = [one for one in self._champion_events[model] if one[0] <= as_of * SECOND]
        return max(begun, key=lambda one: one[:2], default=None)

    def figures_of(self, model: str, version: str, segment: str, window: str, as_of: int) -> dict[str, Any]:
        """One set of figures, of the kind of most; ``version`` and ``segment`` empty for all."""
        span = range((as_of - WINDOWS[window]) * SECOND, as_of * SECOND)
        kind = self._kind(model, version, span.stop)
        made = [
            event
            for moment, segments, event in self._made[model]
            if moment in span and segment in segments and version in ("", event["model_version"])
        ]
        ever = [
            one
            for one in self._settled[model]
            if one.kind == kind
            and one.evaluated_at < span.stop
            and segment in one.segments
            and version in ("", one.version)
        ]
        return {
            **self._figures(
                kind,
                [event for event in made if kind_of(event) == kind],
                [one for one in ever if one.evaluated_at in span],
                [one for one in ever if one.evaluated_at < span.start],
            ),
            "predictions_of_other_kinds": sum(kind_of(event) != kind for event in made),
            "new_labels": self.new_labels(model, as_of),
            "data_freshness_seconds": self.data_freshness(model, as_of),
            "pipeline_freshness_seconds": self.pipeline_freshness(model, as_of),
        }

    def _kind(self, model: str, version: str, before: int) -> str:
        """Of most predictions that the version made before a moment; of most of the model's, if it made none."""
        known = [event for moment, _, event in self._made[model] if moment < before]
        of_version = [event for event in known if version in ("", event["model_version"])]
        return most(map(kind_of, of_version or known))


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where published figures are not the recomputed ones, exactly: name to (found, expected)."""
    wrong = {name: (found.get(name), figure) for name, figure in expected.items() if found.get(name) != figure}
    for name, kinds in DERIVED.items():
        has_it = expected["kind"] in kinds and expected["evaluated_predictions"] > 0
        if (found.get(name) is not None) != has_it:
            wrong[name] = (found.get(name), f"known exactly where {' and '.join(kinds)} predictions are evaluated")
    for name in found.keys() - expected.keys() - DERIVED.keys():
        wrong[name] = (found[name], "not recomputed")
    return wrong
