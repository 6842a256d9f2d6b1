"""The store in memory, keeping the same documents as PostgreSQL does."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from services.alerting.domain.judgement import JudgedModel, ModelAlerts
from services.alerting.store import document_of_evaluations, document_of_standing, standing_from
from shared.contracts.alerts import AlertTransition


class FakeStore:
    """Fails on what the database's constraints refuse: a transition numbered twice, a model not locked."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.documents: dict[tuple[str, int], dict[str, Any]] = {}

    async def lock(self, _connection: object, models: Collection[str]) -> dict[str, ModelAlerts]:
        return self.read(models)

    async def save(self, _connection: object, judged: Collection[JudgedModel]) -> None:
        self.write(judged)

    async def append(self, _connection: object, transitions: Collection[AlertTransition]) -> None:
        for each in transitions:
            place = (each.model, each.alert_sequence)
            assert place not in self.documents
            assert each.model in self.rows
            self.documents[place] = each.known()

    def read(self, models: Collection[str]) -> dict[str, ModelAlerts]:
        new = {"snapshot_sequence": 0, "as_of": None, "alert_sequence": 0, "standing": "{}"}
        rows = {model: self.rows.setdefault(model, dict(new)) for model in models}
        return {
            model: ModelAlerts(
                snapshot_sequence=row["snapshot_sequence"],
                as_of=row["as_of"],
                alert_sequence=row["alert_sequence"],
                standing=standing_from(json.loads(row["standing"])),
            )
            for model, row in rows.items()
        }

    def write(self, judged: Collection[JudgedModel]) -> None:
        for each in judged:
            assert each.model in self.rows
            self.rows[each.model] = {
                "snapshot_sequence": each.alerts.snapshot_sequence,
                "alert_sequence": each.alerts.alert_sequence,
                "standing": json.dumps(document_of_standing(each.alerts.standing)),
                "evaluations": json.dumps(document_of_evaluations(each.evaluations)),
                "state": each.alerts.state,
                "as_of": each.as_of,
            }
