"""Models, versions and segments that predictions name together, numbered: a column holds the number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.metrics.domain.identity import id_of
from services.metrics.store import Names

MOST = 50_000
"""Combinations that are numbered; predictions of more are taken one by one."""


Named = tuple[str, str, tuple[tuple[str, str], ...]]
"""Model, version, and segments in any order."""


@dataclass(frozen=True, slots=True)
class Combination:
    """A version of a model, and segments, by id; ``model`` and ``version`` are None where only ids are known."""

    model_id: int
    version_id: int
    segment_id: int
    segments: Names
    model: str | None = None
    version: str | None = None


class Combinations:
    """What was numbered; a number never changes its meaning."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: list[Combination] = []
        self._by_ids: dict[tuple[int, int], int] = {}
        self._by_names: dict[Named, int] = {}
        self.stored: set[int] = set()
        """Numbers of those whose names are stored for certain: names are never removed."""
        self.spelled: dict[int, tuple[str, str]] = {}
        """How the words of a prediction begin, and go on behind its entity: see :mod:`intake`."""

    def __getitem__(self, number: int) -> Combination:
        return self._known[number]

    @property
    def is_full(self) -> bool:
        """Whether a new one is refused."""
        return len(self._by_names) >= self._most or len(self._known) >= self._most

    def numbers_of(self, named: Sequence[Named]) -> list[int | None]:
        """The numbers of what binary predictions name; None where it is new and there are too many."""
        numbers = list(map(self._by_names.get, named))
        if None not in numbers:
            return numbers
        return [
            self._number_of(names) if number is None else number
            for number, names in zip(numbers, named, strict=True)
        ]

    def _number_of(self, names: Named) -> int | None:
        number = self._by_names.get(names)
        if number is None and not self.is_full:
            model, version, segment = names
            segments = tuple(sorted(segment))
            version_id, segment_id = id_of(model, version), id_of(*(part for pair in segments for part in pair))
            number = self.add(Combination(id_of(model), version_id, segment_id, segments, model, version))
            self._by_names[names] = number
            self.spelled[number] = f"({model!r}, {version!r}, ", f", {segments!r}, "
        return number

    def add(self, combination: Combination) -> int:
        """The number of a combination, a new one where it is not known by its ids or not by its names."""
        ids = combination.version_id, combination.segment_id
        number = self._by_ids.get(ids)
        if number is None:
            number = self._by_ids[ids] = len(self._known)
            self._known.append(combination)
        elif combination.model is not None:
            self._known[number] = combination
        return number

    def with_ids(self, version_id: int, segment_id: int) -> int | None:
        """The number of a version and segments by their ids; None where they are not known."""
        return self._by_ids.get((version_id, segment_id))
