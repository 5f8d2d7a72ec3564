"""Greedy answers the slow and obvious way: one sequence, no cache, every stream recomputed at every token."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from services.checkpoint import Checkpoint
from services.llm.model import Chameleon
from services.llm.request import GenerationRequest, OutputMode


@dataclass
class NaiveAnswer:
    """`parts` are ("text", ids) and ("image", codes) in order; logprobs of the text tokens at temperature 1."""

    parts: list[tuple[str, list[int]]] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    code_logprobs: list[float] = field(default_factory=list)
    reason: str = ""
    completion_tokens: int = 0


@torch.inference_mode()
def answer(checkpoint: Checkpoint, model: Chameleon, request: GenerationRequest) -> NaiveAnswer:
    """What the engine must answer to a greedy `request` with `max_new_tokens`, no stop strings."""
    v = checkpoint.vocabulary
    n = checkpoint.codes_per_image
    default, asked = checkpoint.generation, request.sampling

    def setting(name: str) -> float:
        value = getattr(asked, name)
        return getattr(default, name) if value is None else value

    def logits(ids: list[int]) -> torch.Tensor:
        return model(torch.tensor([ids]))[0, -1].float()

    ids = [int(i) for i in request.prompt_ids]
    prompt_tokens = len(ids)
    limit = checkpoint.config.context
    if request.max_new_tokens is not None:
        limit = min(limit, len(ids) + request.max_new_tokens)
    images_left = request.max_images
    if images_left is None:
        images_left = 1 if request.mode is OutputMode.IMAGE else 4
    out = NaiveAnswer()

    def draw_picture() -> None:
        start = list(ids)  # ends in begin-of-image
        kept = {v.bos, v.begin_image, v.end_image, *v.code_ids.tolist()}
        image_stream = [i for i in start if i in kept]
        none_stream = [v.bos, v.begin_image]
        if v.end_image not in start:
            image_stream = none_stream
        text, image = setting("guidance_text"), setting("guidance_image")
        codes: list[int] = []
        for _ in range(n):
            drawn = [int(v.code_ids[c]) for c in codes]
            full, part, none = (logits(s + drawn) for s in (start, image_stream, none_stream))
            guided = (none + image * (part - none) + text * (full - part))[torch.from_numpy(v.code_ids)]
            codes.append(int(guided.argmax()))
            out.code_logprobs.append(float(torch.log_softmax(guided, -1)[codes[-1]]))
        out.parts.append(("image", codes))
        ids.extend(int(v.code_ids[c]) for c in codes)
        ids.append(v.end_image)

    if request.mode is OutputMode.IMAGE:
        ids.append(v.begin_image)
        draw_picture()
        out.reason, out.completion_tokens = "stop", len(ids) - prompt_tokens
        return out

    text_ids: list[int] = []

    def end_text() -> None:
        if text_ids:
            out.parts.append(("text", list(text_ids)))
            text_ids.clear()

    while True:
        allowed = {*v.text_ids.tolist(), v.eos, v.end_of_turn}
        if request.mode is OutputMode.INTERLEAVED and images_left and len(ids) + n + 2 <= limit:
            allowed.add(v.begin_image)
        raw = logits(ids)
        masked = torch.full_like(raw, -1e30)
        index = torch.tensor(sorted(allowed))
        masked[index] = raw[index]
        penalised = masked.clone()
        for i in set(ids):
            factor = setting("repetition_penalty")
            penalised[i] = penalised[i] / factor if penalised[i] > 0 else penalised[i] * factor
        token = int(penalised.argmax())
        ids.append(token)
        if token == v.begin_image:
            end_text()
            images_left -= 1
            draw_picture()
        elif token in (v.eos, v.end_of_turn):
            out.reason = "stop"
            break
        else:
            text_ids.append(token)
            out.logprobs.append(float(torch.log_softmax(masked, -1)[token]))
        if len(ids) >= limit:
            out.reason = "length"
            break
    end_text()
    out.completion_tokens = len(ids) - prompt_tokens
    return out
