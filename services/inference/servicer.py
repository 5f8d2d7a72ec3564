"""`inference.GRPCInferenceService` on tokenizer and decoder, so that `tritonclient` and its like can call them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from services.checkpoint import Checkpoint
from services.config import Settings
from services.deadline import Deadline
from services.decoder.servicer import ImageDecoderServicer
from services.errors import MedMaxError, ModelNotFound
from services.gateway.backends import DecoderBackend, TokenizerBackend
from services.inference.local import local_model
from services.inference.messages import check_id, read_inputs, read_outputs, read_timeout_ms, write_outputs
from services.inference.models import DecoderModel, Model, TokenizerModel
from services.inference.specs import VERSION, ModelSpec
from services.inference.statistics import Statistics
from services.pb.inference import grpc_service_pb2 as pb
from services.pb.medmax.v1 import common_pb2
from services.tokenizer.servicer import ImageTokenizerServicer

EXTENSIONS = ("model_configuration", "statistics")


class InferenceServicer:
    """The models by name; errors are `MedMaxError`s.

    The caller's deadline is the gRPC call's, or the request's parameter `timeout`, whichever is shorter.
    """

    def __init__(self, models: Mapping[str, Model], settings: Settings) -> None:
        self._models = dict(models)
        self._settings = settings
        self._statistics = {name: Statistics() for name in self._models}

    @classmethod
    def local(
        cls, settings: Settings, *services: ImageTokenizerServicer | ImageDecoderServicer
    ) -> InferenceServicer:
        """Over services in this process."""
        models = [local_model(service, settings) for service in services]
        return cls({model.spec.name: model for model in models}, settings)

    @classmethod
    def over(
        cls, tokenizer: TokenizerBackend, decoder: DecoderBackend, checkpoint: Checkpoint, settings: Settings
    ) -> InferenceServicer:
        """Over backends that serve `checkpoint`, wherever they are."""
        config, batch = checkpoint.vq_config, settings.batch_size
        return cls(
            {
                "tokenizer": TokenizerModel(ModelSpec.tokenizer(config, batch), tokenizer),
                "decoder": DecoderModel(ModelSpec.decoder(config, batch), decoder, config.grid),
            },
            settings,
        )

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Any = None) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Any = None
    ) -> pb.ServerReadyResponse:
        ready = [await _ready(model) for model in self._models.values()]
        return pb.ServerReadyResponse(ready=all(ready))

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any = None) -> pb.ModelReadyResponse:
        """A model that is not here is not ready, as at Triton."""
        model = self._models.get(request.name)
        if model is None or request.version not in ("", VERSION):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=await _ready(model))

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Any = None
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="medmax", version=_version(), extensions=EXTENSIONS)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Any = None
    ) -> pb.ModelMetadataResponse:
        return self._model(request.name, request.version, "name").spec.metadata()

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Any = None
    ) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=self._model(request.name, request.version, "name").spec.config())

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Any = None
    ) -> pb.ModelStatisticsResponse:
        """Of this process; behind Ray Serve, of the gateway's replica that answers."""
        if request.name:
            self._model(request.name, request.version, "name")
        chosen = [request.name] if request.name else list(self._models)
        return pb.ModelStatisticsResponse(
            model_stats=[self._statistics[name].message(name, VERSION) for name in chosen]
        )

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any = None) -> pb.ModelInferResponse:
        """Codes of pictures, or pictures of codes."""
        model = self._model(request.model_name, request.model_version, "model_name", "model_version")
        statistics, begun = self._statistics[request.model_name], time.monotonic_ns()
        try:
            check_id(request)
            deadline = self._deadline(request, context)
            wanted = read_outputs(request, model.spec.outputs)
            inputs = read_inputs(request, model.spec.inputs, model.spec.max_batch)
            read = time.monotonic_ns()
            behind = common_pb2.RequestContext(
                request_id=_request_id(context), timeout_ms=deadline.remaining_ms
            )
            outcome = await model.infer(inputs, {spec.name for spec in wanted}, behind)
            inferred = time.monotonic_ns()
            response = pb.ModelInferResponse(
                model_name=request.model_name, model_version=VERSION, id=request.id
            )
            for name, value in (model.spec.parameters | outcome.parameters).items():
                if isinstance(value, bool):
                    response.parameters[name].bool_param = value
                else:
                    response.parameters[name].string_param = value
            write_outputs(response, outcome.arrays, wanted)
        except BaseException:
            statistics.failed(time.monotonic_ns() - begun)
            raise
        pictures = len(next(iter(inputs.values())))
        statistics.succeeded(pictures, read - begun, inferred - read, time.monotonic_ns() - inferred)
        return response

    async def check_health(self) -> None:
        """Raises: Unavailable when a model cannot answer."""
        for model in self._models.values():
            await model.check_health()

    async def close(self) -> None:
        """Nothing to release: the services behind are their owners'."""

    def _model(self, name: str, version: str, field: str, version_field: str = "version") -> Model:
        if name not in self._models:
            raise ModelNotFound(f"must be {' or '.join(self._models)}", field=field)
        if version not in ("", VERSION):
            raise ModelNotFound(f"must be {VERSION}, or empty", field=version_field)
        return self._models[name]

    def _deadline(self, request: pb.ModelInferRequest, context: Any) -> Deadline:
        asked_ms = read_timeout_ms(request)
        # Ray Serve's context knows no deadline; its proxy cancels the call instead.
        remaining = getattr(context, "time_remaining", lambda: None)()
        limit_s = self._settings.request_timeout_s
        return Deadline.after(asked_ms, limit_s if remaining is None else min(limit_s, remaining))


async def _ready(model: Model) -> bool:
    try:
        await model.check_health()
    except MedMaxError:
        return False
    return True


def _request_id(context: Any) -> str:
    """Serve's own id of the request, which its caller gets back; empty elsewhere."""
    if context is None or not hasattr(context, "trailing_metadata"):
        return ""
    return str(dict(context.trailing_metadata() or ()).get("request_id", ""))[:64]


def _version() -> str:
    try:
        return version("medmax-serve")
    except PackageNotFoundError:
        return "0"
