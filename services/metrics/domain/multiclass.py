"""What a multiclass prediction contributes, and the figures made of it.

Squared error in units of 1e-12 and log loss in units of 1e-9, as :mod:`contributions` has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from services.metrics.domain.contributions import PROBABILITY_CLIP, log_loss_units

CLASSES_TOLD = 100
"""Classes whose recall a set of figures tells: the most frequent ones."""

_HEAD = np.dtype([("class_set_id", "<i8"), ("decided", "<i8")])
_PAIR = np.dtype([("squared_error", "<i8"), ("log_loss", "<i8")])


@dataclass(frozen=True, slots=True)
class ClassScores:
    """What a prediction contributes, whichever class happens.

    ``classes`` ascend by code point and ``decided`` is the place among them of the class that was decided.
    ``squared_errors`` and ``log_losses`` are by place, and one more: for a class that is not named.
    """

    classes: tuple[str, ...]
    decided: int
    squared_errors: tuple[int, ...]
    log_losses: tuple[int, ...]

    def place_of(self, outcome: float | str | None) -> int | None:
        """The place of the class that happened; None where the outcome names no class.

        A text names a class, one that the prediction gave no probability where it does not name it. A whole number
        names the class that is spelled so (``3`` is ``"3"``), if the prediction has it: keys of JSON are texts.
        """
        if isinstance(outcome, str):
            return self.classes.index(outcome) if outcome in self.classes else len(self.classes)
        if outcome is None or not outcome.is_integer():
            return None
        name = str(int(outcome))
        return self.classes.index(name) if name in self.classes else None


def score_classes(probabilities: Mapping[str, float], predicted: str | None) -> ClassScores:
    """Score class probabilities against every outcome.

    Squared error is Brier's own: the sum over all classes of (probability - 1 for what happened, else 0) squared,
    from 0 to 2 (Brier 1950). Log loss is -ln of the probability given to what happened, clipped at 1e-15. The
    class decided is ``predicted``, else the most probable one, of equally probable ones the first by code point.
    """
    classes = tuple(sorted(probabilities))
    given = [probabilities[name] for name in classes]
    squares = [probability * probability for probability in given]
    # math.fsum is exact before it rounds once: the order of the classes plays no part.
    total = math.fsum(squares)
    errors = [
        math.fsum((total, -square, (1.0 - probability) * (1.0 - probability)))
        for square, probability in zip(squares, given, strict=True)
    ]
    decided = classes.index(predicted) if predicted is not None else given.index(max(given))
    return ClassScores(
        classes=classes,
        decided=decided,
        squared_errors=tuple(round(error * 1e12) for error in (*errors, total + 1.0)),
        log_losses=tuple(log_loss_units(probability) for probability in (*given, PROBABILITY_CLIP)),
    )


def encode_scores(scores: ClassScores, class_set_id: int) -> bytes:
    """The stored form; the names of the classes are kept once, under the id of their set."""
    head = np.array([(class_set_id, scores.decided)], dtype=_HEAD)
    pairs = np.array(list(zip(scores.squared_errors, scores.log_losses, strict=True)), dtype=_PAIR)
    return head.tobytes() + pairs.tobytes()


def class_set_of(stored: bytes) -> int:
    """The id of the set of classes that stored scores are of."""
    return int(np.frombuffer(stored, dtype=_HEAD, count=1)["class_set_id"][0])


def decode_scores(stored: bytes, classes: tuple[str, ...]) -> ClassScores:
    """The inverse of :func:`encode_scores`."""
    head = np.frombuffer(stored, dtype=_HEAD, count=1)
    pairs = np.frombuffer(stored, dtype=_PAIR, offset=_HEAD.itemsize)
    return ClassScores(
        classes=classes,
        decided=int(head["decided"][0]),
        squared_errors=tuple(pairs["squared_error"].tolist()),
        log_losses=tuple(pairs["log_loss"].tolist()),
    )


_COUNT = np.dtype([("class_id", "<i8"), ("support", "<i8"), ("hits", "<i8")])

ClassCounts = dict[int, tuple[int, int]]
"""By class id: how often the class happened (support), and how often it was decided then (hits)."""


def encode_counts(counts: Mapping[int, tuple[int, int]]) -> bytes:
    """The stored form: (class id, support, hits), each an int64, little-endian, ids ascending, zeros left out."""
    kept = [(class_id, *count) for class_id, count in sorted(counts.items()) if any(count)]
    return np.array(kept, dtype=_COUNT).tobytes() if kept else b""


def total_counts(stored: Iterable[bytes]) -> ClassCounts:
    """The sum of stored counts (of events, so 64 bits hold it)."""
    rows = np.frombuffer(b"".join(stored), dtype=_COUNT)
    ids, places = np.unique(rows["class_id"], return_inverse=True)
    support, hits = np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
    np.add.at(support, places, rows["support"])
    np.add.at(hits, places, rows["hits"])
    found = zip(ids.tolist(), support.tolist(), hits.tolist(), strict=True)
    return {class_id: (happened, decided) for class_id, happened, decided in found if happened or decided}


@dataclass(frozen=True, slots=True)
class RecallRow:
    """A class that happened ``support`` times, and the share of them in which it was decided."""

    name: str
    support: int
    recall: float

    def known(self) -> dict[str, str | int | float]:
        """The fields by name."""
        return {"name": self.name, "support": self.support, "recall": self.recall}


def class_recall(counts: Mapping[str, tuple[int, int]]) -> tuple[RecallRow, ...]:
    """Recall (hits / support) of the most frequent classes, of equally frequent ones the first by code point."""
    frequent = sorted(counts, key=lambda name: (-counts[name][0], name))[:CLASSES_TOLD]
    return tuple(RecallRow(name, counts[name][0], counts[name][1] / counts[name][0]) for name in frequent)
