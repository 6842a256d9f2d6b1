"""The golden examples: JSON as it was once sent or published, which must decode for ever.

``<case>.json`` is an event as sent. Where it re-encodes to something else (defaults filled in, other zones taken
to UTC, unknown fields left out), ``<case>.canonical.json`` says to what.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.contracts.base import Contract
from shared.contracts.catalogue import CATALOGUE

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Example:
    event: str
    case: str
    sent: bytes
    canonical: Any

    @property
    def contract(self) -> type[Contract]:
        return CATALOGUE[self.event]

    def decode(self) -> Contract:
        return self.contract.model_validate_json(self.sent)

    def __str__(self) -> str:
        return f"{self.event}/{self.case}"


def _read(file: Path) -> Example:
    canonical = file.with_name(f"{file.stem}.canonical.json")
    return Example(
        event=file.parent.name,
        case=file.stem,
        sent=file.read_bytes(),
        canonical=json.loads((canonical if canonical.exists() else file).read_bytes()),
    )


EXAMPLES = tuple(
    _read(file) for file in sorted(GOLDEN.glob("*/*.json")) if not file.name.endswith(".canonical.json")
)


def example(event: str, case: str) -> Example:
    (found,) = (one for one in EXAMPLES if (one.event, one.case) == (event, case))
    return found
