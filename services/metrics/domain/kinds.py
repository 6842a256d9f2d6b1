"""What a model says, and so what it is judged by. A prediction's kind is that of what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

Kind = Literal["binary", "multiclass", "regression"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


def names_of_version(model: str, version: str, kind: Kind) -> tuple[str, ...]:
    """The names that a version's id is made of: what it says in another kind than binary is summed apart."""
    return (model, version) if kind == "binary" else (model, version, kind)


def kind_of(predictions: Mapping[Kind, int]) -> Kind:
    """What a set of predictions is judged as: the kind of most, of equally many the first of ``KINDS``.

    It depends on how many there are of each, never on which came first.
    """
    return max(KINDS, key=lambda kind: (predictions.get(kind, 0), -KINDS.index(kind)))
