"""Shape of a VQ-GAN, in the terms of the published `vqgan.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from services.errors import CheckpointError

_OUTER = ("embed_dim", "n_embed")


@dataclass(frozen=True)
class VQConfig:
    """Hyper-parameters of encoder, codebook and decoder.

    `ch` channels at full resolution, times `ch_mult[i]` at level i; each level after the first halves
    the side. `resolution` is the side of a picture in pixels, `attn_resolutions` the sides at which
    every block is followed by attention. The codebook has `n_embed` codes of `embed_dim` numbers.
    """

    resolution: int
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    z_channels: int
    embed_dim: int
    n_embed: int
    attn_resolutions: tuple[int, ...] = ()
    in_channels: int = 3
    out_ch: int = 3
    dropout: float = 0.0
    double_z: bool = False

    @property
    def reduction(self) -> int:
        """Pixels per code along a side."""
        return int(2 ** (len(self.ch_mult) - 1))

    @property
    def grid(self) -> tuple[int, int]:
        """Codes of one picture as (rows, columns)."""
        side = self.resolution // self.reduction
        return side, side

    @property
    def n_codes_per_image(self) -> int:
        rows, columns = self.grid
        return rows * columns

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VQConfig:
        """From `{"embed_dim", "n_embed", "ddconfig": {…}}`, which is `model.params` of the published yaml.

        Raises:
            CheckpointError: a field is missing or has an impossible value.
        """
        try:
            fields = {**data["ddconfig"], **{name: data[name] for name in _OUTER}}
            known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
            for name in ("ch_mult", "attn_resolutions"):
                if name in known:
                    known[name] = tuple(int(value) for value in known[name])
            config = cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the VQ-GAN's configuration is incomplete or damaged: {error!r}") from None
        if config.resolution % config.reduction or min(config.ch, config.n_embed, config.embed_dim) < 1:
            raise CheckpointError("the VQ-GAN's configuration has impossible sizes")
        return config

    def to_json(self) -> dict[str, Any]:
        """The form that `from_json` reads."""
        fields = asdict(self)
        outer = {name: fields.pop(name) for name in _OUTER}
        return {**outer, "ddconfig": fields}
