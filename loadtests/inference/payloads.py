"""What tokenizer and decoder are asked: phantoms from a seed, as files and as codes."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from evaluation.phantoms import held_out
from loadtests.scenarios.asks import png

DISTINCT = 64
MODELS = ("tokenizer", "decoder")
LOW_CODES = 16


@dataclass(frozen=True)
class Payloads:
    """Rows for one input tensor of one model.

    Attributes:
        rows: picture files (BYTES), or codes int32 [N] (INT32), one a picture.
    """

    model: str
    tensor: str
    datatype: str
    rows: Sequence[Any]

    def requests(self, batch: int) -> list[list[triton.InferInput]]:
        """Inputs of requests of `batch` pictures each; the rows in turn."""
        count = max(1, len(self.rows) // batch)
        return [
            [self._input([self.rows[(number * batch + i) % len(self.rows)] for i in range(batch)])]
            for number in range(count)
        ]

    def _input(self, rows: Sequence[Any]) -> triton.InferInput:
        array = np.array([[row] for row in rows], object) if self.datatype == "BYTES" else np.stack(rows)
        made = triton.InferInput(self.tensor, list(array.shape), self.datatype)
        made.set_data_from_numpy(array)
        return made

    def document(self) -> dict[str, Any]:
        """The rows as perf_analyzer's input data; it puts a batch together itself."""
        return {"data": [{self.tensor: self._entry(row)} for row in self.rows]}

    def _entry(self, row: Any) -> dict[str, Any]:
        if self.datatype == "BYTES":
            # An element of BYTES has its length before it, which perf_analyzer does not add.
            return {"b64": base64.b64encode(struct.pack("<I", len(row)) + row).decode(), "shape": [1]}
        return {"content": row.tolist(), "shape": list(row.shape)}


def payloads(
    client: triton.InferenceServerClient, model: str, seed: int, distinct: int = DISTINCT
) -> Payloads:
    """For one of `MODELS`.

    Codes are those of pictures where the same port has a tokenizer; else low ids, which the decoder works on as long.

    Raises:
        InferenceServerException: the server does not serve the model.
    """
    metadata = client.get_model_metadata(model)
    seeds = held_out(77, 10_000)
    chosen = np.random.default_rng([seed, 11]).choice(len(seeds), distinct, replace=False)
    files = [png(seeds[int(each)]) for each in chosen]
    if model == "tokenizer":
        return Payloads(model, "FILE", "BYTES", files)
    if client.is_model_ready("tokenizer"):
        pictures = Payloads("tokenizer", "FILE", "BYTES", files).requests(1)
        codes = [client.infer("tokenizer", inputs).as_numpy("CODES")[0] for inputs in pictures]
    else:
        length = int(metadata.inputs[0].shape[-1])
        rng = np.random.default_rng(seed)
        codes = [rng.integers(0, LOW_CODES, length, dtype=np.int32) for _ in range(distinct)]
    return Payloads(model, "CODES", "INT32", codes)
