"""What retrain makes of multiclass and regression models, wherever it is kept."""

from __future__ import annotations

from typing import Any

from shared.contracts.models import MaeRule, Rollback, Rules
from shared.contracts.retraining import Job
from shared.contracts.snapshots import VersionMetrics
from tests.unit.retrain.builders import make_snapshot, make_update
from tests.unit.retrain.harness import Retrain

REGRESSION: dict[str, Any] = {
    "kind": "regression", "accuracy": None, "brier_score": None, "new_labels": 0,
    "mae": 5.0, "baseline_mae": 2.0, "baseline_evaluated_predictions": 100,
}  # fmt: skip
MULTICLASS: dict[str, Any] = {"kind": "multiclass", "accuracy": 0.8, "brier_score": 0.6, "new_labels": 0}


async def completed(retrain: Retrain, job: Job) -> None:
    await retrain.take(make_update(job, "started"), make_update(job, "completed", model_version="v2"))


class Kinds:
    async def test_a_mae_breach_makes_a_job_whose_version_is_held_to_the_mae(self, retrain: Retrain) -> None:
        policy = {"rules": Rules(mae_breach=MaeRule(above_ratio=2.0)), "rollback": Rollback(mae_rise=0.1)}
        told = await retrain.take(make_snapshot(1, policy=policy, **REGRESSION))
        ((decision,), (job,)) = (told.decisions, told.jobs)
        assert (decision.action, decision.fired) == ("queued-retrain", ("mae_breach",))
        assert decision.thresholds.known() == {
            "accuracy_below": None,
            "brier_above": None,
            "multiclass_brier_above": None,
            "mae_above": 4.0,
            "new_labels_at_least": 40,
            "min_evaluated": 30,
        }
        assert job.rollback_plan.baseline.known() == {
            "kind": "regression",
            "evaluated_predictions": 100,
            "accuracy": None,
            "brier_score": None,
            "mae": 5.0,
        }
        await completed(retrain, job)
        worse = VersionMetrics(kind="regression", evaluated_predictions=30, mae=5.6)
        (judged,) = (await retrain.take(make_snapshot(2, versions={"v2": worse}, **REGRESSION))).jobs
        assert judged.aftermath is not None
        assert (judged.aftermath.verdict, judged.aftermath.mae) == ("revert_to_previous_model_artifact", 5.6)

    async def test_a_covered_mae_breach_makes_no_second_job(self, retrain: Retrain) -> None:
        told = await retrain.take(make_snapshot(1, **REGRESSION), make_snapshot(2, **REGRESSION))
        assert [decision.action for decision in told.decisions] == ["queued-retrain", "already-queued"]
        assert told.decisions[1].covered_by == {"mae_breach": told.jobs[0].job_id}

    async def test_a_multiclass_brier_breach_has_a_cause_of_its_own(self, retrain: Retrain) -> None:
        told = await retrain.take(make_snapshot(1, **MULTICLASS))
        assert told.jobs[0].triggers == ("multiclass_brier_breach",)
        assert told.jobs[0].rollback_plan.multiclass_brier_rise == 0.04
        await completed(retrain, told.jobs[0])
        better = VersionMetrics(kind="multiclass", evaluated_predictions=30, accuracy=0.9, brier_score=0.6399)
        judged = (await retrain.take(make_snapshot(2, versions={"v2": better}, **MULTICLASS))).jobs[-1]
        assert judged.aftermath is not None
        assert judged.aftermath.verdict == "keep"

    async def test_a_version_of_another_kind_is_kept_uncompared(self, retrain: Retrain) -> None:
        told = await retrain.take(make_snapshot(1, **MULTICLASS))
        await completed(retrain, told.jobs[0])
        other = VersionMetrics(kind="regression", evaluated_predictions=30, mae=1.0)
        judged = (await retrain.take(make_snapshot(2, versions={"v2": other}, **MULTICLASS))).jobs[-1]
        assert judged.aftermath is not None
        assert judged.aftermath.verdict == "keep"
        assert judged.aftermath.reason == "a regression model cannot be compared with the multiclass one before it"
