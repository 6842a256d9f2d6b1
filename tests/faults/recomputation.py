"""The plain recomputation, quick enough to be asked for many figures of many records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

from shared.topics import MODEL_VERSIONS
from tests.metrics_world import Fact
from tests.plain_metrics import SECOND, WINDOWS, Plain, micro

DERIVED = frozenset({"accuracy_interval_95", "ece", "label_delay_p50_seconds", "label_delay_p95_seconds"})
"""Figures that the plain recomputation leaves out: their formulas are tested as such."""


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
        """One set of figures; ``version`` and ``segment`` empty for all."""
        span = range((as_of - WINDOWS[window]) * SECOND, as_of * SECOND)
        made = [
            event
            for moment, segments, event in self._made[model]
            if moment in span and segment in segments and version in ("", event["model_version"])
        ]
        settled = [
            one
            for one in self._settled[model]
            if one.evaluated_at in span and segment in one.segments and version in ("", one.version)
        ]
        return {
            # The traffic is of binary models alone.
            **self._figures("binary", made, settled, []),
            "predictions_of_other_kinds": 0,
            "new_labels": self.new_labels(model, as_of),
            "data_freshness_seconds": self.data_freshness(model, as_of),
            "pipeline_freshness_seconds": self.pipeline_freshness(model, as_of),
        }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Where published figures are not the recomputed ones, exactly: name to (found, expected)."""
    wrong = {name: (found.get(name), figure) for name, figure in expected.items() if found.get(name) != figure}
    for name in DERIVED:
        if (found.get(name) is None) != (expected["evaluated_predictions"] == 0):
            wrong[name] = (found.get(name), "null exactly where nothing is evaluated")
    for name in found.keys() - expected.keys() - DERIVED:
        wrong[name] = (found[name], "not recomputed")
    return wrong
