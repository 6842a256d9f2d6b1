"""The promises, checked on a world that has come to its end."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from typing import Any

from shared.topics import MODEL_VERSIONS, RETRAIN_JOB_UPDATES, RETRAIN_REQUESTS, read_by, topic_named
from tests.metrics_world import START_SECONDS, Fact
from tests.plain_metrics import Plain, micro
from tests.simulation import plain_alerts, plain_retrain
from tests.simulation.outcome import PERSISTED, RECORDS, Outcome, OutcomeError
from tests.simulation.workload import OBSERVED, moment_of
from tests.simulation.world import PREFIX, SERVICES, World

OBSERVED_PLACES = {(topic.name, partition) for topic, partition in OBSERVED}
NEVER = "9999-01-01T00:00:00Z"
OBSERVED_BY_METRICS = ("predictions", "labels", "pipeline-runs", "model-versions", "policies")


def check(world: World, outcome: Outcome) -> None:
    """Raises ``OutcomeError`` with the first promise that is broken."""
    check_records(world, outcome)
    check_state(world, outcome)
    check_snapshots(world, outcome)
    check_published(outcome)
    check_alerts(outcome)
    check_jobs(outcome)
    check_letters(world, outcome)
    if world.plan.clock == "event":
        check_decisions(world, outcome)
    else:
        check_boundaries(outcome, world.plan.interval_seconds)


def same(what: str, found: Any, expected: Any) -> None:
    """They are equal. Raises ``OutcomeError`` with the first difference."""
    if found != expected:
        raise OutcomeError(f"{what}: {difference(found, expected)}")


def difference(found: Any, expected: Any, path: str = "") -> str:
    """Where two values differ first, in words."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in [*expected, *(name for name in found if name not in expected)]:
            if name not in found or name not in expected:
                return f"{path}/{name} is {'missing' if name not in found else 'too much'}"
            if found[name] != expected[name]:
                return difference(found[name], expected[name], f"{path}/{name}")
    if isinstance(found, list) and isinstance(expected, list):
        for index, (one, other) in enumerate(zip(found, expected, strict=False)):
            if one != other:
                return difference(one, other, f"{path}/{index}")
        return f"{path} has {len(found)} entries, expected {len(expected)}"
    return f"{path} is {found!r}, expected {expected!r}"


def facts_below(world: World, offsets: dict[str, dict[str, int]] | None = None) -> list[Fact]:
    """What was said to metrics, as far as the offsets say (absent: all of it)."""
    return [
        sent.fact
        for sent, partition, offset in world.sent
        if sent.fact is not None
        and sent.fact[1]
        and sent.topic.name in OBSERVED_BY_METRICS
        and (offsets is None or offset < offsets.get(sent.topic.name, {}).get(str(partition), 0))
    ]


def check_records(world: World, outcome: Outcome) -> None:
    """Every record of every topic was taken by every service that reads it, once."""
    expected = sorted(
        (service, topic.name, partition.partition, offset)
        for service in SERVICES
        for topic in read_by(service)
        for partition, log in world.broker.logs.items()
        if partition.topic == PREFIX + topic.name
        for offset in range(len(log))
    )
    same("records taken", outcome.tables[RECORDS], expected)


def check_state(world: World, outcome: Outcome) -> None:
    """Sums, label buckets and winning labels are what the set of events stands for."""
    plain = Plain(facts_below(world), interval=world.plan.interval_seconds)
    same("buckets", outcome.tables["buckets"], plain.buckets())
    same("label buckets", outcome.tables["label buckets"], plain.label_buckets())
    labels = [
        (moment, outcome if outcome is None or isinstance(outcome, str) else float(outcome))
        for moment, outcome in plain.labels.values()
    ]
    same("winning labels", outcome.tables["labels"], sorted(labels, key=repr))


def check_snapshots(world: World, outcome: Outcome) -> None:
    """Each is in sequence, and its figures are those of exactly the records below the offsets that it names."""
    last: dict[str, int] = defaultdict(int)
    plains: dict[str, tuple[Plain, dict[tuple[str, str, str, str], dict[str, Any]]]] = {}
    for snapshot in outcome.documents("snapshots"):
        model, as_of = snapshot["model"], int(datetime.fromisoformat(snapshot["as_of"]).timestamp())
        last[model] += 1
        same(f"sequence of {model}", snapshot["sequence"], last[model])
        key = f"{as_of} {snapshot['offsets']}"
        if key not in plains:
            facts = [fact for fact in facts_below(world, snapshot["offsets"]) if not _is_later(fact, as_of)]
            plain = Plain(facts, interval=world.plan.interval_seconds)
            plains[key] = plain, plain.figures(as_of)
        plain, figures = plains[key]
        champion = plain.champion(model, as_of)
        version = champion[1] if champion else ""
        same(f"{snapshot['snapshot_id']} champion", (snapshot["champion"] or {"version": ""})["version"], version)
        expected = figures[model, version, "", snapshot["policy"]["window"]]
        found = {name: value for name, value in snapshot["metrics"].items() if name in expected}
        same(f"{snapshot['snapshot_id']} metrics", found, expected)
    if world.plan.clock == "event":
        for model in world.plan.history.models:
            same(f"snapshots of {model}", last[model], boundaries(world))


def boundaries(world: World) -> int:
    """How many the event clock has: from the first after the earliest first record of a partition to the last."""
    firsts: dict[tuple[str, int], int] = {}
    for sent, partition, _ in world.sent:
        if (sent.topic.name, partition) in OBSERVED_PLACES:
            # Garbage never comes first: it stands behind what it was made of.
            place = (sent.topic.name, partition)
            if place not in firsts:
                event = json.loads(sent.value)
                firsts[place] = micro(event.get("tick") or moment_of(event))
    interval, last = world.plan.interval_seconds, START_SECONDS + world.plan.history.phases[-1].last_boundary
    return last // interval - min(firsts.values()) // 10**6 // interval


def _is_later(fact: Fact, as_of: int) -> bool:
    """A version that becomes champion behind the boundary."""
    topic, event = fact
    return topic is MODEL_VERSIONS and micro(event.get("changed_at") or event["registered_at"]) > as_of * 10**6


def check_published(outcome: Outcome) -> None:
    """What readers of a topic know is what is kept, all of it."""
    for topic, table in PERSISTED.items():
        same(f"topic {topic} against its table", outcome.topics[topic], outcome.documents(table))
    newest = {job["job_id"]: job for job in outcome.topics["retrain-jobs"]}
    for job in outcome.documents("jobs"):
        # Heartbeats are kept, not published.
        for name in ("status", "job_sequence", "triggers", "decision_id", "finished_at", "aftermath"):
            same(f"{job['job_id']} {name}", newest[job["job_id"]][name], job[name])
    same("jobs published", sorted(newest), [job["job_id"] for job in outcome.documents("jobs")])


def by_model(documents: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for document in documents:
        found[document["model"]].append(document)
    return found


def check_alerts(outcome: Outcome) -> None:
    """Streaks, levels, states and transitions follow from the snapshots, none skipped and none repeated."""
    expected = []
    for snapshots in by_model(outcome.documents("snapshots")).values():
        expected += list(plain_alerts.transitions(snapshots))
    found = [
        {name: transition[name] for name in plain_alerts.COMPARED}
        for transition in outcome.documents("transitions")
    ]
    same("transitions", found, expected)
    judged = {row["model"]: row["snapshot_sequence"] for row in outcome.documents("alert states")}
    same("snapshots judged", judged, {m: len(s) for m, s in by_model(outcome.documents("snapshots")).items()})


def check_jobs(outcome: Outcome) -> None:
    """Every snapshot was decided on once; a job exists once, for its decision; never two active for a model."""
    decisions = outcome.documents("decisions")
    on_snapshots = [
        (each["model"], each["evidence"]["snapshot_sequence"])
        for each in decisions
        if each["asked_by"] == "snapshot"
    ]
    snapshots = [(each["model"], each["sequence"]) for each in outcome.documents("snapshots")]
    same("snapshots decided on", on_snapshots, snapshots)
    queued = sorted(each["job_id"] for each in decisions if each["action"] == "queued-retrain")
    same("jobs", [job["job_id"] for job in outcome.documents("jobs")], queued)
    made_by = {job["job_id"]: job["decision_id"] for job in outcome.documents("jobs")}
    for each in decisions:
        if each["action"] == "queued-retrain":
            same(f"job of {each['decision_id']}", made_by[each["job_id"]], each["decision_id"])
    requests = [(each["model"], each["request_id"]) for each in decisions if each["request_id"]]
    same("requests answered once", len(requests), len(set(requests)))
    claims = defaultdict(list)
    for cause in outcome.documents("causes"):
        claims[cause["model"], cause["champion"], cause["trigger"]].append(datetime.fromisoformat(cause["as_of"]))
    for cause, moments in claims.items():
        if any((later - earlier).total_seconds() < 43_200 for earlier, later in pairwise(sorted(moments))):
            raise OutcomeError(f"cause {cause} was covered twice within 12 hours")
    ended: dict[str, datetime] = {}
    for job in sorted(outcome.documents("jobs"), key=_life):
        made, end = _life(job)
        if ended.get(job["model"], made) > made:
            raise OutcomeError(f"{job['job_id']} was made before the model's job before it had ended")
        ended[job["model"]] = end


def _life(job: dict[str, Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(job["created_at"]), datetime.fromisoformat(job["finished_at"] or NEVER)


def check_letters(world: World, outcome: Outcome) -> None:
    """Dead letters are exactly the garbage that was sent."""
    garbage = {
        (reader, sent.topic.name, partition, offset)
        for sent, partition, offset in world.sent
        if sent.fact is None
        for reader in topic_named(sent.topic.name).readers
        if reader in ("metrics", "retrain")
    }
    same("dead letters", sorted(outcome.letters), sorted(garbage))


def check_decisions(world: World, outcome: Outcome) -> None:
    """Event clock: decisions and jobs are those of a plain recomputation, turn by turn."""
    decisions = outcome.documents("decisions")
    job_of = {
        each["job_id"]: (each["model"], each["decision_sequence"])
        for each in decisions
        if each["action"] == "queued-retrain"
    }
    turns = [
        (START_SECONDS + boundary, [sent.fact[1] for sent in turn if sent.fact and sent.topic in SAID_TO_RETRAIN])
        for boundary, turn in world.turns
    ]
    expires = frozenset(world.plan.history.abandoned)
    plain = plain_retrain.recompute(turns, outcome.documents("snapshots"), job_of, expires)
    found = {
        (each["model"], each["decision_sequence"]): (
            each["request_id"] or f"snapshot {each['evidence']['snapshot_sequence']}",
            tuple(each["fired"]),
            each["action"],
        )
        for each in decisions
    }
    same("decisions", found, plain.decisions)
    jobs = {job_of[job["job_id"]]: job["status"] for job in outcome.documents("jobs")}
    same("jobs", jobs, plain.jobs)


SAID_TO_RETRAIN = (RETRAIN_REQUESTS, RETRAIN_JOB_UPDATES)


def check_boundaries(outcome: Outcome, interval: int) -> None:
    """Wall clock: when a snapshot fell may change; that none is cut twice, nor one let pass unsaid, may not."""
    cut: dict[int, set[int]] = defaultdict(set)
    for snapshot in outcome.documents("snapshots"):
        as_of = int(datetime.fromisoformat(snapshot["as_of"]).timestamp())
        same(f"{snapshot['snapshot_id']} lies on a boundary", as_of % interval, 0)
        cut[as_of].add(snapshot["missed_boundaries"])
    for snapshots in by_model(outcome.documents("snapshots")).values():
        moments = [snapshot["as_of"] for snapshot in snapshots]
        same("snapshots in the order of time", moments, sorted(set(moments)))
    for earlier, later in pairwise(sorted(cut)):
        same(f"boundaries missed before {later}", cut[later], {(later - earlier) // interval - 1})
