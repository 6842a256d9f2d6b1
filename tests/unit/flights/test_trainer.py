import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.flights import model, trainer
from examples.flights.data import Flights
from examples.flights.stream import Message
from examples.flights.trainer import Trainer
from shared.contracts.models import ModelVersion
from shared.contracts.retraining import JobUpdate

JOB: dict[str, Any] = {
    "job_id": "job-1",
    "model": "flight-late",
    "status": "queued",
    "as_of": "2013-02-01T00:00:00Z",
    "lease_seconds": 300,
}
VERSION = model.retrained_version(trainer._moment(JOB["as_of"]), "job-1")


class CrashError(BaseException):
    """The process died."""


class Broker:
    """Keeps what was sent; dies instead of sending the n-th message (from 0), where told to."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.sent: list[Message] = []
        self.dies_at = dies_at

    async def send(self, messages: list[Message]) -> None:
        for message in messages:
            if len(self.sent) == self.dies_at:
                raise CrashError
            self.sent.append(message)

    def updates(self) -> list[str]:
        return [
            JobUpdate.model_validate_json(message.value).update
            for message in self.sent
            if message.topic == trainer.JOB_UPDATES
        ]

    def versions(self) -> list[dict[str, Any]]:
        return [json.loads(message.value) for message in self.sent if message.topic == trainer.MODEL_VERSIONS]


@pytest.fixture
def make(flights: Flights, tmp_path: Path) -> Callable[[Broker], Trainer]:
    return lambda broker: Trainer(flights, tmp_path, 1, broker.send)


async def test_a_queued_job_is_carried_out(make: Callable[[Broker], Trainer], flights: Flights) -> None:
    broker = Broker()
    assert await make(broker).take(JOB) == "completed"
    assert broker.updates()[0] == "started"
    assert broker.updates()[-1] == "completed"
    assert "heartbeat" in broker.updates()
    # The version is on its topic before anyone hears that the job is complete.
    assert [message.topic for message in broker.sent[-2:]] == [trainer.MODEL_VERSIONS, trainer.JOB_UPDATES]
    (registered,) = broker.versions()
    version = ModelVersion.model_validate(registered, strict=False)
    assert (version.version, version.job_id, version.stage) == (VERSION, "job-1", "champion")
    assert json.loads(broker.sent[-1].value)["model_version"] == VERSION
    assert {message.key for message in broker.sent} == {b"job-1", b"flight-late"}
    assert version.artifact is not None
    restored = model.restore(version.artifact.uri, str(version.artifact.sha256))
    direct = model.train(flights, trainer._moment(JOB["as_of"]), 1).classifier
    some = flights.features[40_000:41_000]
    assert (model.probabilities(restored, some) == model.probabilities(direct, some)).all()


@pytest.mark.parametrize(
    ("job", "outcome"),
    [
        (JOB | {"model": "another"}, "not for this trainer"),
        *((JOB | {"status": status}, "not queued") for status in ("running", "completed", "failed", "expired")),
    ],
)
async def test_other_events_are_left_alone(
    make: Callable[[Broker], Trainer], job: dict[str, Any], outcome: str
) -> None:
    broker = Broker()
    assert await make(broker).take(job) == outcome
    assert broker.sent == []


async def test_a_job_delivered_twice_is_carried_out_once(make: Callable[[Broker], Trainer]) -> None:
    broker = Broker()
    await make(broker).take(JOB)
    sent = list(broker.sent)
    # The same trainer, and one that was started anew.
    again = make(broker)
    assert await again.take(JOB) == "finished before"
    assert await again.take(JOB) == "finished before"
    assert broker.sent == sent


@pytest.mark.parametrize("dies_at", range(4))
async def test_a_trainer_that_died_takes_up_where_it_was(make: Callable[[Broker], Trainer], dies_at: int) -> None:
    broker = Broker(dies_at)
    with pytest.raises(CrashError):
        await make(broker).take(JOB)
    broker.dies_at = None
    assert await make(broker).take(JOB) == "completed"
    said = Counter(broker.updates())
    assert said["started"] == 1
    assert said["completed"] == 1
    assert broker.updates()[0] == "started"
    versions = broker.versions()
    assert all(version == versions[0] for version in versions)


async def test_a_training_that_fails_is_reported_and_not_tried_again(
    make: Callable[[Broker], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("too few labels")

    monkeypatch.setattr(trainer, "train", broken)
    broker = Broker()
    assert await make(broker).take(JOB) == "failed"
    assert broker.updates()[-1] == "failed"
    assert json.loads(broker.sent[-1].value)["message"] == "ValueError: too few labels"
    assert broker.versions() == []
    assert await make(broker).take(JOB) == "finished before"


async def test_a_long_training_goes_on_saying_so(
    make: Callable[[Broker], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker()
    heard_thrice = asyncio.Event()

    async def watch(messages: list[Message]) -> None:
        await broker.send(messages)
        if broker.updates().count("heartbeat") >= 3:
            heard_thrice.set()

    async def patient(*_: object) -> dict[str, Any]:
        await heard_thrice.wait()
        return {"version": VERSION, "training": {}}

    worker = make(broker)
    monkeypatch.setattr(worker, "_send", watch)
    monkeypatch.setattr(asyncio, "to_thread", patient)
    assert await worker.take(JOB | {"lease_seconds": 0.04}) == "completed"
    # Nothing is said of the job after it is complete.
    await asyncio.sleep(0.05)
    assert broker.updates()[-1] == "completed"
