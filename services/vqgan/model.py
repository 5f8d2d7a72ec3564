"""Encoder, quantizer and decoder of a VQ-GAN as Chameleon uses it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from services.vqgan.config import VQConfig
from services.vqgan.layers import Codebook, Level, Middle, group_norm


class Encoder(nn.Module):
    """Pixels [B, 3, S, S] → latents [B, z_channels, rows, columns]."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        before, side = config.ch, config.resolution
        for index, multiple in enumerate(config.ch_mult):
            after = config.ch * multiple
            channels = [(before, after)] + [(after, after)] * (config.num_res_blocks - 1)
            lowest = index == len(config.ch_mult) - 1
            attention = side in config.attn_resolutions
            self.down.append(Level(channels, attention, config.dropout, downsample=not lowest))
            before, side = after, side // 2
        self.mid = Middle(before, config.dropout)
        self.norm_out = group_norm(before)
        self.conv_out = nn.Conv2d(before, config.z_channels * (2 if config.double_z else 1), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        result: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return result


class Decoder(nn.Module):
    """Latents [B, z_channels, rows, columns] → pixels [B, 3, S, S], not yet clamped."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        before = config.ch * config.ch_mult[-1]
        side = config.grid[0]
        self.conv_in = nn.Conv2d(config.z_channels, before, 3, padding=1)
        self.mid = Middle(before, config.dropout)
        levels: list[Level] = []
        for index in reversed(range(len(config.ch_mult))):
            after = config.ch * config.ch_mult[index]
            channels = [(before, after)] + [(after, after)] * config.num_res_blocks
            attention = side in config.attn_resolutions
            levels.insert(0, Level(channels, attention, config.dropout, upsample=index > 0))
            before, side = after, side * 2
        self.up = nn.ModuleList(levels)
        self.norm_out = group_norm(before)
        self.conv_out = nn.Conv2d(before, config.out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        result: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return result


class VQGAN(nn.Module):
    """Pictures to codes and back; leave one half out to save its memory.

    Parameter names are those of the published checkpoints.
    """

    def __init__(self, config: VQConfig, *, encoder: bool = True, decoder: bool = True) -> None:
        super().__init__()
        self.config = config
        self.quantize = Codebook(config.n_embed, config.embed_dim)
        self.encoder = Encoder(config) if encoder else None
        self.decoder = Decoder(config) if decoder else None
        z = config.z_channels * (2 if config.double_z else 1)
        self.quant_conv = nn.Conv2d(z, config.embed_dim, 1) if encoder else None
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1) if decoder else None

    @property
    def dtype(self) -> torch.dtype:
        return self.quantize.embedding.weight.dtype

    def latents(self, pixels: Tensor) -> Tensor:
        """Float [B, 3, H, W] in [-1, 1] → latents [B, embed_dim, rows, columns] before quantization."""
        if self.encoder is None or self.quant_conv is None:
            raise ValueError("this VQ-GAN was loaded without its encoder")
        result: Tensor = self.quant_conv(self.encoder(pixels))
        return result

    def pixels(self, quantized: Tensor) -> Tensor:
        """Quantized latents [B, embed_dim, rows, columns] → pixels [B, 3, H, W], not clamped."""
        if self.decoder is None or self.post_quant_conv is None:
            raise ValueError("this VQ-GAN was loaded without its decoder")
        result: Tensor = self.decoder(self.post_quant_conv(quantized))
        return result

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Float32 [B, 3, resolution, resolution] in [-1, 1] → int64 codes [B, rows·columns]."""
        return self.quantize.nearest(self.latents(pixels.to(self.dtype)))

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """int64 codes [B, rows·columns] → float32 [B, 3, resolution, resolution] in [-1, 1].

        Raises:
            ValueError: a code is outside the codebook, or the number of codes does not fit the grid.
        """
        if codes.ndim != 2 or codes.shape[1] != self.config.n_codes_per_image:
            raise ValueError(f"a picture has {self.config.n_codes_per_image} codes; got {tuple(codes.shape)}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.config.n_embed:
            raise ValueError(f"codes lie in 0…{self.config.n_embed - 1}")
        return self.pixels(self.quantize.lookup(codes, *self.config.grid)).float().clamp(-1, 1)
