"""A conversation with an assistant: its turns, what was drawn in it, what went wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from services.commands.answers import SUFFIXES, Answer, gather, picture_part
from services.commands.assistants import Assistant
from services.commands.output import complain, printable, say
from services.errors import ContextOverflow, InvalidInput, MedMaxError
from services.pb.medmax.v1 import assistant_pb2, common_pb2


class Dialogue:
    """Keeps the history that goes with every request.

    A turn that fails leaves the history as it was, and its pictures attached to the next one.

    Args:
        folder: where drawn pictures are saved.
        seed: of the first answer; the next ones count on from it.
        show: print the answers on stdout as they come.
        adapter: that all answers are given under.
    """

    def __init__(
        self, assistant: Assistant, folder: Path, seed: int | None, show: bool, adapter: str = ""
    ) -> None:
        self.turns: list[dict[str, Any]] = []
        self.failures = 0
        self._assistant = assistant
        self._folder = folder
        self._seed = seed
        self._show = show
        self._adapter = adapter
        self._drawn = 0
        self._history: list[assistant_pb2.Message] = []
        self._attached: list[assistant_pb2.Part] = []
        self._attached_names: list[str] = []
        self._files: list[str] = []

    def restart(self) -> None:
        """Forget what was said."""
        self._history.clear()
        self._attached.clear()
        self._attached_names.clear()

    def attach(self, path: Path, window: tuple[float, float] | None = None) -> None:
        """Show the picture `path` with the next message."""
        try:
            part = picture_part(path, window)
        except OSError as error:
            self._fail(InvalidInput(f"cannot read {path}: {error.strerror}", field="/picture"))
            return
        self._attached.append(part)
        self._attached_names.append(str(path))
        say(f"{path} goes with the next message")

    async def turn(self, text: str) -> None:
        """Say `text` and show the answer."""
        message = assistant_pb2.Message(
            role=assistant_pb2.ROLE_USER, parts=[*self._attached, assistant_pb2.Part(text=text)]
        )
        request = assistant_pb2.GenerateRequest(
            mode=common_pb2.OUTPUT_MODE_INTERLEAVED, adapter=self._adapter
        )
        request.messages.extend([*self._history, message])
        if self._seed is not None:
            request.sampling.seed = (self._seed + len(self.turns)) % 2**64
        turn: dict[str, Any] = {"user": {"text": text, "pictures": list(self._attached_names)}}
        self.turns.append(turn)
        self._files = []
        try:
            answer = await self._fitting(request)
        except MedMaxError as error:
            self._fail(error, turn)
            return
        finally:
            self._end_line()
        turn["assistant"] = {"text": answer.text, "parts": self._parts(answer), **answer.to_json()}
        # An empty answer is no turn: nobody may send one.
        if said := _said(answer):
            self._history += [message, assistant_pb2.Message(role=assistant_pb2.ROLE_ASSISTANT, parts=said)]
        self._attached.clear()
        self._attached_names.clear()

    async def _fitting(self, request: assistant_pb2.GenerateRequest) -> Answer:
        """The answer with as many of the latest turns as the model's context holds."""
        while True:
            try:
                return await gather(self._assistant, request, self._event)
            except ContextOverflow:
                if len(request.messages) < 3:
                    raise
                del request.messages[:2], self._history[:2]
                say("the conversation is longer than the model's context: its oldest turn was forgotten")

    def _event(self, event: assistant_pb2.GenerateEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "image":
            file = self._save(event.image)
            self._files.append(file)
            self._write(f"\n[{file}]\n")
        elif kind == "text":
            self._write(event.text.text)

    def _save(self, image: assistant_pb2.ImagePart) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            self._drawn += 1
            path = self._folder / f"chat-{self._drawn:03d}{SUFFIXES.get(image.mime_type, '.png')}"
            try:
                with path.open("xb") as file:
                    file.write(image.data)
                return str(path)
            except FileExistsError:
                continue

    def _write(self, text: str) -> None:
        if self._show:
            sys.stdout.write(printable(text))
            sys.stdout.flush()

    def _end_line(self) -> None:
        self._write("\n")

    def _parts(self, answer: Answer) -> list[dict[str, str]]:
        files = iter(self._files)
        return [
            {"text": part.text} if part.WhichOneof("part") == "text" else {"picture": next(files)}
            for part in answer.parts
        ]

    def _fail(self, error: MedMaxError, turn: dict[str, Any] | None = None) -> None:
        self.failures += 1
        complain(error)
        described = {"code": error.code, "message": error.message, "field": error.field}
        if turn is None:
            self.turns.append({"error": described})
        else:
            turn["error"] = described

    def to_json(self) -> dict[str, Any]:
        return {"turns": self.turns, "failed": self.failures}


def _said(answer: Answer) -> list[assistant_pb2.Part]:
    """The answer as history: what it was, without what is only for people to know."""
    parts = []
    for part in answer.parts:
        if part.WhichOneof("part") == "image":
            parts.append(assistant_pb2.Part(image=assistant_pb2.ImagePart(data=part.image.data)))
        elif part.text.strip():
            parts.append(part)
    return parts
