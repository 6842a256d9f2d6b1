"""How long an attack goes on: a few turns in the ordinary run, as many as fit into a campaign's time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

FOUND = Path(".data") / "fuzz"
"""Where a campaign keeps what it finds."""
SECONDS = float(os.environ.get("TRUEWARD_FUZZ_SECONDS", "0"))
"""How long each attack of a campaign goes on; 0: no campaign."""
SEED = os.environ.get("TRUEWARD_FUZZ_SEED", "0")


def turns(attack: str, few: int) -> Iterator[tuple[str, Random]]:
    """Turns of an attack, each with its name and what is drawn from: the same every time, ``few`` of them.

    In a campaign there are more, until its time is over, by other seeds.
    """
    if not SECONDS:
        yield from ((name, Random(name)) for name in (f"{attack} {number}" for number in range(few)))
        return
    until = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < until:
        name = f"{attack} {SEED}-{number}"
        yield name, Random(name)
        number += 1
    print(f"\n{attack}: {number:,} turns in {SECONDS:.0f} s")
