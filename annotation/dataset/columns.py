"""The columns of each file, for parquet: the same in every version, whatever it holds."""

from __future__ import annotations

import pyarrow as pa

_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_PROVENANCE = pa.struct(
    [
        ("interaction", _TEXT),
        ("kind", _TEXT),
        ("rule", _TEXT),
        ("verdict", _TEXT),
        ("annotations", _TEXTS),
        ("annotators", _TEXTS),
        ("model_version", _TEXT),
        ("dataset_version", _TEXT),
    ]
)
_EVERY = [("task", _TEXT), ("source", _TEXT), ("provenance", _PROVENANCE)]

COLUMNS = {
    "rows": pa.schema(
        [
            ("text", _TEXT),
            ("tokens", pa.list_(pa.int64())),
            ("image_path", _TEXTS),
            ("task", _TEXT),
            ("source", _TEXT),
            ("credential", pa.bool_()),
            ("learn", _TEXT),
            ("provenance", _PROVENANCE),
        ]
    ),
    "preferences": pa.schema(
        [
            ("prompt", _TEXT),
            ("image_path", _TEXTS),
            ("chosen", _TEXT),
            ("chosen_image_path", _TEXTS),
            ("rejected", _TEXT),
            ("rejected_image_path", _TEXTS),
            *_EVERY,
        ]
    ),
    "unpaired": pa.schema(
        [
            ("prompt", _TEXT),
            ("image_path", _TEXTS),
            ("completion", _TEXT),
            ("completion_image_path", _TEXTS),
            ("label", pa.bool_()),
            *_EVERY,
        ]
    ),
}
