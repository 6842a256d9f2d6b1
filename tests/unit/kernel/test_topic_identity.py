"""Whether a topic is the one that was read, by the id that Kafka gives it."""

from __future__ import annotations

import uuid

from shared.topic_identity import Compared, Remembered, compare

OLD, NEW = uuid.UUID(int=1), uuid.UUID(int=2)


def test_a_topic_seen_for_the_first_time_is_remembered() -> None:
    assert compare({}, {"labels": NEW}) == Compared({"labels": NEW}, ())


def test_the_same_topic_is_nothing_new() -> None:
    assert compare({"labels": Remembered(OLD, is_read=True)}, {"labels": OLD}) == Compared({}, ())


def test_a_topic_made_anew_is_foreign_to_who_has_read_the_old_one() -> None:
    remembered = {"labels": Remembered(OLD, is_read=True), "predictions": Remembered(OLD, is_read=True)}
    assert compare(remembered, {"predictions": OLD, "labels": NEW}) == Compared({}, ("labels",))


def test_a_topic_made_anew_before_anything_was_read_of_it_is_as_good_as_the_old_one() -> None:
    assert compare({"labels": Remembered(OLD, is_read=False)}, {"labels": NEW}) == Compared({"labels": NEW}, ())


def test_a_topic_that_the_broker_does_not_tell_of_is_let_be() -> None:
    """Deleted just now, not there yet, or a broker that gives no ids."""
    assert compare({"labels": Remembered(OLD, is_read=True)}, {}) == Compared({}, ())
