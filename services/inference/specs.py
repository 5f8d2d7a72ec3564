"""What the two models say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.inference.tensors import ANY, Datatype, TensorSpec
from services.pb.inference import grpc_service_pb2 as pb
from services.vqgan.config import VQConfig

VERSION = "1"
PLATFORM = "medmax"
DIGEST = "digest"
FILE = TensorSpec("FILE", Datatype.BYTES, (1,), optional=True)
PIXELS = TensorSpec("PIXELS", Datatype.UINT8, (ANY, ANY, 3), optional=True)


def codes_spec(config: VQConfig) -> TensorSpec:
    """Codes of a picture, row-major."""
    return TensorSpec("CODES", Datatype.INT32, (config.n_codes_per_image,))


def picture_spec(config: VQConfig) -> TensorSpec:
    """Pixels of a decoded picture."""
    return TensorSpec("PIXELS", Datatype.UINT8, (config.resolution, config.resolution, 3))


@dataclass(frozen=True)
class ModelSpec:
    """What a model says of itself.

    Attributes:
        max_batch: pictures in one request.
        parameters: facts for `ModelConfig`, such as the digest of the weights.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    parameters: dict[str, str] = field(default_factory=dict)

    @classmethod
    def tokenizer(cls, config: VQConfig, max_batch: int, **parameters: str) -> ModelSpec:
        return cls("tokenizer", (FILE, PIXELS), (codes_spec(config),), max_batch, parameters)

    @classmethod
    def decoder(cls, config: VQConfig, max_batch: int, **parameters: str) -> ModelSpec:
        outputs = (picture_spec(config), FILE)
        return cls("decoder", (codes_spec(config),), outputs, max_batch, parameters)

    def metadata(self) -> pb.ModelMetadataResponse:
        def tensors(specs: tuple[TensorSpec, ...]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
            return [
                pb.ModelMetadataResponse.TensorMetadata(
                    name=spec.name, datatype=spec.datatype.name, shape=(ANY, *spec.dims)
                )
                for spec in specs
            ]

        return pb.ModelMetadataResponse(
            name=self.name,
            versions=[VERSION],
            platform=PLATFORM,
            inputs=tensors(self.inputs),
            outputs=tensors(self.outputs),
        )

    def config(self) -> pb.ModelConfig:
        config = pb.ModelConfig(name=self.name, max_batch_size=self.max_batch)
        for spec in self.inputs:
            config.input.add(
                name=spec.name, data_type=spec.datatype.number, dims=spec.dims, optional=spec.optional
            )
        for spec in self.outputs:
            config.output.add(name=spec.name, data_type=spec.datatype.number, dims=spec.dims)
        for name, value in self.parameters.items():
            config.parameters[name].string_value = value
        return config
