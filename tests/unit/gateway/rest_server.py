"""A real uvicorn server on a free loopback port, with the real services on a tiny checkpoint behind it."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from PIL import Image

from services.config import Settings
from services.gateway.assistant import Assistant
from services.gateway.local import local_assistant
from services.gateway.rest import create_app


def picture(size: tuple[int, int] = (24, 24), shade: int = 90, file_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("L", size, shade).save(file, file_format)
    return file.getvalue()


def tiny_settings(checkpoint: Path, folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {"checkpoint": checkpoint, "data_dir": folder, "threads": 1, **changes}
    return Settings(**values)


class Server:
    """The server's address and, for looking behind it, its assistant."""

    def __init__(self, settings: Settings, wrap: Callable[[Assistant], Assistant] | None = None) -> None:
        self.settings = settings
        self.assistant: Assistant
        self._wrap = wrap or (lambda assistant: assistant)
        # asyncio turns Nagle's delay off only where the protocol is named.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        # Listening before uvicorn does: a test that connects at once waits its turn, and is not refused.
        self._socket.listen(256)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:
            self._failure = failure
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        async with local_assistant(self.settings) as assistant:
            self.assistant = self._wrap(assistant)
            app = create_app(self.assistant, self.settings)
            config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=5)
            self._uvicorn = uvicorn.Server(config)
            self._ready.set()
            await self._uvicorn.serve(sockets=[self._socket])

    def start(self) -> Server:
        self._thread.start()
        assert self._ready.wait(60)
        if self._failure is not None:
            raise self._failure
        return self

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    @property
    def engine(self) -> Any:
        llm: Any = self.assistant.backends.llm
        return llm.engine

    def wait_until_idle(self, seconds: float = 10) -> None:
        """Until the engine holds nothing; it then checks that every block is accounted for."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stats = self.engine.stats()
            if not (stats.active or stats.waiting):
                return
            time.sleep(0.01)
        raise AssertionError(f"the engine is still at work: {self.engine.stats()}")


@contextmanager
def serving(settings: Settings, wrap: Callable[[Assistant], Assistant] | None = None) -> Iterator[Server]:
    server = Server(settings, wrap).start()
    try:
        yield server
    finally:
        server.stop()
