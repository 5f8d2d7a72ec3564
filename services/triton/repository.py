"""A Triton model repository for a checkpoint: `tokenizer` and `decoder`, each with `config.pbtxt` and `1/model.py`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from google.protobuf import text_format

from services.checkpoint import Checkpoint, open_checkpoint
from services.config import Device, Settings
from services.errors import ConfigurationError
from services.inference.specs import DIGEST, VERSION, ModelSpec
from services.pb.inference import grpc_service_pb2 as pb

HEADER = "# Written by `medmax triton`.\n"
MODEL = '''"""What Triton loads; the code is the project's own, which must be importable here."""

from services.triton.backend import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


def write(out: Path, settings: Settings, instances: int = 1, seen_as: Path | None = None) -> list[Path]:
    """Writes the repository.

    Args:
        out: a new or empty folder.
        settings: `checkpoint` and `vqgan`; `device`, `batch_size` and `batch_wait_ms` become instance groups, the
            largest batch and the longest delay of dynamic batching.
        instances: of each model; on each GPU, with `device=cuda`.
        seen_as: where Triton will find the checkpoint, if not where it is here.

    Returns:
        The models' folders.

    Raises:
        CheckpointError: the checkpoint is damaged or lacks a half of the VQ-GAN.
        ConfigurationError: `out` holds something or cannot be written; `seen_as` with a VQ-GAN file of its own.
    """
    if seen_as is not None and settings.vqgan is not None:
        raise ConfigurationError("not together with --vqgan; convert the checkpoint first", field="seen_as")
    checkpoint = open_checkpoint(settings.checkpoint, settings.vqgan)
    configs = _configs(checkpoint, settings, instances, seen_as)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigurationError("must be a new or empty folder", field="out")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            staged = Path(folder) / "repository"
            for config in configs:
                (staged / config.name / VERSION).mkdir(parents=True)
                (staged / config.name / VERSION / "model.py").write_text(MODEL)
                text = text_format.MessageToString(config)
                (staged / config.name / "config.pbtxt").write_text(HEADER + text)
            if out.exists():
                out.rmdir()
            shutil.move(staged, out)
    except OSError as error:
        raise ConfigurationError(f"cannot be written: {error.strerror}", field="out") from None
    return [out / config.name for config in configs]


def _configs(
    checkpoint: Checkpoint, settings: Settings, instances: int, seen_as: Path | None
) -> list[pb.ModelConfig]:
    parameters = {
        "checkpoint": str(seen_as or settings.checkpoint.resolve()),
        "model_id": settings.model_id,
        "batch_size": str(settings.batch_size),
        DIGEST: checkpoint.digest,
    }
    if settings.vqgan is not None:
        parameters["vqgan"] = str(settings.vqgan.resolve())
    on_gpu = settings.device is Device.CUDA
    group = pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU
    configs = []
    for make in (ModelSpec.tokenizer, ModelSpec.decoder):
        config = make(checkpoint.vq_config, settings.batch_size, **parameters).config()
        config.backend = "python"
        config.parameters["service"].string_value = config.name
        config.instance_group.add(kind=group, count=instances)
        config.dynamic_batching.max_queue_delay_microseconds = int(settings.batch_wait_ms * 1000)
        configs.append(config)
    return configs
