"""The `openai` client against a running server: ask about a picture, stream an answer, draw a picture."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

PICTURE = Path(__file__).parent / "pictures" / "chest.png"
URL = "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()


def main() -> int:
    base = os.environ.get("MEDMAX_SERVER", "http://127.0.0.1:8000")
    client = OpenAI(base_url=f"{base}/v1", api_key=os.environ.get("MEDMAX_API_KEY", "none"))

    def about(question: str) -> list:
        parts = [{"type": "image_url", "image_url": {"url": URL}}, {"type": "text", "text": question}]
        return [{"role": "user", "content": parts}]

    answer = client.chat.completions.create(
        model="medmax-phantom", messages=about("Is there a pleural effusion?")
    )
    print("asked:   ", answer.choices[0].message.content)

    print("streamed: ", end="")
    for chunk in client.chat.completions.create(
        model="medmax-phantom", messages=about("Describe this image."), stream=True
    ):
        print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
    print()

    drawn = client.images.generate(
        model="medmax-phantom", prompt="a brain MRI with a large left tumor", response_format="b64_json"
    )
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "out") / "openai.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(base64.b64decode(drawn.data[0].b64_json))
    print("drawn:   ", out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
