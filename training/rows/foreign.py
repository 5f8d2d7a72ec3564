"""Whether ids were written for this vocabulary. Ids of another one would be learnt as garbage without an error."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from services.checkpoint import Vocabulary
from services.checkpoint.vocabulary import END_OF_TURN
from training.rows.schema import IMAGE
from training.rows.trouble import Reason, Unusable

_SPACE = re.compile(r"\s+")


def check_tokens(tokens: NDArray[np.int64], vocabulary: Vocabulary, span: int) -> None:
    """Ids in the vocabulary, pictures whole, no code outside one, steering ids where they belong.

    Raises:
        Unusable: OTHER_VOCABULARY, SPAN_NOT_WHOLE or CODE_OUT_OF_RANGE.
    """
    if (wrong := tokens[(tokens < 0) | (tokens >= vocabulary.size)]).size:
        raise Unusable(
            Reason.OTHER_VOCABULARY, f"tokens: {wrong[0]} is no id of this vocabulary of {vocabulary.size}"
        )
    starts = np.flatnonzero(tokens == vocabulary.begin_image)
    stops = np.flatnonzero(tokens == vocabulary.end_image)
    if len(starts) != len(stops) or (stops - starts != span + 1).any():
        raise Unusable(Reason.SPAN_NOT_WHOLE, f"tokens: a picture is not begin, {span} codes and end")
    is_code = vocabulary.id_to_code(tokens) >= 0
    inside = np.zeros(len(tokens), np.bool_)
    for start in starts:
        inside[start + 1 : start + 1 + span] = True
    if (wrong := tokens[inside & ~is_code]).size:
        raise Unusable(
            Reason.CODE_OUT_OF_RANGE, f"tokens: {wrong[0]} stands in a picture and is no image code"
        )
    if (is_code & ~inside).any():
        raise Unusable(Reason.SPAN_NOT_WHOLE, "tokens: an image code stands outside of a picture")
    body = tokens[int(tokens[0] == vocabulary.bos) : len(tokens) - int(tokens[-1] == vocabulary.eos)]
    steering = (vocabulary.end_of_turn, vocabulary.begin_image, vocabulary.end_image, vocabulary.unk)
    known = vocabulary.is_text[body] | (vocabulary.id_to_code(body) >= 0) | np.isin(body, steering)
    if not known.all():
        raise Unusable(Reason.OTHER_VOCABULARY, f"tokens: {body[~known][0]} is no id of text or pictures")


def check_text(tokens: NDArray[np.int64], text: str, vocabulary: Vocabulary) -> None:
    """Whether the ids spell the row's text, white space aside.

    Raises:
        Unusable: OTHER_VOCABULARY.
    """
    if (tokens == vocabulary.unk).any():
        return  # what it stood for cannot be compared
    spelt = vocabulary.decode(tokens.tolist())
    wanted = text.replace(END_OF_TURN, "").replace(IMAGE, "")
    if _SPACE.sub("", spelt) != _SPACE.sub("", wanted):
        raise Unusable(Reason.OTHER_VOCABULARY, "tokens: spell another text than `text` in this vocabulary")


def check_codes(codes: NDArray[np.int64], vocabulary: Vocabulary, span: int) -> list[int]:
    """The ids of a picture of these codes. Raises: Unusable: SPAN_NOT_WHOLE or CODE_OUT_OF_RANGE."""
    if (wrong := codes[(codes < 0) | (codes >= vocabulary.n_codes)]).size:
        raise Unusable(
            Reason.CODE_OUT_OF_RANGE, f"image_tokens: {wrong[0]}; codes are 0 to {vocabulary.n_codes - 1}"
        )
    if len(codes) != span:
        raise Unusable(Reason.SPAN_NOT_WHOLE, f"image_tokens: {len(codes)} codes; a picture has {span}")
    return vocabulary.image_span(codes)
