"""The trainer: a process of its own that takes retraining jobs from their topic and carries them out.

    python -m examples.flights.trainer --kafka HOST:PORT --artifacts FOLDER --seed N

A job may be delivered twice, and the trainer may die at any moment. What it has already said of a job it keeps
in a journal beside the artifact, so that it takes up where it was: it says nothing twice that it knows to have
been heard, and registers the same version with the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from examples.flights.data import Flights, load
from examples.flights.model import MODEL, registration, retrained_version, store, train
from examples.flights.stream import Message
from examples.flights.wire import Document, encoded, heard, publisher, subscription

TRAINER = "flights-trainer"
JOBS, JOB_UPDATES, MODEL_VERSIONS = "retrain-jobs", "retrain-job-updates", "model-versions"

Send = Callable[[list[Message]], Awaitable[None]]
Update = Literal["started", "heartbeat", "completed", "failed"]
Outcome = Literal["completed", "failed", "not for this trainer", "not queued", "finished before"]

log = logging.getLogger(TRAINER)


@dataclass(slots=True)
class Journal:
    """What has been said of a job, on disk. ``registration`` is the event of the version it made."""

    path: Path
    said: list[Update] = field(default_factory=list)
    registration: Document | None = None

    @classmethod
    def read(cls, path: Path) -> Journal:
        """The journal at ``path``; an empty one where there is none yet."""
        if not path.exists():
            return cls(path)
        kept = json.loads(path.read_bytes())
        return cls(path, kept["said"], kept["registration"])

    def note(self, *said: Update) -> None:
        """Keep that this was said, whole or not at all."""
        self.said.extend(said)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(f".{os.getpid()}.unfinished")
        unfinished.write_bytes(encoded({"said": self.said, "registration": self.registration}))
        unfinished.replace(self.path)


class Trainer:
    """Carries jobs out, one at a time."""

    def __init__(self, flights: Flights, artifacts: Path, seed: int, send: Send) -> None:
        self._flights = flights
        self._artifacts = artifacts
        self._seed = seed
        self._send = send

    async def take(self, job: Document) -> Outcome:
        """Carry out a job that is queued; say why not, where it is not to be carried out."""
        if job["model"] != MODEL:
            return "not for this trainer"
        if job["status"] != "queued":
            return "not queued"
        version = retrained_version(_moment(job["as_of"]), job["job_id"])
        journal = Journal.read(self._artifacts / f"{version}.json")
        if "completed" in journal.said or "failed" in journal.said:
            return "finished before"
        async with self._alive(job, journal):
            try:
                made = journal.registration or await asyncio.to_thread(self._make, job, version)
            except Exception as error:  # whatever a training ends with, the job must hear of it
                log.exception("training for job %s failed", job["job_id"])
                await self._say(job, "failed", message=f"{type(error).__name__}: {error}"[:500])
                journal.note("failed")
                return "failed"
        await self._finish(job, journal, made)
        return "completed"

    def _make(self, job: Document, version: str) -> Document:
        """Train on what was known at the job's ``as_of``, and store the artifact."""
        as_of = _moment(job["as_of"])
        trained = train(self._flights, as_of, self._seed)
        artifact = store(trained.classifier, self._artifacts / f"{version}.pickle")
        return registration(version, trained, artifact, as_of, job_id=job["job_id"], seed=self._seed)

    async def _finish(self, job: Document, journal: Journal, made: Document) -> None:
        journal.registration = made
        journal.note()
        await self._send([Message(MODEL_VERSIONS, MODEL.encode(), encoded(made))])
        await self._say(job, "completed", model_version=made["version"], details=made["training"])
        journal.note("completed")

    @asynccontextmanager
    async def _alive(self, job: Document, journal: Journal) -> AsyncIterator[None]:
        """Say that the job has started (or still runs), and go on saying so until the block ends."""
        if "started" in journal.said:
            await self._say(job, "heartbeat", message="taken up again")
        else:
            await self._say(job, "started")
            journal.note("started")
        beating = asyncio.create_task(self._beat(job))
        try:
            yield
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating

    async def _beat(self, job: Document) -> None:
        message = "training"
        while True:
            await self._say(job, "heartbeat", message=message)
            await asyncio.sleep(job["lease_seconds"] / 4)
            message = "still training"

    async def _say(self, job: Document, update: Update, **more: object) -> None:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        document = {"job_id": job["job_id"], "update": update, "at": at, "trainer": TRAINER, **more}
        await self._send([Message(JOB_UPDATES, job["job_id"].encode(), encoded(document))])


async def serve(kafka: str, artifacts: Path, seed: int) -> None:
    """Take jobs until cancelled. A job's record is committed when the job is through, not before."""
    flights = await asyncio.to_thread(load)
    async with publisher(kafka) as outgoing, subscription(kafka, JOBS, group=TRAINER) as jobs:
        log.info("waiting for jobs")
        trainer = Trainer(flights, artifacts, seed, outgoing.send)
        async for record in jobs:
            job = heard(record.topic, record.value).document
            log.info("job %s, %s: %s", job["job_id"], job["status"], await trainer.take(job))
            await jobs.commit()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def _until_told_to_stop(kafka: str, artifacts: Path, seed: int) -> None:
    serving = asyncio.ensure_future(serve(kafka, artifacts, seed))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main(
    kafka: Annotated[str, typer.Option(help="Kafka's bootstrap servers.")],
    artifacts: Annotated[Path, typer.Option(help="Folder for the artifacts.")],
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 2013,
) -> None:
    """Take retraining jobs of the flights' model, and carry them out."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    asyncio.run(_until_told_to_stop(kafka, artifacts, seed))


if __name__ == "__main__":
    typer.run(main)
