"""Cases with planted identifiers, made from a seed: texts, dialogues, DICOM data sets, pictures, and clean ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from annotation.core import Item, Kind, Part, Picture, Turn
from annotation.deid import Category
from evaluation.phantoms import draw
from tests.support.deid_bank import Bank
from tests.support.deid_dicom import dataset_with

_SLOT = re.compile(r"\{(\w+)\}")
CATEGORY = {
    **{str(category): category for category in Category},
    "surname": Category.NAME, "given": Category.NAME, "caret": Category.NAME, "caps": Category.NAME,
    "city": Category.PLACE, "hospital": Category.PLACE, "zip": Category.PLACE,
}  # fmt: skip
SIZES = (96, 192, 256, 384, 512, 768)
CONTRASTS = (255, 160, 90, 50)


@dataclass(frozen=True)
class Planted:
    """An identifier that was put in; `text` as it stands there."""

    category: Category
    text: str


@dataclass(frozen=True)
class Case:
    """kind: `text`, `dialogue`, `picture` (with burned-in text), `dicom`, `clean` or `clean_picture`."""

    kind: str
    planted: tuple[Planted, ...]
    item: Item | None = None
    dataset: Dataset | None = None
    survive: tuple[str, ...] = ()


def cases(bank: Bank, seed: int, count: int = 250) -> Iterator[Case]:
    """`count` cases: 58 % texts, 12 dialogues, 10 DICOM, 8 pictures with text, 10 clean texts, 2 clean pictures."""
    rng = np.random.default_rng(seed)
    shares = {"text": 0.58, "dialogue": 0.12, "dicom": 0.1, "picture": 0.08, "clean": 0.1}
    numbers = {kind: round(share * count) for kind, share in shares.items()}
    categories = [category for category in Category if category is not Category.PICTURE_TEXT]
    for index in range(numbers["text"]):
        yield _sentence(bank, str(categories[index % len(categories)]), index // len(categories), rng)
    for index in range(numbers["dialogue"]):
        yield _dialogue(bank, index, rng)
    for index in range(numbers["dicom"]):
        planted, dataset = dataset_with(bank, _filler(bank, rng), index, rng)
        yield Case("dicom", tuple(Planted(Category(c), text) for c, text in planted), dataset=dataset)
    for index in range(numbers["picture"]):
        yield picture_case(bank, rng, SIZES[index % len(SIZES)], CONTRASTS[index // 2 % len(CONTRASTS)])
    for index in range(numbers["clean"]):
        text, survive = bank.clean[index % len(bank.clean)]
        yield Case("clean", (), _item(f"clean-{index}", (Turn("user", (text,)),)), survive=survive)
    for _ in range(count - sum(numbers.values())):
        yield Case("clean_picture", (), _picture_item(phantom(rng, 256)))


def _filler(bank: Bank, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    def fill(slot: str) -> str:
        pattern = str(rng.choice(np.array(bank.values[slot], dtype=object)))
        return (
            re.sub(r"[#@~]", lambda found: _random(found[0], rng), pattern)
            if slot not in ("email", "url")
            else pattern
        )

    return fill


def _random(kind: str, rng: np.random.Generator) -> str:
    letters = {"#": "0123456789", "@": "ABCDEFGHJKLMNPRSTUVWXYZ", "~": "abcdefghijklmnopqrstuvwxyz"}[kind]
    return letters[int(rng.integers(len(letters)))]


def _filled(
    template: str, bank: Bank, rng: np.random.Generator, fixed: dict[str, str]
) -> tuple[str, list[Planted]]:
    """Slots of one dialogue keep their value, so that a person stays one person."""
    fill, planted = _filler(bank, rng), []

    def slot(found: re.Match[str]) -> str:
        value = fixed.setdefault(found[1], fill(found[1]))
        planted.append(Planted(CATEGORY[found[1]], value))
        return value

    return _SLOT.sub(slot, template), planted


def _sentence(bank: Bank, category: str, index: int, rng: np.random.Generator) -> Case:
    templates = bank.sentences[category]
    text, planted = _filled(templates[index % len(templates)], bank, rng, {})
    return Case("text", tuple(planted), _item(f"{category}-{index}", (Turn("user", (text,)),)))


def _dialogue(bank: Bank, index: int, rng: np.random.Generator) -> Case:
    turns, planted, fixed = [], [], {}  # type: ignore[var-annotated]
    for line in bank.dialogues[index % len(bank.dialogues)]:
        role, template = line.split(": ", 1)
        text, found = _filled(template, bank, rng, fixed)
        turns.append(Turn(role, (text,)))
        planted += found
    return Case("dialogue", tuple(planted), _item(f"dialogue-{index}", tuple(turns[:-1]), turns[-1].parts))


def picture_case(bank: Bank, rng: np.random.Generator, size: int, contrast: int) -> Case:
    """A phantom of `size` px with one to three lines of text, `contrast` grey levels above what is below it."""
    pixels = phantom(rng, size)
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    height = int(rng.integers(max(9, size // 28), max(11, size // 12)))
    font = ImageFont.load_default(height)
    lines = [
        str(line)
        for line in rng.choice(np.array(bank.burned, dtype=object), int(rng.integers(1, 4)), replace=False)
    ]
    lines = [line for line in lines if pen.textlength(line, font) < size - 4] or [min(bank.burned, key=len)]
    top = int(rng.integers(1, max(2, size - len(lines) * (height + 6))))
    planted = []
    for line in lines:
        width = pen.textlength(line, font)
        left = int(rng.integers(1, max(2, int(size - width - 2))))
        below = int(np.median(pixels[top : top + height, left : left + int(width)]))
        level = below + contrast if below + contrast <= 255 else max(0, below - contrast)
        pen.text((left, top), line, fill=(level,) * 3, font=font)
        planted.append(Planted(Category.PICTURE_TEXT, line))
        top += height + 6
    return Case("picture", tuple(planted), _picture_item(np.asarray(image)))


def phantom(rng: np.random.Generator, size: int) -> np.ndarray:
    image = Image.fromarray(draw(int(rng.integers(1 << 30))).picture)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def _item(
    name: str, dialogue: tuple[Turn, ...], answer: tuple[Part, ...] = ("No abnormality is seen.",)
) -> Item:
    return Item(name, Kind.CHAT, dialogue, answer)


def _picture_item(pixels: np.ndarray) -> Item:
    target = BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    data = target.getvalue()
    picture = Picture(hashlib.sha256(data).hexdigest(), data)
    return _item("picture", (Turn("user", (picture, "Is there a mass?")),))
