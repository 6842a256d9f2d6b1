"""The escalation table, at, below and above each streak."""

from __future__ import annotations

from typing import get_args

import pytest

from services.alerting.domain import escalation, judgement, rules
from services.alerting.domain.escalation import (
    RECOMMENDED_ACTION,
    EscalationLevel,
    ModelState,
    RecommendedAction,
    escalation_level,
    model_state,
)
from services.alerting.domain.rules import Severity
from shared.contracts import alerts as contract


@pytest.mark.parametrize(
    ("severity", "streak", "level", "action"),
    [
        ("high", 1, "watch", "investigate_now"),
        ("high", 2, "incident", "open_incident"),
        ("high", 3, "incident", "open_incident"),
        ("high", 1000, "incident", "open_incident"),
        ("medium", 1, "none", "monitor"),
        ("medium", 2, "none", "monitor"),
        ("medium", 3, "watch", "investigate_now"),
        ("medium", 4, "watch", "investigate_now"),
        ("medium", 1000, "watch", "investigate_now"),
    ],
)
def test_level_and_action_follow_from_severity_and_streak(
    severity: Severity, streak: int, level: EscalationLevel, action: RecommendedAction
) -> None:
    assert escalation_level(severity, streak) == level
    assert RECOMMENDED_ACTION[level] == action


@pytest.mark.parametrize(
    ("levels", "state"),
    [
        ([], "none"),
        (["none"], "active"),
        (["none", "none"], "active"),
        (["watch"], "watch"),
        (["none", "watch"], "watch"),
        (["watch", "none", "watch"], "watch"),
        (["incident"], "incident"),
        (["incident", "none"], "incident"),
        (["watch", "incident", "none"], "incident"),
        (["incident", "watch", "incident", "none"], "incident"),
    ],
)
def test_the_models_state_is_that_of_its_most_serious_alert(
    levels: list[EscalationLevel], state: ModelState
) -> None:
    assert model_state(levels) == state
    assert model_state(reversed(levels)) == state


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        (rules.AlertId, contract.AlertId),
        (rules.Severity, contract.Severity),
        (escalation.EscalationLevel, contract.EscalationLevel),
        (escalation.RecommendedAction, contract.RecommendedAction),
        (escalation.ModelState, contract.ModelState),
    ],
)
def test_the_domains_words_are_the_contracts(ours: object, published: object) -> None:
    assert get_args(ours) == get_args(published)


def test_the_domains_transitions_are_the_contracts() -> None:
    assert {*get_args(judgement.AlertTransitionKind), "state_changed"} == set(get_args(contract.Transition))
