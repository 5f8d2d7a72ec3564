"""Token ids to text as it is generated: whole characters, and nothing from a stop string on."""

from __future__ import annotations

from dataclasses import dataclass

from services.checkpoint import Vocabulary
from services.llm.events import Text, TokenLogprob

_REPLACEMENT = "\ufffd"
_MAX_BYTES = (
    4  # of one character in UTF-8: more tokens than this are broken text, not an unfinished character
)


@dataclass(frozen=True)
class _Piece:
    text: str
    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


class TextAssembler:
    """The text of one sequence; `push` tokens, `take` what may leave."""

    def __init__(self, vocabulary: Vocabulary, stops: tuple[str, ...]) -> None:
        self._vocabulary, self._stops = vocabulary, stops
        self._context: list[int] = []  # the ids decoded last: decoders may look back
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] = []
        self._held: list[_Piece] = []
        self.stopped = False

    def push(self, token_id: int, logprob: TokenLogprob | None) -> None:
        """Add a text token; afterwards `stopped` tells whether a stop string is complete."""
        self._ids.append(token_id)
        if logprob is not None:
            self._logprobs.append(logprob)
        if len(self._ids) == 1 and (whole := self._vocabulary.whole(token_id)) is not None:
            self._accept(whole, 1)
            return
        text = self._decoded()
        if not text.endswith(_REPLACEMENT):
            self._accept(text, len(self._ids))
        elif len(self._ids) >= _MAX_BYTES:
            self._accept_broken(text)

    def take(self) -> Text | None:
        """What can no longer become part of a stop string."""
        if not self._held:
            return None
        if self.stopped or not self._stops:
            return self._release(len(self._held))
        held = "".join(piece.text for piece in self._held)
        free = len(held) - self._partial(held)
        count = end = 0
        for piece in self._held:
            end += len(piece.text)
            if end > free:
                break
            count += 1
        return self._release(count)

    def flush(self) -> Text | None:
        """All that is left, for the end of a stretch of text; an unfinished character is dropped."""
        if self._ids and not self.stopped:
            text = self._decoded()
            # U+FFFD is a character too: what spells it is finished.
            spelt = self._vocabulary.reads_text and self._vocabulary.encode(text) == self._ids
            self._accept(text if spelt else text.rstrip(_REPLACEMENT), len(self._ids))
        return self._release(len(self._held))

    def _decoded(self) -> str:
        context = len(self._vocabulary.decode(self._context)) if self._context else 0
        return self._vocabulary.decode(self._context + self._ids)[context:]

    def _accept(self, text: str, count: int) -> None:
        """Take the first `count` waiting ids as complete: they are `text`."""
        ids, self._ids = self._ids[:count], self._ids[count:]
        logprobs, self._logprobs = self._logprobs[:count], self._logprobs[count:]
        self._context = [] if text.endswith(_REPLACEMENT) else ids
        self._held.append(_Piece(text, tuple(ids), tuple(logprobs)))
        if self._stops:
            self._cut()

    def _accept_broken(self, text: str) -> None:
        """Too long for an unfinished character: let go of bytes that no later token can complete."""
        context = len(self._vocabulary.decode(self._context)) if self._context else 0
        for count in range(1, len(self._ids)):
            head = self._vocabulary.decode(self._context + self._ids[:count])[context:]
            if head + self._vocabulary.decode(self._ids[count:]) == text:
                self._accept(head, count)
                return

    def _cut(self) -> None:
        held = "".join(piece.text for piece in self._held)
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if not found:
            return
        self.stopped = True
        kept: list[_Piece] = []
        left = min(found)
        for piece in self._held:
            if left <= 0:
                break
            kept.append(_Piece(piece.text[:left], piece.ids, piece.logprobs))
            left -= len(piece.text)
        self._held = kept

    def _partial(self, held: str) -> int:
        """Characters at the end of `held` with which a stop string may begin."""
        for size in range(min(len(held), max(map(len, self._stops)) - 1), 0, -1):
            if any(stop.startswith(held[-size:]) for stop in self._stops):
                return size
        return 0

    def _release(self, count: int) -> Text | None:
        pieces, self._held = self._held[:count], self._held[count:]
        if not pieces:
            return None
        return Text(
            "".join(piece.text for piece in pieces),
            tuple(i for piece in pieces for i in piece.ids),
            tuple(entry for piece in pieces for entry in piece.logprobs),
        )
