"""`make demo`: start the stack, ask about a picture, have one drawn, get an interleaved answer, shut down.

The pictures are saved under `out/`, or the folder that `--out` names. Everything stays on loopback. Exit status 0 only if every step answered and no
process was left behind.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "examples" / "pictures" / "chest.png"
console = Console(highlight=False, soft_wrap=True)


def free_port(preferred: int) -> int:
    """`preferred` where nobody listens on it, else one the system chooses."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RuntimeError("no free port on loopback")


def start() -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """The running stack and what it printed: its addresses."""
    command = [
        *(sys.executable, "-m", "services.cli", "serve", "--json"),
        *("--http-port", str(free_port(8000)), "--grpc-port", str(free_port(9000))),
    ]
    # A session of its own: Ctrl-C reaches the demo, which then stops the stack in order.
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert server.stdout is not None
    document = server.stdout.readline()
    if not document:
        raise SystemExit(f"the stack did not start (exit status {server.wait()}); try `medmax doctor`")
    while True:
        try:
            return server, json.loads(document)
        except json.JSONDecodeError:
            line = server.stdout.readline()
            if not line:
                raise SystemExit("the stack printed no addresses; try `medmax doctor`") from None
            document += line


def stop(server: subprocess.Popen[str]) -> bool:
    """Shut the stack down; whether it left nothing behind."""
    server.send_signal(signal.SIGTERM)
    try:
        clean = server.wait(timeout=60) == 0
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        return False
    left = subprocess.run(
        ["pgrep", "-s", str(server.pid)], capture_output=True, text=True, check=False
    ).stdout
    return clean and not left.strip()


def save(out: Path, name: str, url: str) -> Path:
    """Write the picture of a `data:` address to the folder."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / name
    path.write_bytes(base64.b64decode(url.partition(",")[2]))
    return path


def chat(client: httpx.Client, content: Any, **fields: Any) -> tuple[dict[str, Any], float]:
    """One chat completion: the assistant's message and the seconds it took."""
    begin = time.perf_counter()
    body = {"model": "medmax-phantom", "messages": [{"role": "user", "content": content}], **fields}
    response = client.post("/v1/chat/completions", json=body)
    if response.is_error:
        raise SystemExit(f"the server answered {response.status_code}: {response.text}")
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message, time.perf_counter() - begin


def picture_part(path: Path) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def ask(client: httpx.Client) -> None:
    console.print(f"\n[bold]1. Questions about a picture[/] ({PICTURE.relative_to(ROOT)})")
    for question in (
        "What is abnormal in this picture?",
        "Is there a pleural effusion?",
        "Describe this image.",
    ):
        message, seconds = chat(client, [picture_part(PICTURE), {"type": "text", "text": question}])
        console.print(f"   {question}\n     [cyan]{message['content']}[/]  [dim]{seconds:.2f} s[/]")


def draw(client: httpx.Client, out: Path) -> None:
    description = "Draw a chest x-ray with a large right pleural effusion."
    console.print(f"\n[bold]2. A picture from a description[/]\n   {description}")
    message, seconds = chat(client, description, modalities=["image"], seed=1)
    path = save(out, "drawn.png", message["images"][0]["image_url"]["url"])
    console.print(f"     [cyan]{path}[/]  [dim]{seconds:.2f} s[/]")


def interleave(client: httpx.Client, out: Path) -> None:
    request = "Explain a large right pleural effusion on a chest x-ray with an example picture."
    console.print(f"\n[bold]3. An interleaved answer[/] (text, picture, text)\n   {request}")
    message, seconds = chat(client, request, modalities=["text", "image"], seed=1)
    drawn = 0
    for part in message["parts"]:
        if part["type"] == "text":
            console.print(f"     [cyan]{part['text'].strip()}[/]")
        else:
            drawn += 1
            picture = message["images"][part["index"]]
            path = save(out, f"interleaved-{drawn}.png", picture["image_url"]["url"])
            console.print(f"     [cyan]{path}[/]")
    console.print(f"     [dim]{seconds:.2f} s[/]")


def main() -> int:
    arguments = argparse.ArgumentParser(description="Show what the stack does, on loopback.")
    arguments.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    out: Path = arguments.parse_args().out
    begin = time.perf_counter()
    server, addresses = start()
    try:
        console.print(
            f"Ready after {time.perf_counter() - begin:.0f} s: REST {addresses['http']}, gRPC {addresses['grpc']}"
        )
        with httpx.Client(base_url=addresses["http"], timeout=120, trust_env=False) as client:
            ask(client)
            draw(client, out)
            interleave(client, out)
        console.print("\nThe pictures are synthetic and say so in their metadata. Not a medical device.")
    finally:
        clean = stop(server)
    console.print("Shut down; no process left." if clean else "[red]The stack did not shut down cleanly.[/]")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
