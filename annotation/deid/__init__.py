"""De-identification of what leaves: texts, pictures, DICOM data sets, whole items.

`Deidentifier.clean` cleans an item and says whether it may go; `check_text` checks a result; `clean_dataset` cleans a
DICOM data set. What cannot be told apart from an identifier is held, not sent.
"""

from annotation.deid.core import Category, Cleaned, Finding, Recogniser, Report, Span
from annotation.deid.deidentifier import Deidentifier
from annotation.deid.dicom import DatasetReport, clean_dataset
from annotation.deid.ocr import RapidReader, Reader
from annotation.deid.text import check_text

__all__ = [
    "Category",
    "Cleaned",
    "DatasetReport",
    "Deidentifier",
    "Finding",
    "RapidReader",
    "Reader",
    "Recogniser",
    "Report",
    "Span",
    "check_text",
    "clean_dataset",
]
