"""Which MedMax task and modality an interaction is, by rule: from the pictures in it and the words of the prompt."""

from __future__ import annotations

import re

from services.pb.medmax.v1 import assistant_pb2, common_pb2

TASKS = (
    "vqa",
    "captioning",
    "report_understanding",
    "visual_chat",
    "image_generation",
    "multimodal_generation",
)

# English alone. A question about a report ("is the report right?") is no order to write one.
_REPORT = re.compile(
    r"\b(write|draft|generate|produce|compose|dictate|create|give|provide|prepare)\b[^.?!]{0,60}"
    r"\b(report|findings|impression)\b",
    re.IGNORECASE,
)
_CAPTION = re.compile(r"\b(describe|caption|description of)\b", re.IGNORECASE)


def task_of(interaction: assistant_pb2.Interaction) -> str:
    """One of `TASKS`.

    A picture alone is image generation, text with one multimodal generation. A text answer to pictures is a
    report or a caption where the last question asks for one, a visual question where it is the first, else chat.
    """
    drawn = [part.HasField("image") for part in interaction.output]
    if interaction.mode == common_pb2.OUTPUT_MODE_IMAGE or (drawn and all(drawn)):
        return "image_generation"
    if any(drawn):
        return "multimodal_generation"
    turns = [message for message in interaction.prompt if message.role == assistant_pb2.ROLE_USER]
    if not any(part.HasField("image") for message in interaction.prompt for part in message.parts):
        return "visual_chat"
    asked = " ".join(part.text for part in turns[-1].parts) if turns else ""
    if _REPORT.search(asked):
        return "report_understanding"
    if _CAPTION.search(asked):
        return "captioning"
    return "vqa" if len(turns) == 1 else "visual_chat"


# The first that fits, so the narrower ones come first.
_MODALITIES = [
    (name, re.compile(rf"\b(?:{words})\b", re.IGNORECASE))
    for name, words in (
        ("chest_xray", r"(?:chest|lung|thora\w+)[ -](?:x-?rays?|radiographs?|films?)|cxr"),
        ("abdominal_ct", r"(?:abdom\w+|liver)[ -](?:ct|computed tomography)|ct (?:scan )?of the abdomen"),
        (
            "brain_mri",
            r"(?:brain|head|cranial)[ -](?:mri?|magnetic resonance)|mri (?:scan )?of the (?:brain|head)",
        ),
        ("fundus", r"fundus|fundoscop\w+|retinal (?:photo\w*|images?)"),
        ("histology", r"histolog\w+|histopatholog\w+|h&e|biopsy slides?"),
        ("ultrasound", r"ultrasounds?|sonogra\w+|echocardiogra\w+"),
        ("dermoscopy", r"dermosc\w+|dermatosc\w+"),
        ("endoscopy", r"endoscop\w+|colonoscop\w+|gastroscop\w+"),
        ("ct", r"ct|computed tomography"),
        ("mri", r"mri|magnetic resonance"),
        ("xray", r"x-?rays?|radiographs?"),
    )
]


def modality_of(interaction: assistant_pb2.Interaction) -> str:
    """What the pictures are, as far as the users' own words say so in English; empty where they do not."""
    asked = " ".join(
        part.text
        for message in interaction.prompt
        if message.role == assistant_pb2.ROLE_USER
        for part in message.parts
    )
    return next((name for name, words in _MODALITIES if words.search(asked)), "")
