"""Croissant 1.1 metadata of a version (https://docs.mlcommons.org/croissant)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from annotation.dataset.columns import COLUMNS
from annotation.dataset.versions import DIGITS, FILES, SPLITS, file_name

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "arrayShape": "cr:arrayShape",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "equivalentProperty": "cr:equivalentProperty",
}


def croissant(manifest: dict[str, Any], listed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """JSON-LD that names every parquet file that holds a record, by digest, and its columns.

    Args:
        listed: bytes and SHA-256 of each file of the version, by path.
    """
    policy, version = manifest["policy"], manifest["digest"][:DIGITS]
    tables = [
        (file, split, f"parquet/{Path(file_name(file, split)).stem}.parquet")
        for file in FILES
        for split in SPLITS
        if manifest["counts"][file_name(file, split)]
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": policy["name"],
        "description": f"Instruction data from {manifest['facts']['judgements']} judgements of experts; see README.md.",
        "license": policy["licence"],
        "version": f"1.0.0+{version}",
        "url": f"urn:sha256:{manifest['digest']}",
        "datePublished": manifest["created_at"],
        "creator": {"@type": "sc:Organization", "name": policy["name"]},
        "citeAs": f"{policy['name']}, version {version}",
        "isLiveDataset": False,
        "rai:dataCollection": "Answers of a biomedical assistant, judged by experts.",
        "rai:dataAnnotationProtocol": "Label Studio; several experts where policy says so; conflicts adjudicated.",
        "rai:personalSensitiveInformation": policy["consent"],
        "rai:dataLimitations": "Only what routing sent to experts; not for diagnosis. README.md has the list.",
        "distribution": [
            *(_file(path, listed[path]) for _, _, path in tables),
            {
                "@type": "cr:FileSet",
                "@id": "images",
                "description": "Every picture, once, named by the SHA-256 of its pixels.",
                "encodingFormat": "image/png",
                "includes": "images/*.png",
            },
        ],
        "recordSet": [_records(file, split, path) for file, split, path in tables],
    }


def _file(path: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{entry['bytes']} B",
        "encodingFormat": "application/x-parquet",
        "sha256": entry["sha256"],
    }


def _records(file: str, split: str, path: str) -> dict[str, Any]:
    name = Path(path).stem
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "description": f"{file}, {split}",
        "field": [_field(name, path, column) for column in COLUMNS[file]],
    }


def _field(record_set: str, path: str, column: pa.Field) -> dict[str, Any]:
    source = {"fileObject": {"@id": path}, "extract": {"column": column.name}}
    field: dict[str, Any] = {"@type": "cr:Field", "@id": f"{record_set}/{column.name}"}
    if not pa.types.is_struct(column.type):
        return {**field, "source": source, **_type(column.type)}
    inner = [column.type.field(i) for i in range(column.type.num_fields)]
    return {
        **field,
        "subField": [
            {
                "@type": "cr:Field",
                "@id": f"{record_set}/{column.name}/{one.name}",
                "source": {**source, "transform": {"jsonPath": f"$.{one.name}"}},
                **_type(one.type),
            }
            for one in inner
        ],
    }


def _type(kind: pa.DataType) -> dict[str, Any]:
    array: dict[str, Any] = {}
    if pa.types.is_list(kind):
        array, kind = {"isArray": True, "arrayShape": "-1"}, kind.value_type
    names = {pa.bool_(): "sc:Boolean", pa.int64(): "cr:Int64"}
    return {**array, "dataType": names.get(kind, "sc:Text")}
