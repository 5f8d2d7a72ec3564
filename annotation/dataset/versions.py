"""Versions on disk: `<root>/<first 12 digits of the digest>/`, never changed once they are there.

The digest is SHA-256 over the records of all files, in order, without the version's own name in them. Pictures are named
by their pixels, so it covers them too. Times, and what is derived (card, metadata, parquet), are not in it.

    rows.jsonl  preferences.jsonl  unpaired.jsonl           to train on; `…-validation.jsonl` beside each
    parquet/                                                the same, for `datasets`
    images/                                                 every picture, once
    dropped.jsonl                                           what was left out, why, and because of what
    manifest.json  README.md  croissant.json                digest of every file, policy, counts; card; metadata
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import InvalidInput, NotFound

FORMAT = 1
FILES = ("rows", "preferences", "unpaired")
SPLITS = ("train", "validation")
MANIFEST = "manifest.json"
DIGITS = 12
_NAME = re.compile(r"[0-9a-f]{12}")
_ASKED = re.compile(r"[0-9a-f]{4,64}")


def file_name(file: str, split: str) -> str:
    return f"{file}.jsonl" if split == "train" else f"{file}-validation.jsonl"


ALL = tuple((file, split) for file in FILES for split in SPLITS)


def line(record: dict[str, Any]) -> bytes:
    """A record as it is written and hashed."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def content_digest(parts: dict[str, str]) -> str:
    """Of a version, hex, from the SHA-256 of each file without the version's name."""
    whole = hashlib.sha256(f"medmax-dataset {FORMAT}\n".encode())
    for file, split in ALL:
        name = file_name(file, split)
        whole.update(f"{name} {parts[name]}\n".encode())
    return whole.hexdigest()


@dataclass(frozen=True)
class Version:
    """One version on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def id(self) -> str:
        """What its folder is called."""
        return self.path.name

    def file(self, file: str, split: str = "train") -> Path:
        """`file`: rows, preferences or unpaired."""
        return self.path / file_name(file, split)

    def records(self, file: str, split: str = "train") -> Iterator[dict[str, Any]]:
        """One by one, in order of the interaction."""
        yield from read_lines(self.file(file, split))

    def dropped(self) -> Iterator[dict[str, str]]:
        """{interaction, kind, part, reason, because} of what was left out."""
        yield from read_lines(self.path / "dropped.jsonl")

    def summary(self) -> dict[str, Any]:
        """The manifest without its list of files."""
        return {name: value for name, value in self.manifest.items() if name != "files"}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Raises: InvalidInput where it is missing or no JSON lines."""
    try:
        with path.open("rb") as file:
            for text in file:
                yield json.loads(text)
    except FileNotFoundError:
        raise InvalidInput("is missing; `verify` says what else is", field=path.name) from None
    except ValueError:
        raise InvalidInput(
            "holds a line that is no JSON; `verify` says what else is", field=path.name
        ) from None


def _opened(path: Path) -> Version:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if not isinstance(manifest, dict) or not isinstance(manifest["files"], dict):
            raise ValueError
        if not str(manifest["digest"]).startswith(path.name):
            raise ValueError
        if manifest["format"] != FORMAT:
            raise InvalidInput(f"is of format {manifest['format']}; {FORMAT} is read", field=path.name)
    except (OSError, ValueError, KeyError):
        raise InvalidInput("has no readable manifest.json of its own", field=path.name) from None
    return Version(path, manifest)


def list_versions(root: Path) -> list[Version]:
    """All of them, oldest first. Raises: InvalidInput where one is damaged."""
    if not root.is_dir():
        return []
    found = [_opened(path) for path in root.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda version: (version.manifest["created_at"], version.id))


def load(root: Path, digest: str) -> Version:
    """The version whose digest begins with `digest`, 4 to 64 hexadecimal digits, or `latest`.

    Raises:
        InvalidInput: no digest, one that fits several versions, or a damaged version.
        NotFound: none has it.
    """
    if digest == "latest":
        if not (all_ := list_versions(root)):
            raise NotFound("there is no version yet", field="version")
        return all_[-1]
    if not _ASKED.fullmatch(digest):
        raise InvalidInput("must be 4 to 64 hexadecimal digits, or latest", field="version")
    names = [path for path in root.iterdir() if _NAME.fullmatch(path.name)] if root.is_dir() else []
    fitting = [path for path in names if path.name.startswith(digest[:DIGITS])]
    if len(fitting) > 1:
        raise InvalidInput(f"fits {len(fitting)} versions; give more digits", field="version")
    if not fitting or not (version := _opened(fitting[0])).digest.startswith(digest):
        raise NotFound("there is no such version", field="version")
    return version


def verify(version: Version) -> list[str]:
    """What is wrong with a version's files, one sentence each; empty where nothing is."""
    wrong = []
    listed: dict[str, dict[str, Any]] = version.manifest.get("files", {})
    for name, known in listed.items():
        path = version.path / name
        if not path.resolve().is_relative_to(version.path.resolve()) or not path.is_file():
            wrong.append(f"{name}: is missing")
        elif path.stat().st_size != known["bytes"] or file_digest(path) != known["sha256"]:
            wrong.append(f"{name}: is not what was written")
    there = {path.relative_to(version.path).as_posix() for path in version.path.rglob("*") if path.is_file()}
    wrong += [f"{name}: does not belong there" for name in sorted(there - set(listed) - {MANIFEST})]
    try:
        parts = {
            file_name(file, split): unversioned_digest(version.records(file, split)) for file, split in ALL
        }
        if content_digest(parts) != version.digest:
            wrong.append("the records do not have the version's digest")
    except (InvalidInput, KeyError, TypeError):
        wrong.append("the records cannot be read, so their digest cannot be compared")
    return wrong


def unversioned_digest(records: Iterable[dict[str, Any]]) -> str:
    whole = hashlib.sha256()
    for record in records:
        record["provenance"]["dataset_version"] = None
        whole.update(line(record))
    return whole.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
