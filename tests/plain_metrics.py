"""What the metrics service should arrive at, computed again from the list of events in the plainest way.

Nothing of the service is used. Probabilities must be thousandths, so that squared errors are exact.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from typing import Any

from tests.metrics_world import Fact
from tests.plain_kinds import (
    SECOND,
    Classified,
    Measured,
    Settled,
    delay_bin,
    kind_of,
    log_loss,
    most,
    quality,
    settle,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WINDOWS = {"1h": 3_600, "1d": 86_400, "7d": 604_800, "30d": 2_592_000, "all": 10**12}


@cache
def micro(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True)
class Evaluated(Settled):
    """A binary prediction and its label, met."""

    kind = "binary"
    thousandths: int
    decided: bool
    positive: bool

    @property
    def sums(self) -> Counter[str]:
        missed = 1000 - self.thousandths if self.positive else self.thousandths
        return Counter(
            evaluated=1,
            correct=int(self.decided == self.positive),
            positives=int(self.positive),
            predicted_positives=int(self.decided),
            squared_error=missed * missed * 10**6,
            log_loss=log_loss(1000 - missed),
        )

    @property
    def bins(self) -> Counter[int]:
        """Bins of the histograms: outcomes by probability, sums of probabilities, delays."""
        place = min(int(self.thousandths / 1000 * 50), 49)
        return Counter(
            {
                2 * place + self.positive: 1,
                100 + place: self.thousandths * 10**6,
                delay_bin(self.predicted_at, self.evaluated_at): 1,
            }
        )


class Plain:
    """The state and the figures that a set of events stands for, whatever order they came in.

    Policies are the exception: of several of one model the last in the list is the last received.
    """

    def __init__(
        self,
        facts: Iterable[Fact],
        *,
        interval: int = 60,
        label_horizon: int = 90 * 86_400,
        correction_horizon: int = 30 * 86_400,
    ) -> None:
        self.bucket = min(60, interval)
        self.label_horizon = label_horizon * SECOND
        self.heard: dict[str, list[tuple[int, Any]]] = defaultdict(list)
        self.predictions: dict[str, dict[str, Any]] = {}
        self.labels: dict[str, tuple[int, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.champions: dict[str, tuple[int, str, dict[str, Any]]] = {}
        self.runs: list[dict[str, Any]] = []
        self.models: set[str] = set()
        for topic, event in facts:
            getattr(self, "_" + topic.name.replace("-", "_"))(event)
        for entity, heard in self.heard.items():
            last = self.first(entity) + correction_horizon * SECOND
            self.labels[entity] = max((one for one in heard if one[0] <= last), key=self._rank)

    def _predictions(self, event: dict[str, Any]) -> None:
        self.predictions.setdefault(event["prediction_id"], event)
        self.models.add(event["model"])

    def _labels(self, event: dict[str, Any]) -> None:
        self.heard[event["entity_id"]].append((micro(event["observed_at"]), event["outcome"]))

    def first(self, entity: str) -> int:
        """When the first of an entity's labels was observed."""
        return min(observed_at for observed_at, _ in self.heard[entity])

    def label_of(self, event: dict[str, Any]) -> tuple[int, Any] | None:
        """The label that counts for a prediction: none whose first lies beyond the label horizon."""
        entity = self.entity_of(event)
        if entity not in self.labels:
            return None
        apart = abs(self.first(entity) - micro(event["predicted_at"]))
        return self.labels[entity] if apart <= self.label_horizon else None

    @staticmethod
    def _rank(found: tuple[int, Any]) -> tuple[Any, ...]:
        observed_at, outcome = found
        if outcome is None:
            return (observed_at, 3)
        return (observed_at, 2, outcome) if isinstance(outcome, str) else (observed_at, 1, outcome)

    def _policies(self, event: dict[str, Any]) -> None:
        self.policies[event["model"]] = event
        self.models.add(event["model"])

    def _model_versions(self, event: dict[str, Any]) -> None:
        self.models.add(event["model"])
        if event["stage"] == "champion":
            found = (micro(event.get("changed_at") or event["registered_at"]), event["version"], event)
            self.champions[event["model"]] = max(
                self.champions.get(event["model"], found), found, key=lambda x: x[:2]
            )

    def _pipeline_runs(self, event: dict[str, Any]) -> None:
        self.runs.append(event)

    def segments_of(self, event: dict[str, Any]) -> tuple[str, ...]:
        """All of the version, and the value of each dimension that the model's newest policy declares."""
        declared = self.policies.get(event["model"], {}).get("segments", {})
        values = event.get("segment", {})
        return (
            "",
            *(
                f"{dimension}:{values[dimension] if values.get(dimension) in known else 'other'}"
                for dimension, known in declared.items()
            ),
        )

    @staticmethod
    def entity_of(event: dict[str, Any]) -> str:
        entity: str = event.get("entity_id", event["prediction_id"])
        return entity

    def evaluation(self, event: dict[str, Any]) -> Evaluated | Classified | Measured | None:
        """What a prediction and the label of its entity make; None while they make nothing."""
        observed_at, outcome = self.label_of(event) or (0, None)
        predicted_at = micro(event["predicted_at"])
        place: dict[str, Any] = {
            "model": event["model"],
            "version": event["model_version"],
            "segments": self.segments_of(event),
            "predicted_at": predicted_at,
            "evaluated_at": max(predicted_at, observed_at),
        }
        if kind_of(event) != "binary":
            return settle(event, outcome, place)
        if isinstance(outcome, str) or outcome not in (0, 1):
            return None
        decided = event.get("predicted", int(event["probability"] >= 0.5))
        return Evaluated(
            thousandths=round(event["probability"] * 1000), decided=decided == 1, positive=outcome == 1, **place
        )

    def evaluated(self) -> Iterator[Evaluated | Classified | Measured]:
        found = map(self.evaluation, self.predictions.values())
        return (one for one in found if one is not None)

    def buckets(self) -> dict[tuple[str, str, str, str, int, int], tuple[dict[str, int], dict[Any, Any]]]:
        """Sums, histograms and details by model, version, kind, segment, width and start; empty ones left out."""
        sums: dict[Any, Counter[str]] = defaultdict(Counter)
        bins: dict[Any, Counter[Any]] = defaultdict(Counter)

        def places(model: str, version: str, kind: str, segments: tuple[str, ...], moment: int) -> Iterator[Any]:
            for segment in segments:
                for width in {self.bucket, 60, 3_600, 86_400}:
                    yield model, version, kind, segment, width, moment // SECOND // width * width

        for event in self.predictions.values():
            of = (event["model"], event["model_version"], kind_of(event), self.segments_of(event))
            for key in places(*of, micro(event["predicted_at"])):
                sums[key]["predictions"] += 1
        for one in self.evaluated():
            for key in places(one.model, one.version, one.kind, one.segments, one.predicted_at):
                sums[key]["labelled"] += 1
            for key in places(one.model, one.version, one.kind, one.segments, one.evaluated_at):
                sums[key].update(one.sums)
                bins[key].update(one.bins)
        return {
            key: (
                {name: n for name, n in found.items() if n},
                {place: n for place, n in bins[key].items() if n},
            )
            for key, found in sums.items()
        }

    def known_labels(self, model: str) -> dict[str, tuple[int, Any]]:
        """The winning labels of the entities that the model has predicted, not too long before or after."""
        own = [one for one in self.predictions.values() if one["model"] == model]
        return {self.entity_of(one): label for one in own if (label := self.label_of(one)) is not None}

    def label_buckets(self) -> dict[tuple[str, int], tuple[int, int | None, int | None]]:
        """By model and start: labelled entities, newest label, newest data; empty ones left out."""
        found: dict[tuple[str, int], list[Any]] = defaultdict(lambda: [0, None, None])
        for model in self.models:
            for observed_at, outcome in self.known_labels(model).values():
                row = found[model, observed_at // SECOND // self.bucket * self.bucket]
                row[0] += outcome is not None
                row[1] = max(observed_at, row[1] or observed_at)
        for event in self.predictions.values():
            if event.get("data_as_of"):
                moment = micro(event["data_as_of"])
                row = found[event["model"], moment // SECOND // self.bucket * self.bucket]
                row[2] = max(moment, row[2] or moment)
        return {key: (row[0], row[1], row[2]) for key, row in found.items()}

    def champion(self, model: str, as_of: int) -> tuple[int, str, dict[str, Any]] | None:
        found = self.champions.get(model)
        assert found is None or found[0] <= as_of * SECOND, "champions of the future are not modelled here"
        return found

    def new_labels(self, model: str, as_of: int) -> int:
        """Distinct entities with a standing label later than the limit, and before ``as_of`` (seconds)."""
        found = self.champion(model, as_of)
        limit = -(10**20)
        if found is not None:
            trained = found[2].get("trained_through")
            limit = found[0] if trained is None else micro(trained)
        return sum(
            limit < observed_at < as_of * SECOND
            for observed_at, outcome in self.known_labels(model).values()
            if outcome is not None
        )

    def data_freshness(self, model: str, as_of: int) -> float | None:
        moments = [observed_at for observed_at, _ in self.known_labels(model).values()]
        moments += [
            micro(one["data_as_of"])
            for one in self.predictions.values()
            if one["model"] == model and one.get("data_as_of")
        ]
        return _age(moments, as_of)

    def pipeline_freshness(self, model: str, as_of: int) -> float | None:
        return _age(
            [
                micro(one["completed_at"])
                for one in self.runs
                if one["status"] == "success" and one.get("model", model) == model
            ],
            as_of,
        )

    def figures(self, as_of: int) -> dict[tuple[str, str, str, str], dict[str, Any]]:
        """By model, version, segment and window: every set of predictions that has any, and those judged."""
        evaluated = list(self.evaluated())
        found = {}
        for model in self.models:
            champion = self.champion(model, as_of)
            judged = {""} | ({champion[1]} if champion else set())
            own = [event for event in self.predictions.values() if event["model"] == model]
            known = [event for event in own if micro(event["predicted_at"]) < as_of * SECOND]
            versions = judged | {event["model_version"] for event in own}
            segments = {""} | {segment for event in own for segment in self.segments_of(event)}
            for version in versions:
                of_version = [event for event in known if version in ("", event["model_version"])]
                kind = most(kind_of(event) for event in of_version or known)
                for segment in segments:
                    for window, length in WINDOWS.items():
                        span = range((as_of - length) * SECOND, as_of * SECOND)
                        made = [
                            event
                            for event in own
                            if version in ("", event["model_version"])
                            and segment in self.segments_of(event)
                            and micro(event["predicted_at"]) in span
                        ]
                        ever = [
                            one
                            for one in evaluated
                            if one.model == model
                            and version in ("", one.version)
                            and segment in one.segments
                            and one.evaluated_at < as_of * SECOND
                        ]
                        settled = [one for one in ever if one.evaluated_at in span]
                        if made or settled or (version in judged and not segment):
                            earlier = [one for one in ever if one.kind == kind and one.evaluated_at < span.start]
                            found[model, version, segment, window] = {
                                **self._figures(
                                    kind,
                                    [event for event in made if kind_of(event) == kind],
                                    [one for one in settled if one.kind == kind],
                                    earlier,
                                ),
                                "predictions_of_other_kinds": sum(kind_of(event) != kind for event in made),
                                "new_labels": self.new_labels(model, as_of),
                                "data_freshness_seconds": self.data_freshness(model, as_of),
                                "pipeline_freshness_seconds": self.pipeline_freshness(model, as_of),
                            }
        return found

    def _figures(
        self, kind: str, made: list[dict[str, Any]], settled: list[Any], earlier: list[Any]
    ) -> dict[str, Any]:
        labelled = sum(self.evaluation(event) is not None for event in made)
        count = len(settled)
        decides, binary = kind != "regression", kind == "binary"
        total: Counter[str] = Counter()
        for one in settled:
            total.update(one.sums)

        def share(amount: int, unit: int = 1, of: int = count) -> float | None:
            return float(Fraction(amount, of * unit)) if of else None

        return {
            "kind": kind,
            "predictions": len(made),
            "labels_awaited": len(made) - labelled,
            "label_coverage": share(labelled, of=len(made)),
            "evaluated_predictions": count,
            "accuracy": share(total["correct"]) if decides else None,
            "brier_score": share(total["squared_error"], 10**12) if decides else None,
            "log_loss": share(total["log_loss"], 10**9) if decides else None,
            "auc": auc(settled) if binary else None,
            "positive_rate": share(total["positives"]) if binary else None,
            "predicted_positive_rate": share(total["predicted_positives"]) if binary else None,
            "reliability": reliability(settled) if binary else [],
            **dict.fromkeys(OF_OTHER_KINDS),
            "class_recall": [],
            **quality(kind, settled, earlier),
        }


OF_OTHER_KINDS = ("classes", "mae", "rmse", "bias", "baseline_mae", "baseline_evaluated_predictions")


def _age(moments: list[int], as_of: int) -> float | None:
    before = [moment for moment in moments if moment < as_of * SECOND]
    return float(Fraction(as_of * SECOND - max(before), SECOND)) if before else None


def auc(settled: list[Evaluated]) -> float | None:
    """Over all pairs of a positive and a negative; scores are bins of 0.02, ties count half."""
    binned = Counter((min(int(one.thousandths / 1000 * 50), 49), one.positive) for one in settled)
    pairs = [
        (high, low, count * other)
        for (high, positive), count in binned.items()
        for (low, also_positive), other in binned.items()
        if positive and not also_positive
    ]
    won = sum(((high > low) * 2 + (high == low)) * count for high, low, count in pairs)
    total = sum(count for _, _, count in pairs)
    return float(Fraction(won, 2 * total)) if pairs else None


def reliability(settled: list[Evaluated]) -> list[dict[str, float]]:
    rows = []
    for tenth in range(10):
        inside = [one for one in settled if min(one.thousandths // 100, 9) == tenth]
        count = len(inside)
        if inside:
            rows.append(
                {
                    "lower": tenth / 10,
                    "upper": (tenth + 1) / 10,
                    "count": count,
                    "mean_probability": float(Fraction(sum(one.thousandths for one in inside), 1000 * count)),
                    "positive_rate": float(Fraction(sum(one.positive for one in inside), count)),
                }
            )
    return rows
