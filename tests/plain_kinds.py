"""Multiclass and regression predictions, evaluated again in the plainest way: see :mod:`tests.plain_metrics`.

Class probabilities must be thousandths, so that squared errors are exact; values may be any numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any

SECOND = 10**6
KINDS = ("binary", "multiclass", "regression")
DELAY_EDGES = (
    *(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 28_800),
    *(43_200, 64_800, 86_400, 129_600, 172_800, 259_200, 432_000, 604_800, 1_209_600, 1_814_400, 2_592_000),
    *(5_184_000, 7_776_000),
)


def kind_of(event: Mapping[str, Any]) -> str:
    """Of what kind a prediction is: what it gives says so."""
    return {"probability": "binary", "probabilities": "multiclass", "value": "regression"}[
        next(name for name in ("probability", "probabilities", "value") if event.get(name) is not None)
    ]


def most(kinds: Iterable[str]) -> str:
    """The kind of most; of equally many the first of ``KINDS``."""
    counts = Counter(kinds)
    return min(KINDS, key=lambda kind: (-counts[kind], KINDS.index(kind)))


@cache
def log_loss(thousandths: int) -> int:
    """-ln of the probability given to what happened, clipped at 1e-15, in units of 1e-9."""
    with localcontext(prec=40):
        given = max(Decimal(thousandths) / 1000, Decimal(10) ** -15)
        return round(-given.ln() * 10**9)


def delay_bin(predicted_at: int, evaluated_at: int) -> int:
    delay = Fraction(evaluated_at - predicted_at, SECOND)
    return 150 + sum(delay >= edge for edge in DELAY_EDGES)


@dataclass(frozen=True)
class Settled:
    """A prediction and its label, met. Moments in microseconds."""

    model: str
    version: str
    segments: tuple[str, ...]
    predicted_at: int
    evaluated_at: int

    @property
    def delay(self) -> Counter[Any]:
        return Counter({delay_bin(self.predicted_at, self.evaluated_at): 1})


@dataclass(frozen=True)
class Classified(Settled):
    """A multiclass prediction: what happened, what was decided, and the thousandths that each class was given."""

    kind = "multiclass"
    thousandths: dict[str, int]
    decided: str
    happened: str

    @property
    def sums(self) -> Counter[Any]:
        given = self.thousandths.get(self.happened, 0)
        errors = {name: part for name, part in self.thousandths.items() if name != self.happened}
        squared = sum(part * part for part in errors.values()) + (1000 - given) ** 2
        return Counter(
            evaluated=1,
            correct=int(self.decided == self.happened),
            squared_error=squared * 10**6,
            log_loss=log_loss(given),
        )

    @property
    def bins(self) -> Counter[Any]:
        return self.delay + Counter(
            {("support", self.happened): 1, ("hits", self.happened): int(self.decided == self.happened)}
        )


@dataclass(frozen=True)
class Measured(Settled):
    """A regression prediction: how far it was above what happened, exactly."""

    kind = "regression"
    error: Fraction

    @property
    def sums(self) -> Counter[Any]:
        return Counter(evaluated=1)

    @property
    def bins(self) -> Counter[Any]:
        found = self.delay
        found["error"] += self.error  # type: ignore[assignment]  # exact, like every other count
        found["absolute_error"] += abs(self.error)  # type: ignore[assignment]
        found["squared_error"] += self.error**2  # type: ignore[assignment]
        return found


def settle(event: Mapping[str, Any], outcome: Any, place: dict[str, Any]) -> Classified | Measured | None:
    """Evaluate a prediction that is not binary; None where the outcome is none of its kind."""
    if outcome is None:
        return None
    if kind_of(event) == "regression":
        if isinstance(outcome, str):
            return None
        return Measured(error=exactly(event["value"]) - exactly(outcome), **place)
    given = {name: round(part * 1000) for name, part in event["probabilities"].items()}
    happened = outcome if isinstance(outcome, str) else f"{outcome:.0f}"
    if not isinstance(outcome, str) and (outcome != int(outcome) or happened not in given):
        return None
    decided = event.get("predicted") or min(given, key=lambda name: (-given[name], name))
    return Classified(thousandths=given, decided=decided, happened=happened, **place)


def exactly(number: float) -> Fraction:
    """A number as the decimal that it is written as."""
    return Fraction(repr(float(number)))


def rounded(value: Fraction) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def root(square: Fraction) -> float | None:
    with localcontext(prec=3_000):
        found = float((Decimal(square.numerator) / Decimal(square.denominator)).sqrt())
    return None if found == float("inf") else found


def quality(kind: str, settled: list[Any], earlier: list[Any]) -> dict[str, Any]:
    """The figures that a multiclass or a regression model has of its own; the others are null."""
    count = len(settled)
    bins: Counter[Any] = Counter()
    for one in settled:
        for name, amount in one.bins.items():
            bins[name] += amount
    if kind == "multiclass":
        happened = {name: n for (what, name), n in ((k, v) for k, v in bins.items() if isinstance(k, tuple))
                    if what == "support"}  # fmt: skip
        listed = sorted(happened, key=lambda name: (-happened[name], name))[:100]
        return {
            "classes": len(happened),
            "class_recall": [
                {
                    "name": name,
                    "support": happened[name],
                    "recall": float(Fraction(bins["hits", name], happened[name])),
                }
                for name in listed
            ],
        }
    if kind == "regression":
        before = [abs(one.error) for one in earlier]
        return {
            "mae": rounded(Fraction(bins["absolute_error"]) / count) if count else None,
            "rmse": root(Fraction(bins["squared_error"]) / count) if count else None,
            "bias": rounded(Fraction(bins["error"]) / count) if count else None,
            "baseline_mae": rounded(sum(before, Fraction(0)) / len(before)) if before else None,
            "baseline_evaluated_predictions": len(before),
        }
    return {}
