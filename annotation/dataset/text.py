"""Dialogues and answers as the text of rows: as the gateway builds a prompt, turn for turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from annotation.core import Part, Picture, Turn
from services.checkpoint.vocabulary import END_OF_TURN, PLACEHOLDER

NameOf = Callable[[Picture], str]
"""Path of a picture in the data set."""

Spelt = tuple[str, tuple[str, ...]]
"""Text with a placeholder for each picture, and the pictures' paths in that order."""

Record = dict[str, Any]

Given = tuple[str, Record] | tuple[None, str]
"""The rule that made it and its fields; or the reason why there is nothing."""

SOURCE = "medmax-review"


class Refused(Exception):
    """Something of a judgement gives no row. `reason` is short and stable, and says nothing of its content."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def plain(text: str) -> str:
    """`text` where a row can hold it. Raises: Refused."""
    if PLACEHOLDER in text or END_OF_TURN in text:
        raise Refused("text_looks_like_a_placeholder")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused("half_of_a_character") from None
    return text


def spell(parts: Sequence[Part], name: NameOf, before: str = "") -> Spelt:
    """One turn; neighbouring texts are lines. `before` goes in front of its first text. Raises: Refused."""
    pieces: list[str | None] = []
    paths: list[str] = []
    for part in parts:
        if isinstance(part, Picture):
            pieces.append(None)
            paths.append(name(part))
        elif part:
            text = plain(part)
            if pieces and (last := pieces[-1]) is not None:
                pieces[-1] = f"{last}\n{text}"
            else:
                pieces.append(text)
    if before:
        first = next((i for i, piece in enumerate(pieces) if piece is not None), None)
        if first is None:
            pieces.append(plain(before))
        else:
            pieces[first] = f"{plain(before)}\n{pieces[first]}"
    return "".join(PLACEHOLDER if piece is None else piece for piece in pieces), tuple(paths)


def spell_answer(parts: Sequence[Part], name: NameOf) -> Spelt:
    """An answer, outer white space removed. Raises: Refused where nothing is left."""
    text, paths = spell(parts, name)
    if not (text := text.strip()):
        raise Refused("empty_answer")
    return text, paths


def spell_dialogue(dialogue: Sequence[Turn], name: NameOf) -> Spelt:
    """System turns first, then user and assistant in turn, the user first and last. Raises: Refused."""
    spoken = [turn for turn in dialogue if turn.role != "system"]
    roles = [turn.role for turn in spoken]
    if len(roles) % 2 == 0 or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles)):
        raise Refused("dialogue_does_not_alternate")
    system = "\n".join(
        part
        for turn in dialogue
        if turn.role == "system"
        for part in turn.parts
        if isinstance(part, str) and part
    )
    turns = [spell(turn.parts, name, before="" if i else system) for i, turn in enumerate(spoken)]
    if not all(text.strip() for text, _ in turns):
        raise Refused("empty_turn")
    return END_OF_TURN.join(text for text, _ in turns), tuple(path for _, paths in turns for path in paths)


def question(dialogue: Sequence[Turn]) -> str:
    """All that was said up to and with the last question, for comparing; pictures left out."""
    return "\n".join(
        f"{turn.role}: {part}" for turn in dialogue for part in turn.parts if isinstance(part, str)
    )


def row(asked: Spelt, answer: Spelt, task: str) -> Record:
    """MedMax's schema; of a dialogue the last answer alone is learnt, since it alone was judged."""
    return {
        "text": f"{asked[0]}{END_OF_TURN}{answer[0]}", "tokens": None, "image_path": [*asked[1], *answer[1]],
        "task": task, "source": SOURCE, "credential": False, "learn": "last",
    }  # fmt: skip


def pair(asked: Spelt, chosen: Spelt, rejected: Spelt) -> Record:
    """What `medmax train lora --preferences` reads."""
    return {
        "prompt": asked[0], "image_path": list(asked[1]),
        "chosen": chosen[0], "chosen_image_path": list(chosen[1]),
        "rejected": rejected[0], "rejected_image_path": list(rejected[1]),
    }  # fmt: skip


def unpaired(asked: Spelt, rejected: Spelt) -> Record:
    """A negative of its own, as KTO learns from."""
    return {
        "prompt": asked[0], "image_path": list(asked[1]),
        "completion": rejected[0], "completion_image_path": list(rejected[1]), "label": False,
    }  # fmt: skip
