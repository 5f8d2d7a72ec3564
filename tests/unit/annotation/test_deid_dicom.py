"""DICOM data sets: what PS3.15 removes is gone at every depth, and the picture is the same."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_keyword, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000, JPEGBaseline8Bit

from annotation.deid import clean_dataset
from annotation.deid.dicom import remap
from annotation.deid.dicom_attributes import EMPTIED, KEPT, REMAPPED
from services.errors import ConfigurationError, InvalidImage
from services.tokenizer.pictures import read_picture
from tests.support.deid_bank import DEVELOPMENT
from tests.support.deid_dicom import dataset_with
from tests.support.dicom_files import LIMITS
from tests.support.pictures import dicom, encode, noise

KEY = b"a key of more than sixteen bytes"
TABLE = dicom_anonymization_database_selector("dicomfields_2026c")


def table(*names: str) -> set[str]:
    """Keywords of single attributes of E.1-1; ranges and private ones apart."""
    tags = (tag for name in names for tag in TABLE[name] if len(tag) == 2)
    return {keyword for tag in tags if (keyword := _keyword(tag))}


def _keyword(tag: tuple[int, int]) -> str:
    try:
        return dictionary_keyword(tag)
    except KeyError:
        return ""


def planted(index: int = 0) -> tuple[list[tuple[str, str]], Dataset]:
    rng = np.random.default_rng(index)
    return dataset_with(
        DEVELOPMENT, lambda slot: str(rng.choice(np.array(DEVELOPMENT.values[slot], object))), index, rng
    )


def written(dataset: Dataset) -> bytes:
    target = BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


@pytest.mark.parametrize("index", range(3))
def test_nothing_planted_is_left_in_the_file(index: int) -> None:
    texts, dataset = planted(index)
    data = written(clean_dataset(dataset, KEY)[0])
    assert [text for _, text in texts if text.encode() in data] == []


def test_nothing_that_the_standards_table_removes_is_on_the_list_of_what_stays() -> None:
    assert (
        table("X_TAGS", "Z_TAGS", "D_TAGS", "U_TAGS", "Z_D_TAGS", "X_D_TAGS", "X_Z_TAGS", "X_Z_D_TAGS") & KEPT
        == set()
    )
    assert table("U_TAGS") & EMPTIED == set()
    assert table("X_TAGS") & REMAPPED == set()


def test_every_attribute_of_the_table_is_gone_empty_or_new() -> None:
    dataset = Dataset()
    names = sorted(table(*(name for name in TABLE if name != "ALL_TAGS")))
    for keyword in names:
        vr = dictionary_VR(keyword)
        if vr in ("PN", "LO", "SH", "LT", "ST", "UT", "UC", "UI", "DA", "TM", "DT", "AE", "CS", "UR", "AS"):
            setattr(
                dataset,
                keyword,
                {
                    "UI": "1.2.3.99",
                    "DA": "20210312",
                    "TM": "101500",
                    "DT": "20210312101500",
                    "AS": "094Y",
                }.get(vr, "SECRET"),
            )
    assert len(dataset) > 300
    cleaned, report = clean_dataset(dataset, KEY)
    kept = {
        e.keyword
        for e in cleaned
        if str(e.value) in ("SECRET", "1.2.3.99", "20210312", "101500", "20210312101500", "094Y")
    }
    assert kept == set()
    assert report.removed > 250


def test_uids_stay_linked_and_cannot_be_guessed_without_the_key() -> None:
    _, dataset = planted()
    cleaned, _ = clean_dataset(dataset, KEY)
    assert (
        cleaned.SOPInstanceUID
        == cleaned.file_meta.MediaStorageSOPInstanceUID
        == remap(dataset.SOPInstanceUID, KEY)
    )
    assert cleaned.SOPClassUID == dataset.SOPClassUID
    assert remap("1.2.3", KEY) != remap("1.2.3", KEY + b"!")
    assert pydicom.uid.UID(remap("1.2.3", KEY)).is_valid


def test_the_report_counts_and_holds_no_value() -> None:
    texts, dataset = planted()
    _, report = clean_dataset(dataset, KEY)
    assert report.private > 2
    assert report.emptied >= 4
    assert report.keywords["PatientAddress"] == 1
    assert not any(text in repr(report) for _, text in texts)


def test_the_method_is_told_and_the_input_left_alone() -> None:
    _, dataset = planted()
    before = dataset.to_json()
    cleaned, _ = clean_dataset(dataset, KEY)
    assert cleaned.PatientIdentityRemoved == "YES"
    assert cleaned.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert dataset.to_json() == before


def test_pictures_are_the_same_after_cleaning() -> None:
    pixels = np.random.default_rng(1).integers(-900, 2000, (16, 24), np.int16)
    data = dicom(pixels, WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0)
    cleaned = written(clean_dataset(pydicom.dcmread(BytesIO(data)), KEY)[0])
    assert b"Doe" not in cleaned
    assert (read_picture(cleaned, LIMITS).pixels == read_picture(data, LIMITS).pixels).all()


def test_an_overlay_in_the_unused_bits_is_cleared() -> None:
    values = np.random.default_rng(1).integers(0, 4096, (8, 8), np.uint16)
    dataset = pydicom.dcmread(BytesIO(dicom(values | np.uint16(0x8000), BitsStored=12)))
    cleaned, _ = clean_dataset(dataset, KEY)
    assert (np.frombuffer(cleaned.PixelData, np.uint16).reshape(8, 8) == values).all()


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000])
def test_comments_in_compressed_pixels_go(syntax: str) -> None:
    image = noise(32, 40)
    frame = encode(
        image,
        "JPEG2000" if syntax == JPEG2000 else "JPEG",
        comment=b"Doe Jane 1931",
        **({"no_jp2": True} if syntax == JPEG2000 else {}),
    )
    assert b"Doe Jane" in frame
    data = dicom(
        image,
        syntax,
        PixelData=encapsulate([frame]),
        PhotometricInterpretation="RGB" if syntax == JPEG2000 else "YBR_FULL_422",
    )
    cleaned, _ = clean_dataset(pydicom.dcmread(BytesIO(data)), KEY)
    assert b"Doe Jane" not in written(cleaned)
    assert len(list(generate_frames(cleaned.PixelData, number_of_frames=1))) == 1
    assert (read_picture(written(cleaned), LIMITS).pixels == read_picture(data, LIMITS).pixels).all()


def test_words_in_the_place_of_terms_and_numbers_go() -> None:
    dataset = Dataset()
    dataset.BodyPartExamined, dataset.Modality, dataset.ViewPosition = "GONZALEZ", "CT", "AP"
    dataset.add_new("InstanceNumber", "LO", "Maria Gonzalez")
    dataset.add_new("SOPClassUID", "UI", "1.2.3.4.5")
    cleaned, _ = clean_dataset(dataset, KEY)
    assert [
        e.keyword for e in cleaned if e.keyword in ("BodyPartExamined", "InstanceNumber", "SOPClassUID")
    ] == []
    assert (cleaned.Modality, cleaned.ViewPosition) == ("CT", "AP")


def test_a_short_key_and_bottomless_sequences_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="16"):
        clean_dataset(Dataset(), b"short")
    dataset = Dataset()
    for _ in range(20):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([dataset])
        dataset = outer
    with pytest.raises(InvalidImage, match="16"):
        clean_dataset(dataset, KEY)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFF),
            st.sampled_from(["LO", "PN", "UN", "LT", "UI", "CS", "IS"]),
        ),
        max_size=8,
    )
)
@settings(max_examples=60, deadline=None)
def test_no_attribute_carries_a_name_through(tags: list[tuple[int, int, str]]) -> None:
    dataset = Dataset()
    for group, element, vr in tags:
        if group > 7 and group != 0xFFFE:
            value: object = b"Vexelberg" if vr == "UN" else "Vexelberg"
            try:
                dataset.add_new(group << 16 | element, vr, value)
            except (ValueError, TypeError):
                continue
    assert "exelberg" not in str(clean_dataset(dataset, KEY)[0])
