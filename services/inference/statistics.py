"""What a model did since its process started, in the terms of Triton's `ModelStatistics`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from services.pb.inference import grpc_service_pb2 as pb


@dataclass
class Statistics:
    """Counts of one model; times are in nanoseconds. Waiting for a place in a batch counts as inference."""

    requests: int = 0
    pictures: int = 0
    failures: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    failed_ns: int = 0
    last_ms: int = 0

    def succeeded(self, pictures: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Counts an answered request."""
        self.requests += 1
        self.pictures += pictures
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns
        self.last_ms = time.time_ns() // 1_000_000

    def failed(self, ns: int) -> None:
        """Counts a refused or failed request."""
        self.failures += 1
        self.failed_ns += ns

    def message(self, name: str, version: str) -> pb.ModelStatistics:
        def total(ns: int, count: int) -> pb.StatisticDuration:
            return pb.StatisticDuration(count=count, ns=ns)

        done = self.requests
        return pb.ModelStatistics(
            name=name,
            version=version,
            last_inference=self.last_ms,
            inference_count=self.pictures,
            execution_count=done,
            inference_stats=pb.InferStatistics(
                success=total(self.input_ns + self.infer_ns + self.output_ns, done),
                fail=total(self.failed_ns, self.failures),
                queue=total(0, done),
                compute_input=total(self.input_ns, done),
                compute_infer=total(self.infer_ns, done),
                compute_output=total(self.output_ns, done),
                cache_hit=total(0, 0),
                cache_miss=total(0, 0),
            ),
        )
