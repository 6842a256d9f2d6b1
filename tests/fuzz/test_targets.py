"""The targets of the campaign, in short: what once was found, the good examples, and those spoilt."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.corpus import seeds_of
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, run
from tests.fuzz.turns import turns

FEW = 200
FEW_OF_THE_SLOW = {"policy_file": 40}


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_campaign_begins_with(target: str) -> None:
    for seed in (*seeds_of(target), b"", b"\x00", bytes(range(256))):
        run(target, seed)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_stands_what_is_spoilt(target: str) -> None:
    seeds = seeds_of(target)
    for _, random in turns(target, FEW_OF_THE_SLOW.get(target, FEW)):
        run(target, spoilt(random.choice(seeds), random))


def spoilt(seed: bytes, random: Random) -> bytes:
    """The first byte is a choice, the rest a document."""
    choice = random.randbytes(1) if random.random() < 0.2 else seed[:1]
    return choice + mutated(seed[1:], random)


@pytest.mark.parametrize("depth", [300, 600, 990, 3_000])
def test_documents_are_spoilt_however_deeply_they_are_nested(depth: int) -> None:
    """Guided attacks keep such ones, and go on from them."""
    for seed in range(60):
        assert isinstance(mutated(b"[" * depth + b"1" + b"]" * depth, Random(seed)), bytes)
