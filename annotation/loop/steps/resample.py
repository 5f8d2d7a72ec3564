"""Short answers that may be routed → how many of those drawn anew agree with them. The beginning of `route`."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from annotation.loop.assistant import GONE, NoAssistant
from annotation.loop.context import Loop
from annotation.loop.faults import point
from annotation.loop.item import dialogue_of
from annotation.loop.result import Result
from annotation.routing.features import resampled_agreement
from annotation.store import Candidate
from services.errors import MedMaxError


def run(loop: Loop) -> Result:
    """A bounded number before each routing; what is not reached is scored without. Nothing where `resample.draws` is 0
    or no assistant is set.

    Raises:
        NoAssistant: it is out of reach.
    """
    settings, result = loop.settings.resample, Result()
    if not settings.draws or not loop.settings.assistant.url:
        return result
    since = loop.clock() - timedelta(days=loop.settings.routing.max_age_days)
    for candidate in loop.store.resamples.wanting(since, settings.characters, settings.per_pass):
        if loop.stopping.is_set():
            break
        agreement: float | None = None
        try:
            agreement = _agreement(loop, candidate, settings.draws)
        except GONE as error:
            raise NoAssistant(f"no answer could be drawn again: {error.code}") from None
        except MedMaxError as error:  # of this question, which is not asked again
            result.failed[error.code] += 1
        point("resample.drawn")
        result.done += loop.store.resamples.put(
            candidate.interaction_id, agreement, 0 if agreement is None else settings.draws
        )
    return result


def _agreement(loop: Loop, candidate: Candidate, draws: int) -> float:
    interaction = loop.interaction(candidate.interaction_id)
    dialogue = dialogue_of(interaction)
    answer = "".join(part.text for part in interaction.output)

    async def ask(seed: int) -> str:
        return await asyncio.to_thread(loop.drafts.text, dialogue, seed)

    # The seeds are fixed, so that a repeat draws the same.
    return asyncio.run(resampled_agreement(ask, answer, range(1, draws + 1)))
