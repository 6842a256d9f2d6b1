"""What can go wrong, told apart: refused input, transient faults, and mistakes of the operator."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from shared.contracts.dead_letters import RefusalReason


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record cannot be accepted: it becomes a dead letter and the stream goes on."""

    reason: RefusalReason
    field: str | None
    detail: str


class TruewardError(Exception):
    """An expected error; its text is one clear line for a person."""


class UsageError(TruewardError):
    """The command or the configuration is wrong: exit code 2."""


USAGE_EXIT_CODE = 2
"""How a process ends that was told something wrong: no further start mends it."""


class ServiceExit(SystemExit):
    """A service's process ends by itself, having said why; ``code`` is its exit code."""


class InputLostError(TruewardError):
    """The broker no longer has what the inbox says comes next; going on would lose or repeat records."""


def is_refused_by_database(error: BaseException) -> bool:
    """Whether PostgreSQL refuses the data itself (SQLSTATE class 22): no retry can help."""
    return isinstance(error, asyncpg.DataError)
