"""The sidecar that Prometheus scrapes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from services import exporter, metrics
from services.config import Settings
from services.errors import ConfigurationError

REPLICA = "from services import metrics\nwith metrics.track('llm', 'Generate'): pass"


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Address of an exporter."""
    server = exporter.server(settings, port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(metrics.METRICS_DIR, str(tmp_path))
    return tmp_path


def test_it_tells_what_other_processes_counted(folder: Path) -> None:
    environment = {**os.environ, metrics.METRICS_DIR: str(folder)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", REPLICA], env=environment, check=True)
    with running(Settings()) as url:
        reply = httpx.get(f"{url}/metrics")
    assert reply.status_code == 200
    assert 'medmax_requests_total{code="ok",method="Generate",service="llm"} 2.0' in reply.text
    # Of processes that are gone.
    assert "medmax_requests_ongoing{" not in reply.text


def test_with_keys_a_scrape_needs_one_and_a_probe_does_not(folder: Path) -> None:
    with running(Settings(api_keys="prometheus:secret")) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert httpx.get(f"{url}/metrics", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_it_answers_nothing_else(folder: Path) -> None:
    with running(Settings()) as url:
        assert httpx.get(f"{url}/").status_code == 404
        assert httpx.get(f"{url}/../etc/passwd").status_code == 404
        assert httpx.post(f"{url}/metrics").status_code == 404


def test_a_missing_folder_and_a_taken_port_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Settings()) as url, pytest.raises(ConfigurationError, match="--port"):
        exporter.server(Settings(), int(url.rpartition(":")[2]))
    monkeypatch.delenv(metrics.METRICS_DIR)
    with pytest.raises(ConfigurationError, match="MEDMAX_METRICS_DIR"):
        exporter.server(Settings(), 0)
