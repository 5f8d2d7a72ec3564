"""Stores by address."""

from __future__ import annotations

from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from services.errors import ConfigurationError, Unavailable
from services.interactions.pictures import PictureStore, digest
from services.stores import open_store
from tests.support.bucket import Objects, s3

__all__ = ["s3"]


def test_pictures_go_to_a_bucket_and_come_back(s3: ThreadingHTTPServer) -> None:
    filesystem, root = open_store("s3://bucket/pictures/", "x")
    store = PictureStore(filesystem, root)
    data = b"picture" * 1000
    store.check()
    store.write(digest(data), data)
    name = digest(data)
    assert Objects.kept == {f"/bucket/pictures/{name[:2]}/{name}": data}
    assert store.read(name) == data
    store.delete(name)
    # Arrow leaves a marker for the folder, at most one for each two digits.
    assert not [key for key in Objects.kept if not key.endswith("/")]
    store.delete(name)
    store.probe()


def test_a_store_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = PictureStore(*open_store("s3://bucket/pictures", "x"))
    with pytest.raises(Unavailable):
        store.check()


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    filesystem, root = open_store(str(tmp_path), "x")
    assert filesystem.exists(root)


def test_what_is_no_store_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="MEDMAX_OBJECT_STORE"):
        open_store("gopher://x/y", "MEDMAX_OBJECT_STORE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "somewhere")
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL"):
        open_store("s3://bucket/x", "MEDMAX_OBJECT_STORE")
