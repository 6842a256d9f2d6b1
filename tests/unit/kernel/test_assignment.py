"""Which partitions go to which instance, as the group's leader decides it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from shared.broker import AssignmentWatch, make_broker, subscribe
from shared.settings import Settings
from shared.topics import LABELS, PIPELINE_RUNS, PREDICTIONS, Topic

TOPICS = (LABELS, PIPELINE_RUNS, PREDICTIONS)


def strategy(*, keys_meet: bool) -> type[AbstractPartitionAssignor]:
    """What a service's instances tell the group."""
    settings = Settings()
    subscriber = subscribe(
        make_broker(settings, "test"),
        settings,
        group="metrics",
        topics=TOPICS,
        watch=AssignmentWatch(),
        consume=SimpleNamespace(),  # type: ignore[arg-type]  # never called
        most_at_once=7,
        keys_meet=keys_meet,
    )
    # One only: aiokafka would join the group once for each.
    (found,) = subscriber._connection_args["partition_assignment_strategy"]
    assert issubclass(found, AbstractPartitionAssignor)
    return found


def assigned(
    strategy: type[AbstractPartitionAssignor], members: int, partitions: dict[Topic, int]
) -> list[dict[str, list[int]]]:
    """Partitions by topic, of each member."""
    cluster = SimpleNamespace(partitions_for_topic=lambda name: set(range(counts[name])))
    counts = {topic.name: count for topic, count in partitions.items()}
    told = {f"member-{number}": strategy.metadata(counts) for number in range(members)}
    return [dict(one.assignment) for one in strategy.assign(cluster, told).values()]


@pytest.mark.parametrize("members", [1, 2, 3, 5, 16])
def test_what_is_about_one_entity_goes_to_one_instance(members: int) -> None:
    found = assigned(strategy(keys_meet=True), members, {LABELS: 16, PIPELINE_RUNS: 3, PREDICTIONS: 16})
    assert all(of[LABELS.name] == of[PREDICTIONS.name] for of in found)
    assert sorted(number for of in found for number in of[LABELS.name]) == list(range(16))
    assert sorted(number for of in found for number in of.get(PIPELINE_RUNS.name, [])) == [0, 1, 2]


def test_dealt_out_in_turn_it_would_not() -> None:
    found = assigned(strategy(keys_meet=False), 5, {LABELS: 16, PIPELINE_RUNS: 3, PREDICTIONS: 16})
    assert any(of[LABELS.name] != of[PREDICTIONS.name] for of in found)


def test_instances_of_older_versions_are_in_one_group_with_those_of_this() -> None:
    """Kafka refuses a member that knows no strategy which all others know, by name."""
    new, old = strategy(keys_meet=True), RoundRobinPartitionAssignor
    assert (new.name, new.version) == (old.name, old.version)
    assert new.metadata(["a", "b"]).encode() == old.metadata(["a", "b"]).encode()
