"""DICOM data sets without identifiers: PS3.15, Basic Application Level Confidentiality Profile, by a list of what stays."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID, AllTransferSyntaxes, RLELossless, UID_dictionary

from annotation.deid.codestream import strip_comments
from annotation.deid.dicom_attributes import (
    BYTES,
    CLASSES,
    EMPTIED,
    KEPT,
    NUMBERS,
    REMAPPED,
    SEQUENCES,
    TERMS,
)
from annotation.deid.words import medicine, people
from services.errors import ConfigurationError, InvalidImage

METHOD = "PS3.15 Basic Application Confidentiality Profile by keep-list"
PROFILE = ("113100", "DCM", "Basic Application Confidentiality Profile")
MIN_KEY_BYTES = 16
MAX_DEPTH = 16
FIELD = "dataset"
_TERM = re.compile(r"[A-Z0-9_ .-]{0,20}")
_NATIVE = {8: "u1", 16: "<u2", 32: "<u4"}


@dataclass
class DatasetReport:
    """How many attributes met which end, over all nested items; `keywords` of the standard ones that went.

    Never a value; of private attributes their number alone, since even their creators' names may tell.
    """

    removed: int = 0
    private: int = 0
    emptied: int = 0
    remapped: int = 0
    keywords: Counter[str] = field(default_factory=Counter)


def clean_dataset(dataset: Dataset, key: bytes) -> tuple[Dataset, DatasetReport]:
    """A new data set of what may stay; `dataset` is left as it was.

    Pixels are kept: text burned into them is the business of `clean_picture`, and BurnedInAnnotation stays as it was.

    Args:
        key: secret of at least 16 bytes; the same key maps the same UID to the same new one.

    Raises:
        ConfigurationError: a shorter key.
        InvalidImage: sequences nested deeper than 16, or compressed pixel data of an unsupported kind.
    """
    if len(key) < MIN_KEY_BYTES:
        raise ConfigurationError(f"{len(key)} bytes; needs at least {MIN_KEY_BYTES}", field="deid_key")
    report = DatasetReport()
    cleaned = _clean(dataset, key, report, 0)
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        cleaned.file_meta = _meta(meta, key, report)
    _clean_pixels(cleaned)
    cleaned.PatientIdentityRemoved = "YES"
    cleaned.DeidentificationMethod = METHOD
    cleaned.DeidentificationMethodCodeSequence = Sequence([_code(*PROFILE)])
    cleaned.LongitudinalTemporalInformationModified = "REMOVED"
    return cleaned, report


def _clean(dataset: Dataset, key: bytes, report: DatasetReport, depth: int) -> Dataset:
    if depth > MAX_DEPTH:
        raise InvalidImage(f"DICOM sequences nested deeper than {MAX_DEPTH}", field=FIELD)
    cleaned = Dataset()
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset decodes every element
        if tag.is_private:
            report.private += 1
            continue
        element = _cleaned(dataset, tag, key, report, depth)
        if element is not None:
            cleaned.add(element)
    return cleaned


def _cleaned(dataset: Dataset, tag: Any, key: bytes, report: DatasetReport, depth: int) -> DataElement | None:
    element = _decoded(dataset, tag)
    keyword = "" if element is None else element.keyword
    if element is None or keyword not in KEPT | EMPTIED | REMAPPED:
        report.removed += 1
        report.keywords[keyword] += bool(keyword)
        return None
    if keyword in EMPTIED:
        report.emptied += 1
        return DataElement(tag, element.VR, None)
    if keyword in REMAPPED:
        report.remapped += 1
        return DataElement(tag, "UI", [remap(str(uid), key) for uid in _values(element)])
    if keyword in SEQUENCES:
        if element.VR != "SQ":
            report.removed += 1
            return None
        return DataElement(
            tag, "SQ", Sequence([_clean(item, key, report, depth + 1) for item in element.value])
        )
    if _fits(keyword, element):
        return element
    report.removed += 1
    report.keywords[keyword] += 1
    return None


def _decoded(dataset: Dataset, tag: Any) -> DataElement | None:
    try:
        return dataset[tag]
    except Exception:  # pydicom meets hostile bytes with exceptions of every type
        return None


def _values(element: DataElement) -> list[Any]:
    value = element.value
    return (
        list(value)
        if isinstance(value, (MultiValue, list, tuple))
        else []
        if value in (None, "")
        else [value]
    )


def _fits(keyword: str, element: DataElement) -> bool:
    """Whether the value is of the kind that its attribute has, so that no free text hides in it."""
    if keyword in BYTES:
        return isinstance(element.value, bytes) or all(_is_number(value) for value in _values(element))
    if keyword in CLASSES:
        return all(str(uid) in UID_dictionary for uid in _values(element))
    if keyword in NUMBERS:
        return all(_is_number(value) for value in _values(element))
    return keyword in TERMS and all(_is_term(str(value)) for value in _values(element))


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value))) and not isinstance(value, (bytes, bool))
    except (TypeError, ValueError):
        return False


def _is_term(value: str) -> bool:
    word = value.lower()
    named = any(word in names for names in people()) and word not in medicine()
    return _TERM.fullmatch(value) is not None and not named


def remap(uid: str, key: bytes) -> str:
    """A UID below 2.25 from HMAC-SHA256 over `uid`; one that `remap` made with the same key is another again."""
    digest = hmac.digest(key, uid.strip("\0 ").encode(), hashlib.sha256)
    return f"2.25.{int.from_bytes(digest[:16])}"


def _meta(meta: Dataset, key: bytes, report: DatasetReport) -> FileMetaDataset:
    cleaned = FileMetaDataset()
    for element in _clean(meta, key, report, 0):
        cleaned.add(element)
    return cleaned


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _clean_pixels(dataset: Dataset) -> None:
    """Clears bits above the stored ones (old overlays lie there) and comments in compressed frames."""
    if "PixelData" not in dataset:
        return
    meta = getattr(dataset, "file_meta", None)
    syntax = UID(str(meta.get("TransferSyntaxUID", ""))) if meta is not None else UID("")
    if syntax in AllTransferSyntaxes and syntax.is_encapsulated:
        frames = list(
            generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        )
        if syntax != RLELossless:
            frames = [strip_comments(frame) for frame in frames]
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].is_undefined_length = True
        return
    allocated, stored = int(dataset.get("BitsAllocated") or 0), int(dataset.get("BitsStored") or 0)
    if allocated not in _NATIVE or not 0 < stored < allocated:
        return
    data = dataset.PixelData
    whole = len(data) // (allocated // 8) * (allocated // 8)
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    values = np.frombuffer(data[:whole], _NATIVE[allocated].replace("<", order))
    shift = max(0, int(dataset.get("HighBit") or stored - 1) + 1 - stored)
    kept = values & values.dtype.type(((1 << stored) - 1) << shift)
    if int(dataset.get("PixelRepresentation") or 0) == 1 and shift == 0:
        sign = values.dtype.type(1 << (stored - 1))
        kept = np.where(kept & sign, kept | values.dtype.type((1 << allocated) - (1 << stored)), kept)
    dataset.PixelData = kept.astype(values.dtype).tobytes() + data[whole:]
