"""The services by their short names and as gRPC calls them."""

from __future__ import annotations

from services.pb.inference import grpc_service_pb2
from services.pb.medmax.v1 import assistant_pb2, decoder_pb2, llm_pb2, tokenizer_pb2

FULL_NAMES = {
    "tokenizer": tokenizer_pb2.DESCRIPTOR.services_by_name["ImageTokenizer"].full_name,
    "llm": llm_pb2.DESCRIPTOR.services_by_name["LanguageModel"].full_name,
    "decoder": decoder_pb2.DESCRIPTOR.services_by_name["ImageDecoder"].full_name,
    "inference": grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
    "gateway": assistant_pb2.DESCRIPTOR.services_by_name["Assistant"].full_name,
}
SHORT_NAMES = {full: short for short, full in FULL_NAMES.items()}
