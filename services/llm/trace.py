"""What a trace tells of one answer of the engine: when what began, and how much it took."""

from __future__ import annotations

from services.llm.events import Event, Finish, Picture
from services.tracing import Span


def tell(span: Span, event: Event, model_id: str) -> None:
    """Adds to the answer's span, which began with the request's arrival, what `event` tells of its course."""
    if isinstance(event, Picture):
        span.event("picture begun", event.begun_ms)
        span.event("picture finished", event.finished_ms, {"medmax.image_tokens": len(event.codes)})
    elif isinstance(event, Finish):
        usage = event.usage
        span.event("begun", event.queue_ms)
        span.event("first token", event.first_token_ms)
        span.set(
            {
                "gen_ai.response.model": model_id,
                "gen_ai.response.finish_reasons": [event.reason.value],
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "medmax.input_image_tokens": usage.prompt_image_tokens,
                "medmax.output_image_tokens": usage.completion_image_tokens,
                "medmax.cached_tokens": usage.cached_tokens,
                "medmax.pictures": usage.images,
                "medmax.queue_ms": round(event.queue_ms, 3),
                "medmax.first_token_ms": round(event.first_token_ms, 3),
            }
        )
