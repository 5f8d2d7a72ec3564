"""The Open Inference Protocol on the Serve gRPC proxy, called with `tritonclient`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from services.pb.medmax.v1 import tokenizer_pb2, tokenizer_pb2_grpc
from tests.support.stack import ROOT, Served


@pytest.fixture(scope="module")
def client(stack: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(stack.grpc) as connected:
        yield connected


def _file(data: bytes) -> triton.InferInput:
    tensor = triton.InferInput("FILE", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[data]], object))
    return tensor


def test_codes_and_pictures_are_the_services_own(
    stack: Served, client: triton.InferenceServerClient, png: bytes
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("decoder")
    codes = client.infer("tokenizer", [_file(png)]).as_numpy("CODES")
    with grpc.insecure_channel(stack.grpc) as channel:
        stub = tokenizer_pb2_grpc.ImageTokenizerStub(channel)
        own = stub.Tokenize(tokenizer_pb2.TokenizeRequest(image=png), timeout=60)
    assert codes.tolist() == [list(own.codes.codes)]
    given = triton.InferInput("CODES", list(codes.shape), "INT32")
    given.set_data_from_numpy(codes)
    answer = client.infer("decoder", [given])
    side = client.get_model_metadata("decoder").outputs[0].shape[1]
    assert answer.as_numpy("PIXELS").shape == (1, side, side, 3)
    assert answer.as_numpy("FILE")[0, 0].startswith(b"\x89PNG")


def test_errors_arrive_with_their_status(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("tokenizer", [_file(b"no picture")])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert caught.value.message().startswith("inputs[FILE][0]: ")
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_metadata("llm")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def _load(stack: Served, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "loadtests.inference", "--grpc", stack.grpc, "--seconds", "3", "--json"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize(
    ("name", "load"), [("decoder", ("--rate", "5")), ("tokenizer", ("--concurrency", "2", "--batch", "2"))]
)
def test_the_load_test_counts_what_tritonclient_and_perf_analyzer_get(
    stack: Served, name: str, load: tuple[str, ...]
) -> None:
    report = _load(stack, "--model", name, *load)
    ours, theirs = report["tritonclient"], report["perf_analyzer"]
    assert (ours["answered"], ours["failed"]) == (ours["due"], {})
    assert ours["answered"] > 0
    assert 0 < ours["total_s"]["p50"] <= ours["total_s"]["p99"]
    if "missing" in theirs:
        pytest.skip(theirs["missing"])
    assert theirs["answered"] > 0
    assert theirs["pictures_per_s"] == pytest.approx(report["batch"] * theirs["answered_per_s"], abs=0.002)
    assert 0 < theirs["server_s"]["compute"] < theirs["total_s"]["p99"]
