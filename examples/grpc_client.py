"""The generated gRPC client against a running server: ask about a picture, print the answer as it comes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc

from services.pb.medmax.v1 import assistant_pb2, assistant_pb2_grpc

PICTURE = Path(__file__).parent / "pictures" / "chest.png"


def main() -> int:
    address = os.environ.get("MEDMAX_GRPC", "127.0.0.1:9000")
    key = os.environ.get("MEDMAX_API_KEY")
    metadata = [("authorization", f"Bearer {key}")] if key else []
    request = assistant_pb2.GenerateRequest(
        messages=[
            assistant_pb2.Message(
                role=assistant_pb2.ROLE_USER,
                parts=[
                    assistant_pb2.Part(image=assistant_pb2.ImagePart(data=PICTURE.read_bytes())),
                    assistant_pb2.Part(text="What is abnormal in this picture?"),
                ],
            )
        ]
    )
    with grpc.insecure_channel(address) as channel:
        for event in assistant_pb2_grpc.AssistantStub(channel).Generate(
            request, metadata=metadata, timeout=60
        ):
            if event.HasField("text"):
                print(event.text.text, end="", flush=True)
            elif event.HasField("finish"):
                print(f"\ninteraction {event.finish.interaction_id}, {event.finish.latency.total_ms:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
