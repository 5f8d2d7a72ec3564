"""A TCP port in front of a Unix socket whose connections can be cut or held up."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field

CHUNK = 1 << 16


@dataclass
class Wire:
    """Forwards connections to 127.0.0.1:`port` until `close`.

    Args:
        path: of the Unix socket behind it.
    """

    path: str
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _flowing: threading.Event = field(default_factory=threading.Event)
    _cut: bool = False
    _sockets: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Breaks all connections; new ones are broken at once."""
        with self._lock:
            self._cut, broken = True, list(self._sockets)
        for each in broken:
            _shut(each)

    def stall(self) -> None:
        """Connections stay; nothing comes through."""
        self._flowing.clear()

    def heal(self) -> None:
        with self._lock:
            self._cut = False
        self._flowing.set()

    def close(self) -> None:
        self.heal()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            far = socket.socket(socket.AF_UNIX)
            with self._lock:
                refused = self._cut
                if not refused:
                    self._sockets |= {near, far}
            try:
                if refused:
                    raise ConnectionResetError
                far.connect(self.path)
            except OSError:
                self._drop(near, far)
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # cut, or either side went away
            while data := source.recv(CHUNK):
                self._flowing.wait()
                sink.sendall(data)
        self._drop(source, sink)

    def _drop(self, *sockets: socket.socket) -> None:
        with self._lock:
            self._sockets -= set(sockets)
        for each in sockets:
            _shut(each)
            each.close()


def _shut(each: socket.socket) -> None:
    with suppress(OSError):  # already
        each.shutdown(socket.SHUT_RDWR)
