"""What the parts of the review loop hand to each other. Plain data: nothing here reads, writes or decides.

Item ──experts──► Annotation (one expert's Verdict) ──judge──► Judgement ──build──► instruction rows
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Kind(StrEnum):
    """What an item asks of an expert; each has one Label Studio project."""

    CHAT = "chat"  # an answer in a dialogue: visual questions and chat
    REPORT = "report"  # a caption or report about pictures
    PICTURE = "picture"  # a generated picture
    PREFERENCE = "preference"  # two or more alternatives to rank


class Reason(StrEnum):
    """Why an item is sent. The random share is drawn before flags and risk: a member stays RANDOM where it is both."""

    GOLD = "gold"  # its right verdict is known; measures the expert
    FLAG = "flag"  # a user asked for review
    RISK = "risk"  # the model is least sure of it
    RANDOM = "random"  # the unbiased share of everything


class Decision(StrEnum):
    ACCEPT = "accept"
    EDIT = "edit"
    REJECT = "reject"


class Severity(StrEnum):
    """Harm that the answer could do if it were believed."""

    NONE = "none"
    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Picture:
    """A picture of a dialogue.

    Attributes:
        sha256: hex digest of the file.
        data: the file (PNG, JPEG, WebP or DICOM); None where only the digest travels.
        synthetic: whether the model drew it.
    """

    sha256: str
    data: bytes | None = field(default=None, repr=False)
    synthetic: bool = False


Part = str | Picture
"""A piece of a turn: text or a picture."""


@dataclass(frozen=True)
class Turn:
    """role: `system`, `user` or `assistant`."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Item:
    """One answer for experts to judge.

    Attributes:
        id: the interaction's id; a gold item's own otherwise. One item an interaction and kind.
        kind: what is asked.
        dialogue: everything up to and with the last question.
        answer: the model's.
        alternatives: PREFERENCE alone: the answers to rank, two or more, `answer` among them.
        task: the MedMax task (`vqa`, `captioning`, `report_understanding`, `visual_chat`, `image_generation`, `multimodal_generation`).
        modality: what the pictures are (`chest_xray`, …), empty where unknown.
        speciality: whose experts it goes to; a name of the project's configuration.
        model_id: what answered.
        model_digest: SHA-256 over its weights, hex.
        risk: 0 to 1, the calibrated probability that an expert would not accept it.
        reason: why it is sent.
        gold: GOLD alone: the right verdict. Never leaves for Label Studio.
        patient: hash that groups items of one patient, empty where unknown; for splits, never an identifier.
    """

    id: str
    kind: Kind
    dialogue: tuple[Turn, ...]
    answer: tuple[Part, ...]
    alternatives: tuple[tuple[Part, ...], ...] = ()
    task: str = "vqa"
    modality: str = ""
    speciality: str = "general"
    model_id: str = ""
    model_digest: str = ""
    risk: float = 0.0
    reason: Reason = Reason.RANDOM
    gold: Verdict | None = None
    patient: str = ""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Of the dialogue, the answer, then the alternatives, in order; a picture may come twice."""
        groups = (*(turn.parts for turn in self.dialogue), self.answer, *self.alternatives)
        return tuple(part for parts in groups for part in parts if isinstance(part, Picture))


@dataclass(frozen=True)
class Region:
    """A marked part of a picture.

    Attributes:
        picture: SHA-256 of the picture, hex.
        label: what is there (a finding), or what is wrong with it (on generated pictures).
        x, y, width, height: of the bounding box, as shares of the picture, 0 to 1, from the top left.
        mask: a PNG, 8-bit grey, of the picture's size, 255 inside; None for a rectangle.
    """

    picture: str
    label: str
    x: float
    y: float
    width: float
    height: float
    mask: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Verdict:
    """What an expert says of an item; fields that its kind does not ask stay at their defaults.

    Attributes:
        decision: CHAT, REPORT and PICTURE.
        text: EDIT alone: what the answer should have been, whole.
        error: category of the error, a name of the labelling configuration; empty where none.
        missing: REPORT: findings that the answer lacks.
        realism, agreement: PICTURE: 1 (bad) to 5; agreement is with the prompt.
        ranking: PREFERENCE: indices into `Item.alternatives`, best first; all of them once.
        regions: marked parts of the pictures.
        comment: free text; never goes into a data set.
    """

    decision: Decision | None = None
    text: str | None = None
    error: str = ""
    severity: Severity = Severity.NONE
    missing: tuple[str, ...] = ()
    realism: int | None = None
    agreement: int | None = None
    ranking: tuple[int, ...] = ()
    regions: tuple[Region, ...] = ()
    comment: str = ""


@dataclass(frozen=True)
class Annotation:
    """One expert's verdict as Label Studio has it.

    Attributes:
        id: `project:annotation`, Label Studio's numbers.
        annotator: Label Studio's user id as text, never a name or an address.
        created_at, updated_at: aware, UTC; of two with the same id the later `updated_at` counts.
        seconds: time spent, as the browser measured it.
    """

    id: str
    item_id: str
    kind: Kind
    annotator: str
    verdict: Verdict
    created_at: datetime
    updated_at: datetime
    seconds: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """What all verdicts on an item come to.

    Attributes:
        verdict: the one that counts.
        annotations: those it was made from.
        agreement: share of pairs of experts that agree, 0 to 1; None with fewer than two.
        adjudicated: an adjudicator decided.
        made_at: aware, UTC.
    """

    item: Item
    verdict: Verdict
    annotations: tuple[Annotation, ...]
    agreement: float | None
    adjudicated: bool
    made_at: datetime
