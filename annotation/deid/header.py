"""What a picture's header says of the risk that its pixels show more than a patient's inside."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from PIL import ExifTags

from services.errors import InvalidImage
from services.tokenizer.dicom_elements import read_elements
from services.tokenizer.headers import sniff
from services.tokenizer.limits import FIELD, Limits
from services.tokenizer.pictures import READERS

MODALITY, BURNED_IN, FEATURES = 0x00080060, 0x00280301, 0x00280302
CAMERA = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.GPSInfo, ExifTags.Base.LensModel)
PHOTOGRAPH = "XC"
"""DICOM modality of photographs from outside."""


@dataclass(frozen=True)
class Risk:
    """declared_text: the header says that text is burned in. face: a face may be shown."""

    declared_text: bool = False
    face: bool = False


def read_risk(data: bytes, limits: Limits) -> Risk:
    """From DICOM's BurnedInAnnotation, RecognizableVisualFeatures and Modality, or EXIF's camera tags.

    Raises:
        InvalidImage, PayloadTooLarge: the header cannot be read.
    """
    limits.check_bytes(data)
    kind = sniff(data)
    if kind == "dicom":
        wanted = frozenset({MODALITY, BURNED_IN, FEATURES})
        try:
            dataset, _ = read_elements(data, limits, wanted)
            said = {tag: str(dataset[tag].value).strip().upper() if tag in dataset else "" for tag in wanted}
        except InvalidImage:
            raise
        except Exception:  # pydicom meets hostile bytes with exceptions of every type
            raise InvalidImage("damaged or unsupported DICOM file", field=FIELD) from None
        face = said[FEATURES] == "YES" or said[MODALITY] == PHOTOGRAPH
        return Risk(said[BURNED_IN] == "YES", face)
    try:
        with READERS[kind](BytesIO(data)) as image:
            exif = image.getexif()
    except Exception:  # decoders meet hostile bytes with exceptions of every type
        raise InvalidImage("damaged, truncated or unsupported file", field=FIELD) from None
    return Risk(face=any(tag in exif for tag in CAMERA))
