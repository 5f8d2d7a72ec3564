"""Pictures from bytes and files, and feature vectors of pictures from a given extractor."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.errors import ConfigurationError

MAX_PIXELS = 64_000_000
EXTRACTOR_SIZE = 299  # pixels; what Inception reads


def picture(source: bytes | Path) -> Image.Image:
    """A picture as RGB, transparent parts on white. Raises: ValueError where it is none or too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError(f"more than {MAX_PIXELS:,} pixels")
                if "A" in opened.getbands() or "transparency" in opened.info:
                    layer = opened.convert("RGBA")
                    ground = Image.new("RGBA", layer.size, "white")
                    return Image.alpha_composite(ground, layer).convert("RGB")
                return opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no picture: {error}") from None


class Features:
    """Feature vectors by a TorchScript file or a callable `module:function`.

    The TorchScript module maps float32 [n, 3, 299, 299] in 0…1 to [n, d]; the callable maps a list of RGB pictures (PIL) to
    an array [n, d].
    """

    def __init__(self, source: str | None) -> None:
        self._source = source
        self._call: Callable[[list[Image.Image]], Any] | None = None

    def missing(self) -> str | None:
        if self._source is None:
            return "no feature extractor was given (--features)"
        try:
            self._load()
        except ConfigurationError as error:
            return str(error)
        return None

    def _load(self) -> Callable[[list[Image.Image]], Any]:
        if self._call is None:
            source = self._source or ""
            if Path(source).is_file():
                self._call = _torchscript(Path(source))
            elif ":" in source:
                module, _, name = source.partition(":")
                try:
                    self._call = getattr(importlib.import_module(module), name)
                except (ImportError, AttributeError) as error:
                    raise ConfigurationError(f"--features {source} cannot be imported: {error}") from None
            else:
                raise ConfigurationError(f"--features {source} is neither a file nor module:function")
        return self._call

    def of(self, files: Sequence[Path], batch: int = 16) -> NDArray[np.float64]:
        """float64 [n, d]. Raises: ConfigurationError where the extractor gives something else."""
        call = self._load()
        rows = []
        for start in range(0, len(files), batch):
            chunk = [picture(file) for file in files[start : start + batch]]
            value = np.asarray(call(chunk), dtype=np.float64)
            if value.ndim != 2 or len(value) != len(chunk) or not np.isfinite(value).all():
                raise ConfigurationError(
                    f"--features gave {list(value.shape)} for {len(chunk)} pictures, not [n, d]"
                )
            rows.append(value)
        return np.concatenate(rows)


def _torchscript(path: Path) -> Callable[[list[Image.Image]], Any]:
    import torch

    try:
        load: Any = torch.jit.load
        module = load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"--features {path.name} is no TorchScript file: {str(error)[:200]}"
        ) from None

    def call(pictures: list[Image.Image]) -> Any:
        size = (EXTRACTOR_SIZE, EXTRACTOR_SIZE)
        arrays = [
            np.asarray(one.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255 for one in pictures
        ]
        with torch.inference_mode():
            return module(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)).float().numpy()

    return call
