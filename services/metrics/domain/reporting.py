"""What is told of a model: its figures by version, segment and window, each of one kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from services.metrics.domain import figures, regression
from services.metrics.domain.buckets import WINDOW_SECONDS
from services.metrics.domain.figures import NOTHING, Totals
from services.metrics.domain.kinds import Kind, kind_of
from services.metrics.domain.multiclass import class_recall
from services.metrics.domain.regression import ERROR_UNITS, SQUARED_ERROR_UNITS

FigureKey = tuple[str, str, str]
"""Version (empty: all together), segment (empty: all), window."""
Figures = dict[str, Any]
"""The fields of the contract ``Metrics``: one set becomes part of a snapshot, all are published as JSON."""
TotalsByKind = Mapping[Kind, Totals]

ALL_TIME = "all"


def figures_of(
    totals: Mapping[FigureKey, TotalsByKind], champion: str | None, facts: Mapping[str, Any]
) -> dict[FigureKey, Figures]:
    """All that :func:`each_set_of_figures` tells."""
    return dict(each_set_of_figures(totals, champion, facts))


def each_set_of_figures(
    totals: Mapping[FigureKey, TotalsByKind], champion: str | None, facts: Mapping[str, Any]
) -> Iterator[tuple[FigureKey, Figures]]:
    """Figures of every version, segment and window that has sums; of all versions together in every window.

    A version is of the kind of most of its predictions ever made, all together of that of most of theirs, and a
    champion that predicted nothing yet of the model's. ``facts`` are told with every set of figures. Sets that are
    the same may be one object.
    """
    found: dict[FigureKey, dict[Kind, Totals]] = {("", "", window): {} for window in WINDOW_SECONDS}
    for (_, segment, window), by_kind in totals.items():
        together = found.setdefault(("", segment, window), {})
        for kind, sums in by_kind.items():
            together[kind] = together[kind].plus(sums) if kind in together else sums
    if champion is not None:
        found.update({(champion, "", window): {} for window in WINDOW_SECONDS})
    found.update({key: dict(by_kind) for key, by_kind in totals.items()})
    kinds = _kinds_of_versions(found)
    made: dict[tuple[object, ...], Figures] = {}
    for (version, segment, window), by_kind in found.items():
        kind, ever = kinds[version], found.get((version, segment, ALL_TIME), {})
        # A single version is all versions together, and the windows of a young model hold the same: sums that are
        # one object have one set of figures.
        same = (kind, *((name, id(sums)) for name, sums in by_kind.items()), "ever", id(ever.get(kind)))
        if same not in made:
            made[same] = _figures(kind, by_kind, ever, facts)
        yield (version, segment, window), made[same]


def _kinds_of_versions(found: Mapping[FigureKey, TotalsByKind]) -> dict[str, Kind]:
    counts = {
        version: {kind: sums.predictions for kind, sums in by_kind.items()}
        for (version, segment, window), by_kind in found.items()
        if not segment and window == ALL_TIME
    }
    of_model = kind_of(counts[""])
    kinds: dict[str, Kind] = defaultdict(lambda: of_model)
    kinds.update({version: kind_of(count) if count else of_model for version, count in counts.items()})
    return kinds


def _figures(kind: Kind, by_kind: TotalsByKind, ever: TotalsByKind, facts: Mapping[str, Any]) -> Figures:
    totals = by_kind.get(kind, NOTHING)
    vector = totals.vector
    return {
        "kind": kind,
        "predictions": totals.predictions,
        "labels_awaited": totals.predictions - totals.labelled,
        "label_coverage": figures.ratio(totals.labelled, totals.predictions),
        "label_delay_p50_seconds": figures.delay_quantile(vector, 0.5),
        "label_delay_p95_seconds": figures.delay_quantile(vector, 0.95),
        "evaluated_predictions": totals.evaluated,
        **_NO_MEANING,
        **_quality(kind, totals, ever.get(kind, NOTHING)),
        "predictions_of_other_kinds": sum(other.predictions for name, other in by_kind.items() if name != kind),
        **facts,
    }


_NO_MEANING: Figures = {
    "accuracy": None,
    "accuracy_interval_95": None,
    "brier_score": None,
    "log_loss": None,
    "auc": None,
    "ece": None,
    "positive_rate": None,
    "predicted_positive_rate": None,
    "reliability": (),
    "classes": None,
    "class_recall": (),
    "mae": None,
    "rmse": None,
    "bias": None,
    "baseline_mae": None,
    "baseline_evaluated_predictions": None,
}
"""What a figure says that has no meaning for a kind."""


def _quality(kind: Kind, totals: Totals, ever: Totals) -> Figures:
    match kind:
        case "binary":
            return {**_of_decisions(totals), **_of_probabilities(totals)}
        case "multiclass":
            return {
                **_of_decisions(totals),
                "classes": len(totals.detail.classes),
                "class_recall": tuple(row.known() for row in class_recall(totals.detail.classes)),
            }
        case "regression":
            return _of_errors(totals, ever)


def _of_decisions(totals: Totals) -> Figures:
    return {
        "accuracy": figures.ratio(totals.correct, totals.evaluated),
        "accuracy_interval_95": figures.wilson_interval(totals.correct, totals.evaluated),
        "brier_score": figures.mean_squared_error(totals),
        "log_loss": figures.mean_log_loss(totals),
    }


def _of_probabilities(totals: Totals) -> Figures:
    vector = totals.vector
    reliability = figures.reliability(vector)
    return {
        "auc": figures.auc(vector),
        "ece": figures.expected_calibration_error(reliability),
        "positive_rate": figures.ratio(totals.positives, totals.evaluated),
        "predicted_positive_rate": figures.ratio(totals.predicted_positives, totals.evaluated),
        "reliability": tuple(row.known() for row in reliability),
    }


def _of_errors(totals: Totals, ever: Totals) -> Figures:
    """Errors in the unit of the outcome, and the mean absolute error of all that was evaluated before the window.

    MAE is the mean of |predicted - happened|, RMSE the root of the mean of its square, bias the mean of
    predicted - happened (Willmott and Matsuura 2005).
    """
    detail, count = totals.detail, totals.evaluated
    earlier = ever.evaluated - count
    return {
        "mae": regression.mean(detail.absolute_error, ERROR_UNITS, count),
        "rmse": regression.root_mean(detail.squared_error, SQUARED_ERROR_UNITS, count),
        "bias": regression.mean(detail.error, ERROR_UNITS, count),
        "baseline_mae": regression.mean(ever.detail.absolute_error - detail.absolute_error, ERROR_UNITS, earlier),
        "baseline_evaluated_predictions": earlier,
    }
