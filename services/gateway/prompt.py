"""A conversation as the model's token ids.

    <s> user parts <end-of-turn> assistant parts <end-of-turn> … user parts <end-of-turn>

A picture is begin-of-image, its codes, end-of-image. System text goes in front of the first user text. The answer
begins after the last end-of-turn; where it is to be a picture, the language model itself opens it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.checkpoint.vocabulary import Vocabulary
from services.errors import ContextOverflow
from services.pb.medmax.v1 import assistant_pb2


@dataclass(frozen=True)
class Picture:
    """The place of a picture among the ids."""

    index: int


@dataclass(frozen=True)
class Prompt:
    """A prompt whose pictures are not tokenized yet.

    Attributes:
        pieces: runs of token ids, and pictures (0, 1, … in the order of the conversation).
    """

    pieces: tuple[list[int] | Picture, ...]

    @property
    def text_tokens(self) -> int:
        """Everything but pictures, special tokens included."""
        return sum(len(piece) for piece in self.pieces if isinstance(piece, list))

    @property
    def images(self) -> int:
        return sum(isinstance(piece, Picture) for piece in self.pieces)

    def length(self, span: int) -> int:
        """Tokens in all, where a picture takes `span`."""
        return self.text_tokens + self.images * span

    def check_fits(self, span: int, context: int, answer: int) -> None:
        """Checks that `answer` tokens find room after the prompt.

        Raises:
            ContextOverflow: naming how many tokens and pictures fit.
        """
        room = context - answer
        length = self.length(span)
        if length <= room:
            return
        if self.images and self.text_tokens <= room:
            fit = (room - self.text_tokens) // span
            advice = f"with this text {fit} {'picture fits' if fit == 1 else 'pictures fit'}"
        else:
            advice = f"the text alone has {self.text_tokens:,}"
        raise ContextOverflow(
            f"the prompt has {length:,} tokens, {self.images} {'picture' if self.images == 1 else 'pictures'} of "
            f"{span:,} among them, and at most {room:,} fit beside the answer; {advice}",
            field="messages",
        )

    def ids(self, codes: Sequence[Sequence[int]], vocabulary: Vocabulary) -> list[int]:
        """The prompt with `codes[i]` in place of picture i."""
        ids: list[int] = []
        for piece in self.pieces:
            ids.extend(vocabulary.image_span(codes[piece.index]) if isinstance(piece, Picture) else piece)
        return ids


def build(messages: Sequence[assistant_pb2.Message], vocabulary: Vocabulary) -> Prompt:
    """The prompt of a checked conversation."""
    system = "\n".join(
        part.text
        for message in messages
        if message.role == assistant_pb2.ROLE_SYSTEM
        for part in message.parts
    )
    pieces: list[list[int] | Picture] = [[vocabulary.bos]]
    images = 0
    for message in messages:
        if message.role == assistant_pb2.ROLE_SYSTEM:
            continue
        turn = _join_texts(message)
        if system:
            turn, system = _with_system(turn, system), ""
        for text in turn:
            if text is None:
                pieces.append(Picture(images))
                images += 1
            else:
                pieces.append(vocabulary.encode(text))
        pieces.append([vocabulary.end_of_turn])
    return Prompt(tuple(pieces))


def _join_texts(message: assistant_pb2.Message) -> list[str | None]:
    """Texts, and None for each picture. Neighbouring texts become one, on lines of their own."""
    turn: list[str | None] = []
    for part in message.parts:
        if part.WhichOneof("part") == "image":
            turn.append(None)
        elif part.text:
            if turn and (last := turn[-1]) is not None:
                turn[-1] = f"{last}\n{part.text}"
            else:
                turn.append(part.text)
    return turn


def _with_system(turn: list[str | None], system: str) -> list[str | None]:
    for i, text in enumerate(turn):
        if text is not None:
            return [*turn[:i], f"{system}\n{text}", *turn[i + 1 :]]
    return [*turn, system]
