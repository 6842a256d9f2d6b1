"""A policy file: YAML, checked by the contract, with typos named instead of ignored."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from shared.contracts.models import Policy
from shared.errors import UsageError
from trueward.cli import policy

WHOLE = """
model: flights
effective_at: 2026-01-01T00:00:00Z
window: 30d
mode: enforce
min_evaluated: 50
rules:
  accuracy_breach: {below: 0.7}
  pipeline_stale: null
triggers:
  new_labels: null
segments:
  carrier: [AA, UA]
"""


LAUGHS = "model: m\na0: &a0 [lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
"""A few lines whose aliases stand for a billion words."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.yaml"


def read(path: Path, text: str) -> list[Policy]:
    path.write_text(text, encoding="utf-8")
    return policy.read(path)


def test_a_whole_policy(path: Path) -> None:
    (found,) = read(path, WHOLE)
    assert found.effective_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert (found.model, found.window, found.mode, found.min_evaluated) == ("flights", "30d", "enforce", 50)
    assert found.rules.accuracy_breach is not None
    assert found.rules.accuracy_breach.below == 0.7
    assert found.rules.pipeline_stale is None
    assert found.rules.data_stale is not None
    assert (found.triggers.new_labels, found.triggers.brier_breach) == (None, True)
    assert found.segments == {"carrier": ["AA", "UA"]}


def test_several_policies_are_several_documents(path: Path) -> None:
    assert [found.model for found in read(path, "model: a\n---\nmodel: b\n---\n")] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: m\nmin_evaluatd: 5\n", "'min_evaluatd' (did you mean 'min_evaluated'?)"),
        (
            "model: m\nrules: {accuracy_breach: {belwo: 0.5}}\n",
            "'rules.accuracy_breach.belwo' (did you mean 'below'?)",
        ),
        ("model: m\nrules: {acuracy_breach: null}\n", "'rules.acuracy_breach' (did you mean 'accuracy_breach'?)"),
        ("model: m\nxyzzy: 1\n", "'xyzzy'"),
        ("window: 7d\n", "model: Field required"),
        ("model: m\nwindow: 2d\n", "window: "),
        ("model: m\nmode: off\n", "mode: "),
        ("model: m\nmin_evaluated: '30'\n", "min_evaluated: "),
        ("model: m\ntriggers: {accuracy_breach: 1}\n", "triggers.accuracy_breach: "),
        ("model: m\nrules: {accuracy_breach: {below: .nan}}\n", "rules.accuracy_breach.below: "),
        ("model: m\nrules: {accuracy_breach: {below: 1.1}}\n", "rules.accuracy_breach.below: "),
        ("model: m\neffective_at: 2026-01-01\n", "effective_at: must be RFC 3339"),
        ("model: m\nsegments: {carrier: [1]}\n", "segments.carrier.0: "),
        (
            'model: m\nsegments: {a: ["b:c"], "a:b": [c]}\n',
            "segments: dimensions 'a' and 'a:b' both have a segment",
        ),
        ("model: m\nmodel: n\n", "line 2: the key 'model' stands twice"),
        (
            "model: m\nrules:\n  data_stale: null\n  data_stale: null\n",
            "line 4: the key 'data_stale' stands twice",
        ),
        ("model: [\n", "is no YAML: line 2: "),
        ("model: m\n? [a]\n: 1\n", "is no YAML: "),
        ("- model: m\n", "a policy is a mapping"),
        ("just words\n", "a policy is a mapping"),
        ("model: !!python/object/apply:os.system [ls]\n", "is no YAML: "),
        (f"model: m\nmin_evaluated: {'9' * 5_000}\n", "is no YAML: line 2: "),
        ("model: m\nmin_evaluated: !!int many\n", "is no YAML: line 2: "),
        ("model: m\nmin_evaluated: !!int ''\n", "is no YAML: line 2: "),
        ("model: m\nlease_seconds: !!float long\n", "is no YAML: line 2: "),
        ("model: m\nmode: !!bool maybe\n", "is no YAML: line 2: "),
        ("model: m\neffective_at: !!timestamp soon\n", "is no YAML: line 2: "),
        (f"model: m\n0x{'f' * 5_000}: 1\n0x{'f' * 5_000}: 1\n", "is no YAML: "),
        (f"model: m\nmin_evaluated: 0x{'f' * 5_000}\n", "4300 digits"),
        ('model: "\\UFFFFFFFF"\n', "is no YAML: "),
        ('model: "\\U00110000"\n', "is no YAML: "),
        ("[" * 5_000, "nests too deeply"),
        (f"model: m\nsegments: {'[' * 500}{']' * 500}\n", "nests too deeply"),
        ("model: m\nsegments: &a [*a]\n", "nests too deeply"),
        ("model: &a {b: *a}\n", "nests too deeply"),
        (LAUGHS, "it is larger than a topic takes"),
        ("", "holds no policy"),
        ("# nothing\n", "holds no policy"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(path, text)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        policy.read(path)


def test_a_file_that_is_no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no YAML"):
        policy.read(path)


def test_what_is_shown_can_be_applied_again(path: Path) -> None:
    (found,) = read(path, WHOLE)
    assert read(path, yaml.safe_dump(found.known())) == [found]
