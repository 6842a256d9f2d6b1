"""Files for the command line, spoilt: the exit code is 2 and the error one line, never a traceback."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz.corpus import FINDINGS, POLICIES
from tests.fuzz.mutation import SEEDS, mutated
from tests.fuzz.turns import turns
from trueward.cli import main

FEW = 15
PUBLISHED = {
    "predictions": "prediction.v1",
    "labels": "label.v1",
    "pipeline-runs": "openlineage-run-event.v1",
    "model-versions": "model-version.v1",
}


def check(code: int, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """Fail unless the command did its work, or said in one line why not."""
    said = capfd.readouterr().err
    assert code in (0, 2), (name, said)
    if code == 2:
        assert said.startswith("trueward: "), (name, said)
        assert len(said.splitlines()) == 1, (name, said)
        assert said.removesuffix("\n").isprintable(), (name, said)


def test_a_policy_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    for name, random in turns("policy apply", FEW):
        path.write_bytes(a_policy_file(random))
        check(main(["policy", "apply", "--dry-run", str(path)]), capfd, name)
    for number, content in enumerate(FINDINGS["policy_file"]):
        path.write_bytes(content)
        assert main(["policy", "apply", "--dry-run", str(path)]) == 2, number
        check(2, capfd, str(number))


def a_policy_file(random: Random) -> bytes:
    """Spoilt YAML, or spoilt JSON, which mostly is YAML."""
    return mutated(random.choice((*POLICIES, *SEEDS["policy.v1"])), random)[:4_000]


@pytest.mark.parametrize("topic", PUBLISHED)
def test_a_file_of_events(
    topic: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sent(*_: object, **__: object) -> int:
        return 0

    # What is checked and good would be sent; nothing here is about the broker.
    monkeypatch.setattr("trueward.cli.publish._send", sent)
    path = tmp_path / "events.jsonl"
    seeds = [seed.replace(b"\n", b" ") for seed in SEEDS[PUBLISHED[topic]]]
    for name, random in turns(f"publish {topic}", FEW):
        lines = [
            mutated(random.choice(seeds), random) if random.random() < 0.3 else random.choice(seeds)
            for _ in range(4)
        ]
        path.write_bytes(random.choice((b"\n", b"\r\n", b"\n\n", b"\r")).join(lines))
        check(main(["publish", topic, str(path), "--kafka", "127.0.0.1:1"]), capfd, name)
