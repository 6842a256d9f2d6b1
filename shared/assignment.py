"""Which partitions of a topic go to which instance of a service."""

from __future__ import annotations

from typing import ClassVar

from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor


class SamePartitionsOfEveryTopic(RangePartitionAssignor):  # type: ignore[misc]  # aiokafka's classes are untyped
    """An instance gets the same partitions of every topic that has as many, and so all that has one key.

    In its group it goes by the name of dealing partitions out in turn, as older versions do: a group needs one
    name that all members know, and whoever leads it decides for all. To offer two names is no way: aiokafka
    joins a group once for each (``perform_group_join``), each time disturbs the others, and three may never
    settle.
    """

    name: ClassVar[str] = RoundRobinPartitionAssignor.name
