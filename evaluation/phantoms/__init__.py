"""Phantoms: synthetic medical pictures drawn from a seed, with exact truth.

`draw` makes one, `rows` turns it into instruction rows of the six MedMax task families, `questions` asks about it,
and `analyse` reads findings back from pixels alone.
"""

from evaluation.phantoms.analyser import analyse, findings_present
from evaluation.phantoms.catalogue import CATALOGUE, MODALITIES, draw, truth
from evaluation.phantoms.core import SIZE, TRAIN_SEEDS, Finding, Kind, Modality, Phantom, Truth, held_out
from evaluation.phantoms.dataset import write_dataset
from evaluation.phantoms.language import Slots, caption, describe, parse_caption, score_caption, slots
from evaluation.phantoms.questions import Question, answer_matches, questions
from evaluation.phantoms.rows import FAMILIES, Row, rows

__all__ = [
    "CATALOGUE",
    "FAMILIES",
    "MODALITIES",
    "SIZE",
    "TRAIN_SEEDS",
    "Finding",
    "Kind",
    "Modality",
    "Phantom",
    "Question",
    "Row",
    "Slots",
    "Truth",
    "analyse",
    "answer_matches",
    "caption",
    "describe",
    "draw",
    "findings_present",
    "held_out",
    "parse_caption",
    "questions",
    "rows",
    "score_caption",
    "slots",
    "truth",
    "write_dataset",
]
