"""A language model as judge, at any OpenAI-compatible endpoint, at temperature 0.

The verdicts' forms are the published ones ("Correctness: 1/0"; two numbers from 1 to 10, the reference's first). The words
are our own: the published ones carry no licence. So figures are near to, not the same as, those of the publication.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import abstractmethod
from typing import Any

import httpx

from evaluation.scorers.core import Scorer
from evaluation.suite.example import Answer, Score, Truth
from evaluation.suite.rest import loopback

UNREACHABLE = "judge_unreachable"
_CORRECTNESS = re.compile(r"correctness\s*[:=]\s*\**\s*([01])(?![\d.])", re.IGNORECASE)
_TWO = re.compile(
    r"^\D{0,20}?(\d+(?:\.\d+)?)(?:\s*/\s*10)?[\s,;]+(?:and\s+)?(\d+(?:\.\d+)?)(?:\s*/\s*10)?\W*$"
)
_MAX_CHARS = 20_000

CORRECT = """You grade answers to questions about medical images.
Compare the answer with the reference. Give 1 if it says the same, or answers the question well enough; otherwise 0.

Question: {question}
Reference: {truth}
Answer: {answer}

Reply in one line, in this form and with nothing else:
Correctness: 1 or 0"""

RELATIVE = """Two assistants answered a question about a medical image. What is known of the image:
{context}

Question: {question}

[Assistant 1]
{truth}
[End of assistant 1]

[Assistant 2]
{answer}
[End of assistant 2]

Rate both for helpfulness, relevance, accuracy and detail, each from 1 (bad) to 10 (good); the order means nothing.
Write the two numbers, assistant 1 first, on the first line, with a space between them. Explain on the lines below."""


class Endpoint:
    """`POST {url}/chat/completions`.

    Args:
        url: with `/v1` or what takes its place.
        model: asked for by name.
        key: bearer token; empty: none.
        timeout_s: of one try; `tries` of them, for what may pass (429, 5xx, no connection, too late).
        parallel: requests at a time.
        give_up_after: unanswered questions in a row after which the endpoint counts as down; it is then asked once
            every `again_s` seconds and all other questions fail at once, so that a dead judge does not hold up a run.
    """

    def __init__(
        self, url: str, model: str, key: str = "", *, timeout_s: float = 60.0, tries: int = 4, parallel: int = 8,
        wait_s: float = 0.5, give_up_after: int = 8, again_s: float = 30.0,
    ) -> None:  # fmt: skip
        self.url, self.model = url.rstrip("/"), model
        self._tries, self._wait_s, self._give_up_after, self._again_s = tries, wait_s, give_up_after, again_s
        self._gate = asyncio.Semaphore(parallel)
        self._silent = 0
        self._last_try = 0.0
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=10),
            trust_env=not loopback(self.url),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, text: str) -> tuple[str | None, str]:
        """The judge's words, or None and why there are none."""
        async with self._gate:
            down = self._silent >= self._give_up_after
            if down and time.monotonic() - self._last_try < self._again_s:
                return None, "not asked: the judge answered none of the questions before"
            self._last_try = time.monotonic()
            reason = ""
            for attempt in range(1 if down else self._tries):
                if attempt:
                    await asyncio.sleep(min(30.0, self._wait_s * 2 ** (attempt - 1)))
                words, reason, again = await self._once(text)
                if words is not None:
                    self._silent = 0
                    return words, ""
                if not again:
                    break
            self._silent += 1
            return None, reason

    async def _once(self, text: str) -> tuple[str | None, str, bool]:
        """Words, or a reason and whether to try again."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 512,
        }
        try:
            reply = await self._client.post(f"{self.url}/chat/completions", json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return None, f"no answer ({type(error).__name__})", True
        if reply.is_error:
            return (
                None,
                f"status {reply.status_code}",
                reply.status_code in (408, 409, 429) or reply.is_server_error,
            )
        try:
            words: Any = reply.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            return None, "the reply is no chat completion", True
        return (words, "", False) if isinstance(words, str) else (None, "the reply holds no text", False)


class _Judge(Scorer):
    prompt = ""

    def __init__(self, endpoint: Endpoint | None) -> None:
        self._endpoint = endpoint

    def missing(self) -> str | None:
        return None if self._endpoint else "no judge was given (--judge-url, --judge-model)"

    async def score(self, truth: Truth, answer: Answer) -> Score:
        assert self._endpoint is not None
        if not answer.text.strip():
            return Score(0.0, note="no text in the answer")
        words, reason = await self._endpoint.ask(
            self.prompt.format(
                question=truth.question[:_MAX_CHARS],
                truth=truth.text[:_MAX_CHARS],
                answer=answer.text[:_MAX_CHARS],
                context=truth.context[:_MAX_CHARS] or "nothing",
            )
        )
        if words is None:
            return Score(None, UNREACHABLE, reason)
        value = self.read(words)
        if value is None:
            return Score(None, "judge_unparseable", "the verdict has not the form asked for", words)
        return Score(value, note=words)

    @abstractmethod
    def read(self, words: str) -> float | None:
        """The verdict, or None where there is none or two."""


class JudgeCorrect(_Judge):
    """1 or 0 as the judge says; an empty answer is 0 without asking."""

    name, version, metric, binary = "judge_correct", 1, "accuracy (judge)", True
    prompt = CORRECT

    def read(self, words: str) -> float | None:
        verdicts = set(_CORRECTNESS.findall(words))
        return float(verdicts.pop()) if len(verdicts) == 1 else None


class JudgeRelative(_Judge):
    """The answer's mark over the reference's, in per cent; may exceed 100."""

    name, version, metric, scale = "judge_relative", 1, "relative score (judge), %", 100.0
    prompt = RELATIVE

    def read(self, words: str) -> float | None:
        lines = words.strip().splitlines()
        found = _TWO.match(lines[0].strip()) if lines else None
        if found is None:
            return None
        reference, ours = (float(number) for number in found.groups())
        return 100 * ours / reference if 1 <= reference <= 10 and 1 <= ours <= 10 else None
