"""Blocks of the VQ-GAN. Attribute names are those of the published checkpoints."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups, or as many as divide the channels evenly."""
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut: [B, in, H, W] → [B, out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        result: Tensor = h + (x if self.nin_shortcut is None else self.nin_shortcut(x))
        return result


class AttnBlock(nn.Module):
    """Self-attention of one head over all positions: [B, C, H, W] → same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        result: Tensor = x + self.proj_out(mixed.transpose(1, 2).reshape(batch, channels, height, width))
        return result


class Downsample(nn.Module):
    """Halves the side; the odd row and column of padding go to the right and the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class Upsample(nn.Module):
    """Doubles the side by nearest neighbour, then smooths with a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class Middle(nn.Module):
    """The bottleneck: block, attention, block."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, dropout)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return result


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention where `attention` says so, then a change of side."""

    def __init__(
        self,
        channels: list[tuple[int, int]],
        attention: bool,
        dropout: float,
        *,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        last = channels[-1][1]
        self.block = nn.ModuleList(ResnetBlock(before, after, dropout) for before, after in channels)
        self.attn = nn.ModuleList(AttnBlock(after) for _, after in channels if attention)
        self.downsample = Downsample(last) if downsample else None
        self.upsample = Upsample(last) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        for resample in (self.downsample, self.upsample):
            if resample is not None:
                x = resample(x)
        return x


class Codebook(nn.Module):
    """`n_embed` vectors of `embed_dim` numbers in `embedding.weight`."""

    def __init__(self, n_embed: int, embed_dim: int) -> None:
        super().__init__()
        weight = torch.empty(n_embed, embed_dim)
        # On the meta device, where a checkpoint's weights follow, initialising would import torch's compiler: 2 s.
        if not weight.is_meta:
            nn.init.normal_(weight)
        self.embedding = nn.Embedding(n_embed, embed_dim, _weight=weight)

    def nearest(self, z: Tensor) -> Tensor:
        """Code of the nearest vector by squared distance: [B, D, H, W] → int64 [B, H·W], row by row."""
        flat = z.flatten(2).transpose(1, 2)
        weight = self.embedding.weight
        distance = flat.square().sum(-1, keepdim=True) + weight.square().sum(-1) - 2 * flat @ weight.T
        return torch.argmin(distance, dim=-1)

    def lookup(self, codes: Tensor, rows: int, columns: int) -> Tensor:
        """int64 [B, rows·columns] → [B, D, rows, columns]."""
        vectors: Tensor = self.embedding(codes)
        return vectors.transpose(1, 2).reshape(codes.shape[0], -1, rows, columns)
