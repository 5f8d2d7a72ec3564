"""DICOM data sets with planted identifiers in standard, private and nested attributes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.support.deid_bank import Bank

UID_ROOT = "1.2.826.0.1.3680043.8.498."


def dataset_with(
    bank: Bank, fill: Callable[[str], str], index: int, rng: np.random.Generator
) -> tuple[list[tuple[str, str]], Dataset]:
    """The planted (category, text) pairs, and a CT image with all of them."""
    planted: list[tuple[str, str]] = []

    def plant(category: str, slot: str) -> str:
        planted.append((category, fill(slot)))
        return planted[-1][1]

    def uid() -> str:
        planted.append(("other", UID_ROOT + str(int(rng.integers(10**12, 10**13)))))
        return planted[-1][1]

    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(), uid(), uid()
    dataset.PatientName = plant("name", "caret")
    dataset.PatientID = plant("record", "record")
    dataset.PatientAddress = plant("place", "place")
    dataset.PatientTelephoneNumbers = plant("phone", "phone")
    dataset.ReferringPhysicianName = plant("name", "caret")
    dataset.InstitutionName = plant("place", "hospital")
    dataset.DeviceSerialNumber = plant("device", "device")
    dataset.AccessionNumber = plant("record", "record")[:16]
    dataset.StudyDescription = f"CT of {plant('name', 'name')}"
    dataset.ImageComments = f"Called {plant('phone', 'phone')}; e-mail {plant('email', 'email')}"
    dataset.StudyDate = "20210312"
    planted.append(("date", "20210312"))
    dataset.Modality, dataset.BodyPartExamined = "CT", "CHEST"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 8, 8, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = rng.integers(0, 4096, (8, 8), np.uint16).tobytes()
    dataset.add_new(0x60003000, "OW", b"\0" * 8)
    dataset.add_new(0x60000022, "LO", plant("name", "name"))
    block = dataset.private_block(0x0009 + 2 * (index % 3), "ACME 1.1", create=True)
    block.add_new(0x01, "LO", plant("name", "name"))
    block.add_new(0x02, "UN", plant("record", "record").encode())
    inner, outer = Dataset(), Dataset()
    inner.PersonName = plant("name", "caret")
    inner.ReferencedSOPInstanceUID, inner.ReferencedSOPClassUID = uid(), CTImageStorage
    inner.private_block(0x0011, "ACME 1.1", create=True).add_new(0x01, "LT", plant("ssn", "ssn"))
    outer.ReferencedSOPInstanceUID, outer.ReferencedSOPClassUID = uid(), CTImageStorage
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    dataset.ReferencedImageSequence = Sequence([outer])
    request = Dataset()
    request.RequestedProcedureDescription = f"For {plant('name', 'name')}, {plant('record', 'record')}"
    request.ScheduledProcedureStepSequence = Sequence([inner])
    dataset.RequestAttributesSequence = Sequence([request])
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return planted, dataset
