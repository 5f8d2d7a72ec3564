"""The files of a version, from what is staged: records checked, hashed, then written with the version's name in them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyarrow import RecordBatch
from pyarrow.parquet import ParquetWriter

from annotation.dataset.card import Facts, card
from annotation.dataset.check import CheckText, Identifiers, readable
from annotation.dataset.columns import COLUMNS
from annotation.dataset.croissant import croissant
from annotation.dataset.pictures import FOLDER, write_synced
from annotation.dataset.policy import Policy
from annotation.dataset.staging import Staged, Staging
from annotation.dataset.tokenizer import Tokenizer
from annotation.dataset.versions import (
    ALL,
    DIGITS,
    FORMAT,
    MANIFEST,
    SPLITS,
    content_digest,
    file_digest,
    file_name,
    line,
    read_lines,
)
from annotation.dataset.workspace import sync_file
from services.errors import InvalidInput
from training.rows.trouble import Unusable

PARQUET = "parquet"
_BATCH = 500
_PATHS = ("image_path", "chosen_image_path", "rejected_image_path", "completion_image_path")


class Writer:
    """Writes one version into `folder`."""

    def __init__(
        self,
        folder: Path,
        staging: Staging,
        policy: Policy,
        check_text: CheckText,
        tokenizer: Tokenizer | None,
    ) -> None:
        self._folder, self._staging, self._policy = folder, staging, policy
        self._identifiers, self._tokenizer = Identifiers(check_text), tokenizer
        self._pictures: set[str] = set()
        self._facts = Facts()

    def write(
        self,
        made_at: str,
        parents: Sequence[str],
        evaluation: list[dict[str, Any]],
        progress: Callable[[str, int, int | None], None],
    ) -> str:
        """Everything; returns the digest. Raises: InvalidInput where a text seems to identify somebody."""
        parts, counts = self._drafts(progress)
        digest = content_digest(parts)
        self._finals(digest[:DIGITS])
        self._sweep()
        self._dropped()
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "digest": digest,
            "created_at": made_at,
            "parents": sorted(set(parents)),
            "policy": self._policy.to_json(),
            "counts": {**counts, "pictures": len(self._pictures)},
            "dropped": self._staging.dropped_by_reason(),
            "evaluation": evaluation,
            "facts": self._facts.to_json(),
        }
        write_synced(self._folder / "README.md", card(manifest).encode())
        listed = self._listed()
        metadata = croissant(manifest, listed)
        write_synced(self._folder / "croissant.json", _json(metadata))
        listed["croissant.json"] = _entry(self._folder / "croissant.json")
        write_synced(self._folder / MANIFEST, _json({**manifest, "files": dict(sorted(listed.items()))}))
        return digest

    def _drafts(
        self, progress: Callable[[str, int, int | None], None]
    ) -> tuple[dict[str, str], dict[str, int]]:
        """The records without the version's name; the SHA-256 of each file of them, and how many each holds."""
        hashes = {file_name(*key): hashlib.sha256() for key in ALL}
        counts: Counter[str] = Counter(dict.fromkeys(hashes, 0))
        with ExitStack() as stack:
            drafts = {
                name: stack.enter_context((self._folder / f"{name}.draft").open("wb")) for name in hashes
            }
            for done, staged in enumerate(self._staging.each(), 1):
                split = SPLITS[self._staging.held(staged)]
                written: list[tuple[str, str]] = []
                for file, record in staged.records:
                    if (text := self._checked(staged, file, record)) is None:
                        continue
                    name = file_name(file, split)
                    drafts[name].write(text)
                    hashes[name].update(text)
                    counts[name] += 1
                    written.append((file, record["provenance"]["rule"]))
                    self._pictures.update(path for field in _PATHS for path in record.get(field, ()))
                for part, reason in staged.none:
                    self._staging.drop(staged.interaction, staged.kind, part, reason)
                if written:
                    self._facts.add(staged.facts, written)
                if done % 100 == 0:
                    progress("write", done, None)
        self._identifiers.refuse()
        if not counts.total():
            why = ", ".join(
                f"{count} {reason}" for reason, count in self._staging.dropped_by_reason().items()
            )
            raise InvalidInput(f"give no row; left out: {why or 'none were given'}", field="judgements")
        return {name: whole.hexdigest() for name, whole in hashes.items()}, dict(counts)

    def _checked(self, staged: Staged, file: str, record: dict[str, Any]) -> bytes | None:
        """The line of a record that training can read; None where it cannot, which is recorded."""
        try:
            if file == "rows" and self._tokenizer is not None:
                record["tokens"] = self._tokenizer.tokens(record, self._folder)
            text = readable(file, record)
        except Unusable as trouble:
            rule = record["provenance"]["rule"]
            self._staging.drop(staged.interaction, staged.kind, rule, f"unusable_{trouble.reason}")
            return None
        self._identifiers.look(staged.interaction, record)
        return text

    def _finals(self, version: str) -> None:
        """Drafts into JSONL and parquet that name the version."""
        (self._folder / PARQUET).mkdir()
        for file, split in ALL:
            name = file_name(file, split)
            draft, final = self._folder / f"{name}.draft", self._folder / name
            with (
                final.open("xb") as lines,
                ParquetWriter(
                    self._folder / PARQUET / f"{Path(name).stem}.parquet", COLUMNS[file], compression="zstd"
                ) as table,
            ):
                for batch in _batches(draft):
                    for record in batch:
                        record["provenance"]["dataset_version"] = version
                        lines.write(line(record))
                    table.write_batch(RecordBatch.from_pylist(batch, schema=COLUMNS[file]))
            draft.unlink()
            sync_file(final)
            sync_file(self._folder / PARQUET / f"{Path(name).stem}.parquet")

    def _sweep(self) -> None:
        """Remove pictures of judgements that were dropped."""
        for path in (self._folder / FOLDER).iterdir():
            if f"{FOLDER}/{path.name}" not in self._pictures:
                path.unlink()

    def _dropped(self) -> None:
        path = self._folder / "dropped.jsonl"
        with path.open("xb") as lines:
            for record in self._staging.dropped():
                lines.write(line(record))
        sync_file(path)

    def _listed(self) -> dict[str, dict[str, Any]]:
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        return {path.relative_to(self._folder).as_posix(): _entry(path) for path in files}


def _batches(draft: Path) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for record in read_lines(draft):
        batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"
