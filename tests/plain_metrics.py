"""What the metrics service should arrive at, computed again from the list of events in the plainest way.

Nothing of the service is used. Probabilities must be thousandths, so that squared errors are exact.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any

from tests.metrics_world import Fact

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 10**6
WINDOWS = {"1h": 3_600, "1d": 86_400, "7d": 604_800, "30d": 2_592_000, "all": 10**12}
DELAY_EDGES = (
    *(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 28_800),
    *(43_200, 64_800, 86_400, 129_600, 172_800, 259_200, 432_000, 604_800, 1_209_600, 1_814_400, 2_592_000),
    *(5_184_000, 7_776_000),
)


def micro(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


@cache
def log_loss(thousandths: int) -> int:
    """-ln of the probability given to what happened, clipped at 1e-15, in units of 1e-9."""
    with localcontext(prec=40):
        given = max(Decimal(thousandths) / 1000, Decimal(10) ** -15)
        return round(-given.ln() * 10**9)


@dataclass(frozen=True)
class Evaluated:
    """A prediction and its label, met. Moments in microseconds."""

    model: str
    version: str
    segments: tuple[str, ...]
    predicted_at: int
    evaluated_at: int
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
        delay = Fraction(self.evaluated_at - self.predicted_at, SECOND)
        return Counter(
            {
                2 * place + self.positive: 1,
                100 + place: self.thousandths * 10**6,
                150 + sum(delay >= edge for edge in DELAY_EDGES): 1,
            }
        )


class Plain:
    """The state and the figures that a set of events stands for, whatever order they came in.

    Policies are the exception: of several of one model the last in the list is the last received.
    """

    def __init__(self, facts: Iterable[Fact], *, interval: int = 60) -> None:
        self.bucket = min(60, interval)
        self.predictions: dict[str, dict[str, Any]] = {}
        self.labels: dict[str, tuple[int, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.champions: dict[str, tuple[int, str, dict[str, Any]]] = {}
        self.runs: list[dict[str, Any]] = []
        self.models: set[str] = set()
        for topic, event in facts:
            getattr(self, "_" + topic.name.replace("-", "_"))(event)

    def _predictions(self, event: dict[str, Any]) -> None:
        self.predictions.setdefault(event["prediction_id"], event)
        self.models.add(event["model"])

    def _labels(self, event: dict[str, Any]) -> None:
        found = (micro(event["observed_at"]), event["outcome"])
        standing = self.labels.get(event["entity_id"])
        if standing is None or self._rank(found) > self._rank(standing):
            self.labels[event["entity_id"]] = found

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

    def evaluated(self) -> Iterator[Evaluated]:
        for event in self.predictions.values():
            observed_at, outcome = self.labels.get(self.entity_of(event), (0, None))
            if isinstance(outcome, str) or outcome not in (0, 1):
                continue
            predicted_at = micro(event["predicted_at"])
            decided = event.get("predicted", int(event["probability"] >= 0.5))
            yield Evaluated(
                model=event["model"],
                version=event["model_version"],
                segments=self.segments_of(event),
                predicted_at=predicted_at,
                evaluated_at=max(predicted_at, observed_at),
                thousandths=round(event["probability"] * 1000),
                decided=decided == 1,
                positive=outcome == 1,
            )

    def buckets(self) -> dict[tuple[str, str, str, int, int], tuple[dict[str, int], dict[int, int]]]:
        """Sums and histograms by model, version, segment, width and start; empty ones left out."""
        sums: dict[Any, Counter[str]] = defaultdict(Counter)
        bins: dict[Any, Counter[int]] = defaultdict(Counter)

        def places(model: str, version: str, segments: tuple[str, ...], moment: int) -> Iterator[Any]:
            for segment in segments:
                for width in {self.bucket, 60, 3_600, 86_400}:
                    yield model, version, segment, width, moment // SECOND // width * width

        for event in self.predictions.values():
            segments = self.segments_of(event)
            for key in places(event["model"], event["model_version"], segments, micro(event["predicted_at"])):
                sums[key]["predictions"] += 1
        for one in self.evaluated():
            for key in places(one.model, one.version, one.segments, one.predicted_at):
                sums[key]["labelled"] += 1
            for key in places(one.model, one.version, one.segments, one.evaluated_at):
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
        """The winning labels of the entities that the model has predicted."""
        entities = {self.entity_of(one) for one in self.predictions.values() if one["model"] == model}
        return {entity: self.labels[entity] for entity in entities if entity in self.labels}

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
            versions = judged | {event["model_version"] for event in own}
            segments = {""} | {segment for event in own for segment in self.segments_of(event)}
            for version in versions:
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
                        settled = [
                            one
                            for one in evaluated
                            if one.model == model
                            and version in ("", one.version)
                            and segment in one.segments
                            and one.evaluated_at in span
                        ]
                        if made or settled or (version in judged and not segment):
                            found[model, version, segment, window] = self._figures(made, settled, model, as_of)
        return found

    def _figures(
        self, made: list[dict[str, Any]], settled: list[Evaluated], model: str, as_of: int
    ) -> dict[str, Any]:
        labelled = sum(
            not isinstance(self.labels.get(self.entity_of(event), (0, None))[1], str)
            and self.labels.get(self.entity_of(event), (0, None))[1] in (0, 1)
            for event in made
        )
        count = len(settled)
        total: Counter[str] = Counter()
        for one in settled:
            total.update(one.sums)

        def share(amount: int, unit: int = 1, of: int = count) -> float | None:
            return float(Fraction(amount, of * unit)) if of else None

        return {
            "kind": "binary",
            "predictions": len(made),
            "labels_awaited": len(made) - labelled,
            "label_coverage": share(labelled, of=len(made)),
            "evaluated_predictions": count,
            "accuracy": share(total["correct"]),
            "brier_score": share(total["squared_error"], 10**12),
            "log_loss": share(total["log_loss"], 10**9),
            "auc": auc(settled),
            "positive_rate": share(total["positives"]),
            "predicted_positive_rate": share(total["predicted_positives"]),
            "reliability": reliability(settled),
            "new_labels": self.new_labels(model, as_of),
            "data_freshness_seconds": self.data_freshness(model, as_of),
            "pipeline_freshness_seconds": self.pipeline_freshness(model, as_of),
        }


def _age(moments: list[int], as_of: int) -> float | None:
    before = [moment for moment in moments if moment < as_of * SECOND]
    return float(Fraction(as_of * SECOND - max(before), SECOND)) if before else None


def auc(settled: list[Evaluated]) -> float | None:
    """Over all pairs of a positive and a negative; scores are bins of 0.02, ties count half."""
    binned = [(min(int(one.thousandths / 1000 * 50), 49), one.positive) for one in settled]
    pairs = [(high, low) for high, positive in binned if positive for low, other in binned if not other]
    won = sum((high > low) * 2 + (high == low) for high, low in pairs)
    return float(Fraction(won, 2 * len(pairs))) if pairs else None


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
