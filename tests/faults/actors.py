"""Who else lives in the world: a trainer that does the jobs, and somebody who asks for policy runs over HTTP."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from random import Random

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.contracts.retraining import Job
from shared.topics import MODEL_VERSIONS, RETRAIN_JOB_UPDATES, RETRAIN_JOBS
from tests.faults.traffic import MODELS, Sender, Sent, Traffic, encode
from tests.faults.world import World

AGAIN_SECONDS = 0.3
REQUEST_EVERY_SECONDS = 3.0
REQUESTS_PATH = "/api/v1/mlops/retrain/requests"


class Trainer:
    """Reads ``retrain-jobs``, does each queued job once, and registers what came of it as the champion."""

    def __init__(self, world: World, sender: Sender, traffic: Traffic) -> None:
        self._world = world
        self._sender = sender
        self._traffic = traffic
        self.done: set[str] = set()

    async def run(self) -> None:
        """Read on until cancelled, beginning anew after a fault: a job done before is not done again."""
        while True:
            try:
                await self._read()
            except (KafkaError, OSError, TimeoutError):
                await asyncio.sleep(AGAIN_SECONDS)

    async def _read(self) -> None:
        topic = self._world.prefix + RETRAIN_JOBS.name
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._world.cluster.bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topic, number) for number in range(RETRAIN_JOBS.partitions)])
            while True:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    for record in records:
                        job = Job.model_validate_json(record.value or b"")
                        if job.status == "queued" and job.job_id not in self.done:
                            await self._do(job)
        finally:
            await consumer.stop()

    async def _do(self, job: Job) -> None:
        self.done.add(job.job_id)
        version = f"v-{job.job_id[-24:]}"
        for update in ("started", "completed"):
            said = {"job_id": job.job_id, "update": update, "at": datetime.now(UTC).isoformat(), "trainer": "t"}
            if update == "completed":
                said["model_version"] = version
            await self._sender.send(Sent(RETRAIN_JOB_UPDATES, job.job_id.encode(), encode(said)))
        now = datetime.now(UTC)
        event = {
            "model": job.model,
            "version": version,
            "stage": "champion",
            "registered_at": (now - timedelta(seconds=10)).isoformat(),
            "trained_through": (now - timedelta(seconds=20)).isoformat(),
            "artifact": {"uri": f"file:///{version}"},
            "job_id": job.job_id,
        }
        await self._traffic.operator(MODEL_VERSIONS, job.model, event)
        self._traffic.versions[job.model] = [*self._traffic.versions[job.model][-2:], version]


class Asker:
    """Asks for policy runs: each of both gateways at once, with the same Idempotency-Key, until answered."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._chance = Random(f"asker {seed}")
        self._numbers = itertools.count()
        self._stop = asyncio.Event()
        self.answered: dict[tuple[str, str], set[str]] = {}

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Ask until stopped; the last question is asked to its end."""
        async with httpx.AsyncClient(timeout=15, trust_env=False) as client:
            while not self._stop.is_set():
                model = self._chance.choice(MODELS)
                key = f"ask-{next(self._numbers)}"
                dry_run = self._chance.random() < 0.3
                answers = await asyncio.gather(
                    *(self._ask(client, gateway, model, key, dry_run) for gateway in ("gateway-1", "gateway-2"))
                )
                self.answered[model, key] = set(answers)
                await asyncio.sleep(REQUEST_EVERY_SECONDS)

    async def _ask(self, client: httpx.AsyncClient, gateway: str, model: str, key: str, dry_run: bool) -> str:
        """The id of the request that the gateway has taken."""
        body = {"model": model, "dry_run": dry_run, "requested_by": "a test"}
        while True:
            try:
                answer = await client.post(
                    self._world.url(gateway) + REQUESTS_PATH, json=body, headers={"Idempotency-Key": key}
                )
            except httpx.TransportError:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if answer.status_code in (200, 202):
                document = answer.json()
                request: str = document.get("request_id") or document["execution"]["request_id"]
                return request
            if answer.status_code not in (404, 503):
                raise AssertionError(f"{gateway} answered {answer.status_code}: {answer.text[:300]}")
            await asyncio.sleep(AGAIN_SECONDS)
