"""Names to ids: which token ids are text, which are image codes and which steer the model.

Ids are always looked up by name in `tokenizer.json`; published configurations get some of them wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.errors import CheckpointError

BOS, PAD, EOS, UNK = "<s>", "<pad>", "</s>", "<unk>"
BEGIN_IMAGE, END_IMAGE, END_OF_TURN = "<racm3:break>", "<eoss>", "<reserved08706>"
PLACEHOLDER = "<image>"
"""What Hugging Face calls `<reserved08707>`."""
_CODE = re.compile(r"IMGIMG([A-J]+)Z")
_RESERVED = re.compile(r"<reserved\d+>")
_LETTERS = "ABCDEFGHIJ"


def code_name(code: int) -> str:
    """Token name of image code `code`: its decimal digits as letters A to J."""
    return "IMGIMG" + "".join(_LETTERS[int(digit)] for digit in str(code)) + "Z"


def _code_of(name: str) -> int | None:
    match = _CODE.fullmatch(name)
    return int("".join(str(_LETTERS.index(letter)) for letter in match[1])) if match else None


def _plain(description: dict[str, Any], special: set[str]) -> dict[str, Any]:
    """The tokenizer without its special tokens' spellings, so that text which looks like one stays text."""
    plain = dict(description)
    plain["added_tokens"] = [t for t in description.get("added_tokens") or [] if t["content"] not in special]
    plain["post_processor"] = plain["truncation"] = plain["padding"] = None
    plain["model"] = {**description["model"], "ignore_merges": False}
    return plain


class Vocabulary:
    """The token ids of one checkpoint.

    Attributes:
        bos, pad, eos, unk, begin_image, end_image, end_of_turn: ids of the steering tokens.
        size: number of ids.
        n_codes: number of image codes.
        code_ids: int64 [n_codes], id of code k.
        text_ids: int64 [..], ids of ordinary text, ascending.
        reads_text: whether `encode` works.
    """

    def __init__(self, tokenizer_json: str) -> None:
        """
        Raises:
            CheckpointError: no tokenizer, or one of the names above is missing; the message says which.
        """
        self.tokenizer_json, self.reads_text = tokenizer_json, True
        try:
            description = json.loads(tokenizer_json)
            tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise CheckpointError(
                f"tokenizer.json cannot be read: {error}", field="tokenizer.json"
            ) from error
        names: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
        self.size = max(names.values()) + 1
        self.bos, self.pad, self.eos, self.unk = (_id(names, name) for name in (BOS, PAD, EOS, UNK))
        self.begin_image, self.end_image = _id(names, BEGIN_IMAGE), _id(names, END_IMAGE)
        self.end_of_turn = _id(names, END_OF_TURN)

        codes = {code: i for name, i in names.items() if (code := _code_of(name)) is not None}
        self.n_codes = len(codes)
        if not codes or set(codes) != set(range(self.n_codes)):
            raise CheckpointError(
                "tokenizer.json must name image codes 0 to n-1 without gaps", field="tokenizer.json"
            )
        self.code_ids: NDArray[np.int64] = np.array([codes[k] for k in range(self.n_codes)], dtype=np.int64)
        self._codes = np.full(self.size, -1, dtype=np.int64)
        self._codes[self.code_ids] = np.arange(self.n_codes)

        steering = {BOS, PAD, EOS, UNK, BEGIN_IMAGE, END_IMAGE, END_OF_TURN, PLACEHOLDER}
        steering |= {t["content"] for t in description.get("added_tokens") or [] if t.get("special")}
        steering |= {name for name in names if _RESERVED.fullmatch(name)}
        self.is_text: NDArray[np.bool_] = np.zeros(self.size, dtype=np.bool_)
        self.is_text[list(names.values())] = True
        self.is_text[self.code_ids] = False
        self.is_text[[names[name] for name in steering if name in names]] = False
        self.text_ids: NDArray[np.int64] = np.flatnonzero(self.is_text).astype(np.int64)

        ends = [self.eos, self.end_of_turn, self.begin_image]
        self.text_choices: NDArray[np.int64] = np.union1d(self.text_ids, ends).astype(np.int64)

        self._tokenizer = Tokenizer.from_str(json.dumps(_plain(description, steering)))
        decoder = description.get("decoder")
        self._joined = decoder is None
        # These spell a token in the same way wherever it stands.
        self._context_free = self._joined or decoder.get("type") == "ByteLevel"
        self._whole: dict[int, str | None] = {}
        self._names: dict[int, str] = {i: name for name, i in names.items()}

    @classmethod
    def from_file(cls, path: Path) -> Vocabulary:
        """Raises: CheckpointError where the file is missing or no tokenizer."""
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise CheckpointError(
                f"{path.name} is missing or cannot be read; copy it again", field=path.name
            ) from None
        except CheckpointError as error:
            message = error.message.replace("tokenizer.json", path.name)
            raise CheckpointError(message, field=path.name) from None

    @classmethod
    def of_names(cls, names: Mapping[str, Any]) -> Vocabulary:
        """A vocabulary that knows its names and ids alone: it reads no text, and spells text as its tokens do.

        Raises:
            CheckpointError: no ids, or one of the names above is missing.
        """
        names = {name: i for name, i in names.items() if isinstance(i, int) and not isinstance(i, bool)}
        if PLACEHOLDER in names and list(names.values()).count(names[PLACEHOLDER]) > 1:
            del names[PLACEHOLDER]  # a second name of a reserved id
        model = {"type": "BPE", "vocab": names, "merges": [], "unk_token": UNK}
        vocabulary = cls(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
        vocabulary.reads_text = False
        return vocabulary

    def first_disagreement(self, names: Mapping[str, Any]) -> str | None:
        """The first image code or steering token to which `names` gives another id."""
        wanted = [BOS, PAD, EOS, UNK, BEGIN_IMAGE, END_IMAGE, END_OF_TURN]
        wanted += [code_name(k) for k in range(self.n_codes)]
        ids = self.ids
        return next((name for name in wanted if name in names and names[name] != ids[name]), None)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`: ordinary text (and `unk`) alone, even where it spells a special token.

        Raises:
            CheckpointError: the checkpoint came without its tokenizer.
        """
        if not self.reads_text:
            raise CheckpointError(
                "the checkpoint lacks tokenizer.json, without which no text can be read; copy it again",
                field="tokenizer.json",
            )
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the text ids among `ids`; bytes that are no whole character give U+FFFD."""
        text = [i for i in ids if 0 <= i < self.size and self.is_text[i]]
        if self._joined:
            return "".join(self._names[i] for i in text)
        return self._tokenizer.decode(text, skip_special_tokens=False)

    def whole(self, token_id: int) -> str | None:
        """Text of a text token that is whole characters and the same after any other; None where `decode` must tell."""
        if token_id not in self._whole:
            text = self.decode([token_id]) if self._context_free else "\ufffd"
            self._whole[token_id] = None if "\ufffd" in text else text
        return self._whole[token_id]

    @property
    def ids(self) -> dict[str, int]:
        """Every name and its id, ascending."""
        return {name: i for i, name in sorted(self._names.items())}

    def name(self, token_id: int) -> str:
        """Spelling of a token as tokenizer.json has it."""
        return self._names.get(token_id, "")

    def id_to_code(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Codes of `ids`, int64 of the same length; -1 where an id is no image code."""
        return self._codes[np.asarray(ids, dtype=np.int64)]

    def image_span(self, codes: Sequence[int] | NDArray[np.int64]) -> list[int]:
        """Ids of a picture: begin-of-image, its codes, end-of-image."""
        return [self.begin_image, *self.code_ids[np.asarray(codes, dtype=np.int64)].tolist(), self.end_image]


def _id(names: dict[str, int], name: str) -> int:
    if name not in names:
        raise CheckpointError(f"tokenizer.json lacks the token {name}", field="tokenizer.json")
    return names[name]
