"""Coverage-guided attacks with atheris, one target a process: ``python -m tests.fuzz.campaign TARGET SECONDS``.

Findings are kept in ``.data/fuzz``: the input that made a target raise, as ``crash-...``, or that took too long,
as ``timeout-...``; and what led to new coverage, with which the next campaign begins.
"""

from __future__ import annotations

import random
import sys

# Instrumented are the modules that are loaded here, and they must be loaded after atheris.
import atheris

with atheris.instrument_imports(include=["shared", "services", "trueward", "tests.fuzz"]):
    from tests.fuzz.corpus import seeds_of
    from tests.fuzz.mutation import mutated
    from tests.fuzz.targets import TARGETS
    from tests.fuzz.turns import FOUND

LONGEST = 8_192


def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
    """Spoil a document as such, or leave it to libFuzzer; the first byte is a choice, no part of the document."""
    drawn = random.Random(seed)
    if len(data) > 1 and drawn.random() < 0.6:
        return (data[:1] + mutated(data[1:], drawn))[:most_bytes]
    return bytes(atheris.Mutate(data, most_bytes))


def main() -> None:
    """Attack one target for so many seconds. Exits with another code than 0 where something was found."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds_of(name)):
        (folder / f"seed-{number:03}").write_bytes(seed)
    atheris.Setup(
        [
            "fuzz",
            str(folder),
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={folder}/",
            "-timeout=20",
            "-report_slow_units=60",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        TARGETS[name],
        custom_mutator=mutate,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
