"""Addresses of the net, UIDs, file names, and pictures of faces."""

from __future__ import annotations

import re

from annotation.deid.core import Category
from annotation.deid.numbers import CODE, MUST
from annotation.deid.patterns import Pattern, Patterns


def _address(found: re.Match[str]) -> bool:
    return all(int(part) < 256 for part in found["x"].split(":")[0].split("."))


NET = Patterns(
    (
        Pattern.of(
            Category.EMAIL, r"[\w.+'-]{1,64}\s?(?:@|\(at\)|\[at\])\s?[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}"
        ),
        Pattern.of(Category.EMAIL, r"\b[\w.+-]{1,64}\sat\s[\w-]{1,63}\s(?:dot\s[\w-]{2,63}\s?){1,3}\b"),
        Pattern.of(Category.URL, r"\b(?:https?|ftps?|sftp|file|dicom(?:web)?|ws)s?://[^\s<>\"')\]\ue000]+"),
        Pattern.of(Category.URL, r"\bwww\.[^\s<>\"')\]\ue000]+"),
        Pattern.of(
            Category.URL,
            r"(?<![\w@.])[\w-]{2,63}(?:\.[\w-]{2,63}){0,3}\.(?:com|org|net|edu|gov|io|info|co\.uk|nhs\.uk|ac\.uk|de|fr|es|it|nl|ch|eu|ca|au|in|health|me|tv|app|dev)\b(?:/[^\s<>\"')\]\ue000]*)?(?!\.\d)",
            lambda f: f[0][0].isalpha() and not re.match(r"(?:e\.g|i\.e|p\.r\.n)", f[0]),
        ),
        Pattern.of(Category.URL, r"(?<![\w.])(?P<x>@[A-Za-z][\w.]{2,30})\b"),
        Pattern.of(
            Category.URL,
            r"\b(?:instagram|facebook|twitter|tiktok|linkedin|skype|snapchat|telegram)(?:\s(?:handle|id|user(?:name)?|account|profile))?\s?(?:is|:)\s?(?P<x>@?[\w.]{3,40})",
        ),
        Pattern.of(
            Category.IP, r"(?<![\w.])(?P<x>(?:\d{1,3}\.){3}\d{1,3}(?::\d{2,5})?)(?![\w]|\.\d)", _address
        ),
        Pattern.of(
            Category.IP,
            r"(?<![\w:])(?P<x>(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|(?:[0-9a-f]{1,4}:){1,6}(?::[0-9a-f]{1,4}){1,6}|(?:[0-9a-f]{1,4}:){1,7}:|::(?:[0-9a-f]{1,4}:){0,5}[0-9a-f]{1,4})(?![\w:])",
            lambda f: f["x"].count(":") > 3 or ("::" in f["x"] and len(f["x"]) > 5),
        ),
        Pattern.of(Category.DEVICE, r"(?<![\w:-])(?P<x>(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2})(?![\w:-])"),
        Pattern.of(
            Category.OTHER,
            r"(?<![\w-])(?P<x>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?![\w-])",
        ),
        Pattern.of(Category.OTHER, r"(?<![\w.])(?P<x>[0-2](?:\.\d{1,39}){5,30})(?![\w.]\d)"),
        Pattern.of(
            Category.PHOTO,
            r"(?<![\w./\\-])(?P<x>(?:[\w.-]{0,64}[\\/]){0,8}[\w-]{1,80}(?:\.[\w-]{1,40}){0,3}\.(?:jpe?g|png|gif|bmp|heic|tiff?|webp|mp4|mov|avi|dcm|nii(?:\.gz)?|docx?|pdf|xlsx?))\b",
        ),
        Pattern.of(
            Category.PHOTO,
            r"\b(?:facial|full[\s-]face|face|passport|portrait|profile|id)\s(?:photo(?:graph)?|picture|image|selfie|headshot)s?"
            + MUST
            + CODE,
        ),
        Pattern.of(
            Category.PHOTO,
            r"\b(?:photo(?:graph)?|selfie|headshot)\s?(?:no|number|id|#|:)\.?\s?[:#]?\s?" + CODE,
        ),
    )
)
