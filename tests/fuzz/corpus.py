"""What every target is tried with first: the golden examples, and every input that once was a finding."""

from __future__ import annotations

import json

from shared.topics import read_by
from tests.fuzz.mutation import SEEDS
from tests.fuzz.targets import EVENTS, INGESTED

POLICIES = (
    b"model: m\nmode: enforce\nrules: {accuracy_breach: {below: 0.8}, data_stale: null}\n---\nmodel: n\n",
    b"{model: m, effective_at: 2026-01-31T12:00:00Z, segments: {carrier: [AA, UA]}, min_evaluated: 0x1F}\n",
)
FINDINGS: dict[str, tuple[bytes, ...]] = {
    "contracts": (
        # An unknown field of the name that other contracts' classes have for their event time.
        b"\x06" + b'{"model":"m","occurred_at":"x"}',
        # As deep as a reader of JSON takes: one level more, in the job that keeps it, was too much.
        b"\x0c"
        b'{"job_id":"j","update":"started","at":"2026-01-31T12:00:00Z","details":{"a":'
        + b"[" * 198
        + b"]" * 198
        + b"}}",
    ),
    "policy_file": (
        b"model: m\nmin_evaluated: " + b"9" * 5_000,
        b"model: !!int many",
        b"model: !!timestamp soon",
        b'model: "\\UFFFFFFFF"',
        b"[" * 1_000,
        b"model: &a {b: *a}",
    ),
}
"""Inputs that something raised on before it was mended."""


def seeds_of(target: str) -> list[bytes]:
    """The inputs that a target is tried with first."""
    found = list(FINDINGS.get(target, ()))
    match target:
        case "contracts":
            found += [bytes([EVENTS.index(event)]) + value for event, values in SEEDS.items() for value in values]
        case "intake":
            topics = [topic.name for topic in read_by("metrics")]
            for event, topic in (
                *(("prediction.v1", "predictions"), ("label.v1", "labels"), ("pipeline-run.v1", "pipeline-runs")),
                *(("openlineage-run-event.v1", "pipeline-runs"), ("tick.v1", "labels")),
                *(("model-version.v1", "model-versions"), ("policy.v1", "policies")),
            ):
                choice = topics.index(topic)
                # Of the bytes that choose a topic those from 128 on choose the event clock as well.
                clocked = next(byte for byte in range(128, 256) if byte % len(topics) == choice)
                found += [bytes([byte]) + value for value in SEEDS[event] for byte in (choice, clocked)]
        case "ingest" | "lines" | "plain":
            events = ("prediction.v1", "label.v1", "pipeline-run.v1", "model-version.v1")
            for choice, event in enumerate(events):
                assert len(INGESTED) == len(events)
                documents = [json.loads(value) for value in SEEDS[event]]
                found += [bytes([choice]) + value for value in SEEDS[event]]
                found.append(bytes([choice]) + json.dumps(documents).encode())
                found.append(bytes([128 + choice]) + b"\n".join(json.dumps(one).encode() for one in documents))
        case "headers":
            found += [
                b"traceparent00-0af7-b7ad-01",
                b"\xff\xff\x00\xfe\xc3\x28name\xfe",
                "näme\N{SNOWMAN}".encode(),
            ]
        case "cursor":
            found += [
                b"00062a3f4c5d6e7f61",
                b"00062a3f4c5d6e7f0000000000000001",
                b"\x00\x06*?L]n\x7fabc",
                b"\xed\xa0\x80",
            ]
        case "policy_file":
            found += POLICIES
    return found
