"""What Trueward has said so far, put together from its topics: one chapter a snapshot.

Pure: records go in, in any order and as often as they are delivered; a repeat changes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from examples.flights.model import MODEL
from examples.flights.wire import Document, Heard

SNAPSHOTS, ALERTS, DECISIONS, JOBS, DEAD_LETTERS = (
    "snapshots",
    "alerts",
    "retrain-decisions",
    "retrain-jobs",
    "dead-letters",
)
STATES = ("none", "active", "watch", "incident")
FINISHED = ("completed", "failed", "cancelled", "expired")

Standing = dict[str, str]
"""Alerts that stand, each with its escalation level."""


@dataclass(slots=True)
class Story:
    """Everything heard about the flights' model."""

    snapshots: dict[datetime, Document] = field(default_factory=dict)
    decisions: dict[int, Document] = field(default_factory=dict)
    """The decision made on a snapshot, by the snapshot's sequence."""
    jobs: dict[str, Document] = field(default_factory=dict)
    """Each job's newest state, by its id."""
    transitions: dict[int, Document] = field(default_factory=dict)
    """Alert transitions by their sequence."""
    refused: list[Document] = field(default_factory=list)
    """Dead letters."""

    def take(self, heard: Heard) -> None:
        """Take a record in."""
        said = heard.document
        if heard.topic == DEAD_LETTERS:
            self.refused.append(said)
        elif said["model"] != MODEL:
            return
        elif heard.topic == SNAPSHOTS:
            self.snapshots.setdefault(datetime.fromisoformat(said["as_of"]), said)
        elif heard.topic == ALERTS:
            self.transitions.setdefault(said["alert_sequence"], said)
        elif heard.topic == DECISIONS and said["asked_by"] == "snapshot":
            self.decisions.setdefault(said["evidence"]["snapshot_sequence"], said)
        elif heard.topic == JOBS:
            known = self.jobs.get(said["job_id"])
            if known is None or known["job_sequence"] < said["job_sequence"]:
                self.jobs[said["job_id"]] = said

    def transitions_of(self, sequence: int) -> list[Document]:
        """What changed at a snapshot, in the order in which it was said."""
        of_snapshot = (said for said in self.transitions.values() if said["snapshot_sequence"] == sequence)
        return sorted(of_snapshot, key=lambda said: said["alert_sequence"])

    def is_alerted(self, sequence: int) -> bool:
        """Whether no change of state is missing among what changed at a snapshot: it is told last."""
        changed = self.transitions_of(sequence)
        return all(said["previous_state"] == said["state"] for said in changed) or any(
            said["transition"] == "state_changed" for said in changed
        )

    def standing_after(self, sequence: int) -> Standing:
        """The alerts that stand after a snapshot, by the transitions up to it."""
        standing: Standing = {}
        for _, said in sorted(self.transitions.items()):
            if said["snapshot_sequence"] > sequence or said["alert_id"] is None:
                continue
            if said["transition"] == "resolved":
                standing.pop(said["alert_id"], None)
            else:
                standing[said["alert_id"]] = said["escalation_level"]
        return standing

    def state_after(self, sequence: int) -> str:
        """The model's escalation state after a snapshot, by the transitions up to it."""
        state = "none"
        for _, said in sorted(self.transitions.items()):
            if said["snapshot_sequence"] <= sequence:
                state = said["state"]
        return state

    def days_in_state(self) -> Counter[str]:
        """How many snapshots left the model in each state."""
        return Counter(self.state_after(snapshot["sequence"]) for snapshot in self.snapshots.values())

    def job_of(self, sequence: int) -> Document | None:
        """The job that the decision on a snapshot queued, as it stands now."""
        decision = self.decisions.get(sequence)
        if decision is None or decision["action"] != "queued-retrain":
            return None
        return self.jobs.get(decision["job_id"])

    def is_decided(self, sequence: int) -> bool:
        """Whether the decision on a snapshot is known and the job that it queued, if any, has ended."""
        decision = self.decisions.get(sequence)
        if decision is None:
            return False
        job = self.job_of(sequence)
        return decision["action"] != "queued-retrain" or (job is not None and job["status"] in FINISHED)

    def aftermaths_of(self, sequence: int) -> list[Document]:
        """The jobs whose retrained version was judged at a snapshot."""
        return [
            job
            for job in self.jobs.values()
            if job["aftermath"] is not None and job["aftermath"]["snapshot_sequence"] == sequence
        ]
