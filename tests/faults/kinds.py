"""What models of every kind say, what may happen to an entity, and what contradicts a prediction."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.plain_kinds import KINDS, kind_of

KIND_OF_MODEL = {
    "alpha": "binary",
    "beta": "binary",
    "gamma / ü": "binary",
    "delta": "multiclass",
    "epsilon": "regression",
}
CLASSES = ("cat", "dog", "1", "0")
"""The last two are what a label of a binary model names too."""
TINY = 5e-324
"""The smallest float: with it every sum of errors has 324 places, and the figures none but their first ones."""


def answer(kind: str, chance: Random) -> dict[str, Any]:
    """What a prediction of the kind gives, in thousandths; sometimes the decision beside it."""
    decides = chance.random() < 0.2
    if kind == "binary":
        said: dict[str, Any] = {"probability": chance.randrange(1001) / 1000}
        return said | ({"predicted": chance.randrange(2)} if decides else {})
    if kind == "multiclass":
        names = chance.sample(CLASSES, chance.choice([3, 4]))
        cuts = [0, *sorted(chance.randrange(1001) for _ in names[1:]), 1000]
        parts = {name: (cuts[n + 1] - cuts[n]) / 1000 for n, name in enumerate(names)}
        return {"probabilities": parts} | ({"predicted": chance.choice(names)} if decides else {})
    return {"value": chance.choice([TINY, -TINY]) if chance.random() < 0.01 else _thousandths(chance)}


def outcome(kind: str, chance: Random) -> Any:
    """What may have happened to an entity of which a model of the kind says something."""
    if kind == "binary":
        return chance.randrange(2)
    if kind == "multiclass":
        return chance.choice([*CLASSES, *CLASSES, 0, 1, 3, "tabby"])  # a number may name a class, a text none
    return _thousandths(chance)


def outcomes(kind: str, chance: Random) -> tuple[list[Any], bool]:
    """What is said of an entity, one after the other, and whether all of it is of one moment."""
    another = chance.choice(KINDS)
    story = chance.choice(
        ["none", "once", "once", "once", "once", "corrected", "tied", "tied with another", "retracted", "another"]
    )
    said: dict[str, list[Any]] = {
        "none": [],
        "once": [outcome(kind, chance)],
        "corrected": [outcome(kind, chance) for _ in range(3)],
        "tied": [outcome(kind, chance) for _ in range(2)],
        "tied with another": [outcome(kind, chance), outcome(another, chance)],
        "retracted": [outcome(kind, chance), None, *chance.choice([[], [outcome(kind, chance)]])],
        "another": [outcome(another, chance)],
    }
    return said[story], story.startswith("tied")


def contradiction(event: dict[str, Any], chance: Random) -> dict[str, Any]:
    """The prediction, saying something else under the same id; now and then something of another kind."""
    kind = kind_of(event)
    if chance.random() < 0.2:
        other = chance.choice([one for one in KINDS if one != kind])
        kept = {name: told for name, told in event.items() if name not in {*GIVEN.values(), "predicted"}}
        return kept | answer(other, chance)
    told = event[GIVEN[kind]]
    if kind == "binary":
        return {**event, "probability": round(1 - told * 0.9 - 0.0005, 4)}
    if kind == "multiclass":
        least = min(told, key=told.__getitem__)
        return {**event, "probabilities": {name: float(name == least) for name in told}}
    return {**event, "value": told + 0.5}


GIVEN = {"binary": "probability", "multiclass": "probabilities", "regression": "value"}
"""The field in which each kind says what it says."""


def _thousandths(chance: Random) -> float:
    return chance.randrange(-1000, 1001) / 1000
