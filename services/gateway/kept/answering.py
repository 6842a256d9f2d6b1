"""Answers a question from what is kept where that is as new as the database, and else by making the answer.

Why no answer is ever older than the database was when it was asked for: the revision is read first, then what the
answer is made of, and the answer is kept under that revision. Later the revision is read again, after the question
came. Where it is the same, nothing had changed between the two reads, so the answer has all that was so when the
question came, whatever was written meanwhile, and through whichever gateway anybody saw it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Counter

from services.gateway.kept.answers import KeptAnswer, KeptAnswers, Key
from services.gateway.kept.revisions import Revisions

GIVEN_TOTAL = Counter(
    "trueward_kept_answers_total", "Answers to what may be kept: from memory, or made of what was read.", ["from"]
)
FROM_MEMORY, MADE = GIVEN_TOTAL.labels("memory"), GIVEN_TOTAL.labels("database")

Make = Callable[[], Awaitable[bytes]]


class Answering:
    """Gives answers, kept or made; several that need the same at once have it made once."""

    def __init__(self, revisions: Revisions, kept: KeptAnswers) -> None:
        self._revisions = revisions
        self._kept = kept
        self._making: dict[tuple[Key, str], asyncio.Task[bytes]] = {}

    async def kept(self, key: Key) -> bytes | None:
        """The answer kept for a key, if there is one and it still is so. Raises what reading revisions raises."""
        found = self._kept.get(key)
        if found is None or found.revision != await self._revisions.of(found.model):
            return None
        FROM_MEMORY.inc()
        return found.content

    async def answer(self, key: Key, model: str, make: Make) -> bytes:
        """The answer about a model, as ``make`` makes it. Raises what making it raises, and then keeps nothing."""
        revision = await self._revisions.of(model)
        if revision is None:
            return await make()
        found = self._kept.get(key)
        if found is not None and found.revision == revision:
            FROM_MEMORY.inc()
            return found.content
        making = self._making.get((key, revision))
        if making is None:
            making = asyncio.create_task(self._make(key, KeptAnswer(model, revision, b""), make))
            self._making[key, revision] = making
        # Others may wait for it too: who goes away does not end it.
        return await asyncio.shield(making)

    async def _make(self, key: Key, under: KeptAnswer, make: Make) -> bytes:
        try:
            content = await make()
            MADE.inc()
            self._kept.keep(key, KeptAnswer(under.model, under.revision, content))
            return content
        finally:
            del self._making[key, under.revision]
