"""Worked examples for `/docs`; the tests send every one of them."""

from __future__ import annotations

from typing import Any

# 16 x 16 pixels, grey: small enough to read, large enough to be accepted.
PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAEUlEQVR42mNsYEAFTAwjWgAAmZAAoFDIQrAAAAAASUVORK5CYII="

CHAT: dict[str, Any] = {
    "ask": {
        "summary": "Ask about a picture",
        "value": {
            "model": "medmax-phantom",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": PICTURE}},
                        {"type": "text", "text": "Is there an effusion?"},
                    ],
                }
            ],
            "max_tokens": 16,
            "temperature": 0,
        },
    },
    "draw": {
        "summary": "Draw one picture",
        "value": {
            "messages": [{"role": "user", "content": "A chest radiograph with a small left mass."}],
            "modalities": ["image"],
            "seed": 7,
        },
    },
    "interleaved": {
        "summary": "Text and pictures in any order",
        "value": {
            "messages": [
                {
                    "role": "user",
                    "content": "Explain a fundus photograph with a large exudate with an example picture.",
                }
            ],
            "modalities": ["text", "image"],
            "max_images": 1,
            "max_completion_tokens": 64,
            "seed": 7,
        },
    },
    "stream": {
        "summary": "As server-sent events, with usage",
        "value": {
            "messages": [{"role": "user", "content": "What is a pleural effusion?"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 16,
            "store": False,
        },
    },
}
IMAGES: dict[str, Any] = {
    "draw": {
        "summary": "Two pictures",
        "value": {
            "prompt": "An abdominal CT with a large right kidney cyst.",
            "n": 2,
            "size": "auto",
            "seed": 7,
        },
    }
}
FEEDBACK: dict[str, Any] = {
    "correct": {
        "summary": "Flag an answer and correct it",
        "value": {
            "interaction_id": "int_00000000000000000000000000000000",
            "rating": 2,
            "flag": True,
            "corrected_text": "No effusion.",
        },
    }
}
STREAM = """data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"No"},"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"interaction_id":"int_…"}

data: [DONE]

"""
DESCRIPTION = """
A biomedical assistant that reads and writes text *and* pictures, in OpenAI's chat and images dialects.
**Not a medical device.** Generated pictures say in their metadata that they are synthetic.

Ask about a picture (PNG, JPEG, WebP, TIFF, BMP or single-frame DICOM):

```sh
curl -s http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d @- <<EOF
{"messages": [{"role": "user", "content": [
   {"type": "image_url", "image_url": {"url": "data:image/png;base64,$(base64 -w0 film.png)"}},
   {"type": "text", "text": "Is there an effusion?"}]}]}
EOF
```

The same with the `openai` client, unchanged:

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")  # or your key, where keys are on
answer = client.chat.completions.create(
    model="medmax-phantom",
    messages=[{"role": "user", "content": "Explain a fundus photograph with a large exudate with an example picture."}],
    extra_body={"modalities": ["text", "image"], "max_images": 1},
)
answer.choices[0].message.content   # the text
answer.choices[0].message.images    # the pictures, as data: URLs
answer.choices[0].message.parts     # their order
answer.interaction_id               # for /v1/feedback
```

`client.images.generate(prompt=…, size="auto")` draws. With `stream=True` text comes in `delta.content` and pictures in
`delta.images`, in the answer's order; the last chunk with a choice has `interaction_id`, `confidence` and `latency`.

Fields of OpenAI's API that would change the answer and are not supported are refused by name, and so are unknown ones;
harmless ones are accepted. Errors have OpenAI's shape: `param` names the field, `message` the limit.
Over a key's rate, or overloaded, the status is 429 and `Retry-After` says when to come back.
"""
