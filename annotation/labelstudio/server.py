"""A Label Studio of our own on loopback: for tests and for a first look (`make serve-review`).

It runs in `.venv-labelstudio` (scripts/setup_review.sh) with SQLite below a folder. Guards that a public Label Studio
needs are off here: it may call webhooks on loopback.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import SecretStr

from services.config import ROOT
from services.errors import ConfigurationError, PermissionDenied, Unavailable

VENV = Path(os.environ.get("MEDMAX_LABELSTUDIO_VENV") or ROOT / ".venv-labelstudio")
_COMMAND = (VENV / "bin" / "label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1")
START_S = 300.0
"""A fresh database takes 40 s, several times that on a busy machine."""
STOP_S = 15.0
POLL_S = 0.25


@dataclass(frozen=True)
class Login:
    """Somebody who may log in. `token` is a legacy token (the administrator's) or a personal access token."""

    email: str
    password: SecretStr
    token: SecretStr


@dataclass(frozen=True)
class Server:
    """A Label Studio that runs."""

    url: str
    admin: Login
    pid: int

    def add_expert(self, email: str, password: str) -> Login:
        """A new user of the organisation, with a personal access token, as signing up in the browser makes one.

        Raises:
            PermissionDenied: Label Studio refuses (the address is taken, the password too short).
        """
        authorization = {"Authorization": f"Token {self.admin.token.get_secret_value()}"}
        with httpx.Client(base_url=self.url, timeout=60) as client:
            invite = client.get("/api/invite", headers=authorization).raise_for_status().json()["invite_url"]
            client.get(invite).raise_for_status()
            form = {
                "email": email,
                "password": password,
                "allow_newsletters": "false",
                "csrfmiddlewaretoken": client.cookies["csrftoken"],
            }
            signed_up = client.post(invite, data=form, headers={"Referer": self.url})
            if signed_up.status_code != 302:
                raise PermissionDenied(
                    "Label Studio refuses the new expert: address taken or password too short"
                )
            client.get("/projects/").raise_for_status()
            headers = {"X-CSRFToken": client.cookies["csrftoken"], "Referer": self.url}
            token = client.post("/api/token/", json={}, headers=headers).raise_for_status().json()["token"]
        return Login(email, SecretStr(password), SecretStr(token))


@contextmanager
def running(folder: Path, port: int = 0) -> Iterator[Server]:
    """A Label Studio whose data live below `folder`; ends with the block.

    Args:
        folder: created if missing; an earlier run's data and log-in are found again.
        port: 0 takes a free one.

    Raises:
        ConfigurationError: not installed, the folder is in use, or the port is taken.
        Unavailable: it did not start; the message names the log.
    """
    folder = folder.absolute()
    if not (VENV / "bin" / "label-studio").exists():
        raise ConfigurationError("Label Studio is not installed: run scripts/setup_review.sh server")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError("another Label Studio uses this folder", field="folder") from None
        _end_orphan(folder)
        admin = _login(folder)
        port = _free_port(port)
        with (folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [*_COMMAND, "--port", str(port)],
                cwd=folder,
                env=_environment(folder, admin),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            (folder / "server.pid").write_text(f"{process.pid} {_started(process.pid)}")
            server = Server(f"http://127.0.0.1:{port}", admin, process.pid)
            _wait(server, process, folder / "server.log")
            yield server
        finally:
            _stop(process)
            (folder / "server.pid").unlink(missing_ok=True)


def _environment(folder: Path, admin: Login) -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        # In the environment, not in the arguments, which every user of the machine may read.
        "LABEL_STUDIO_USERNAME": admin.email,
        "LABEL_STUDIO_PASSWORD": admin.password.get_secret_value(),
        "LABEL_STUDIO_USER_TOKEN": admin.token.get_secret_value(),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "ML_BLOCK_LOCAL_IP": "false",
    }


def _login(folder: Path) -> Login:
    """The administrator's log-in; made once, kept in a file that only this user may read."""
    path = folder / "admin.json"
    if not path.exists():
        made = {
            "email": "admin@localhost.example",
            "password": secrets.token_urlsafe(12),
            "token": secrets.token_hex(20),
        }
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
    saved = json.loads(path.read_text())
    return Login(saved["email"], SecretStr(saved["password"]), SecretStr(saved["token"]))


def _free_port(port: int) -> int:
    """`port` itself or a free one. Label Studio would silently take another one than a busy one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConfigurationError(f"port {port} is taken", field="port") from None
        return int(probe.getsockname()[1])


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers as ours: it knows the token that was made for it."""
    limit = time.monotonic() + START_S
    headers = {"Authorization": f"Token {server.admin.token.get_secret_value()}"}
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise Unavailable(f"Label Studio ended with status {process.returncode}; see {log.name}")
        try:
            if httpx.get(f"{server.url}/api/current-user/whoami", headers=headers, timeout=20).is_success:
                return
        except httpx.TransportError:
            pass  # not there yet
        time.sleep(POLL_S)
    raise Unavailable(f"Label Studio did not start within {START_S:.0f} s; see {log.name}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The whole session of the process: it may have children."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_S)
    except ProcessLookupError:
        process.wait()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _started(pid: int) -> str:
    """Start time of a process in clock ticks, which tells it from a later one of the same id; empty if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _end_orphan(folder: Path) -> None:
    """Ends what an earlier run left behind whose starter was killed: nobody else holds this folder's lock."""
    try:
        pid, started = (folder / "server.pid").read_text().split()
    except (OSError, ValueError):
        return
    if started == _started(int(pid)):
        os.killpg(int(pid), signal.SIGKILL)
        while _started(int(pid)) == started and not _zombie(int(pid)):
            time.sleep(POLL_S)


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
