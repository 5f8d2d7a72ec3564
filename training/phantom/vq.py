"""Training of the VQ-GAN: reconstruction with weight on findings, codebook by moving averages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from services.vqgan import VQGAN
from training.phantom.pictures import Pictures
from training.phantom.recipe import Recipe
from training.phantom.state import load_state, save_state
from training.schedule import rate_at

_DECAY = 0.99
_COMMITMENT = 0.25
_EDGES = 0.7
_RESET_EVERY = 25
_SAVE_EVERY = 100


class MovingCodebook:
    """Codebook entries as moving averages of the latents that chose them; unused ones are moved to latents.

    Mutates `weight` [codes, dim] in place.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.size = torch.ones(len(weight))
        self.total = weight.detach().clone()

    def state(self) -> dict[str, Tensor]:
        return {"size": self.size, "total": self.total}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.size, self.total = state["size"], state["total"]

    @torch.no_grad()
    def start(self, latents: Tensor, rng: torch.Generator) -> None:
        """Entries by a few rounds of k-means over latents [n, dim]."""
        count = len(self.weight)
        centres = latents[torch.randperm(len(latents), generator=rng)[:count]].clone()
        for _ in range(12):
            nearest = torch.cdist(latents, centres).argmin(1)
            sums = torch.zeros_like(centres).index_add_(0, nearest, latents)
            sizes = torch.bincount(nearest, minlength=count).float()
            empty = sizes == 0
            centres = torch.where(empty[:, None], centres, sums / sizes.clamp(min=1)[:, None])
            lost = int(empty.sum())
            if lost:
                centres[empty] = latents[torch.randperm(len(latents), generator=rng)[:lost]]
        self.weight.copy_(centres)
        self.size.fill_(1.0)
        self.total = centres.clone()

    @torch.no_grad()
    def update(self, latents: Tensor, codes: Tensor) -> None:
        """One step of the averages with latents [n, dim] and the codes [n] they chose."""
        counts = torch.bincount(codes, minlength=len(self.weight)).float()
        sums = torch.zeros_like(self.total).index_add_(0, codes, latents)
        self.size.mul_(_DECAY).add_(counts, alpha=1 - _DECAY)
        self.total.mul_(_DECAY).add_(sums, alpha=1 - _DECAY)
        self.weight.copy_(self.total / self.size.clamp(min=1e-3)[:, None])

    @torch.no_grad()
    def revive(self, latents: Tensor, rng: torch.Generator, below: float) -> int:
        """Entries chosen fewer than `below` times a step move onto random latents; returns how many."""
        dead = (self.size < below).nonzero().flatten()
        chosen = latents[torch.randint(len(latents), (len(dead),), generator=rng)]
        self.weight[dead], self.total[dead], self.size[dead] = chosen, chosen.clone(), 1.0
        return len(dead)


def tensor_of(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, H, W, 3] → float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def loss_of(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error and error of neighbour differences, weighted per pixel by [B, 1, H, W]."""
    flat = (weight * (output - target).abs()).mean()
    error = output - target
    down = (weight[:, :, 1:] * error.diff(dim=2).abs()).mean()
    across = (weight[:, :, :, 1:] * error.diff(dim=3).abs()).mean()
    return flat + _EDGES * (down + across)


def train(
    recipe: Recipe,
    data: Pictures,
    folder: Path,
    progress: Callable[[int, int, dict[str, float]], None],
) -> VQGAN:
    """Train, or go on from `folder`'s last save. `progress` gets step, steps and figures."""
    torch.manual_seed(recipe.seed)
    model = VQGAN(recipe.vq_config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    codebook_weight = model.quantize.embedding.weight
    codebook_weight.requires_grad_(False)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=recipe.vq_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    codebook = MovingCodebook(codebook_weight)
    path, step = folder / "vq.pt", 0
    if (saved := load_state(path, recipe.vq_part)) is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        codebook.restore(saved["codebook"])
        step = saved["step"]
    rng = torch.Generator().manual_seed(recipe.seed + step)
    order = np.random.default_rng([recipe.seed, 11])
    picks = order.integers(len(data.pictures), size=(recipe.vq_steps, recipe.vq_batch))
    while step < recipe.vq_steps:
        chosen = np.sort(picks[step])
        target = tensor_of(data.pictures[chosen]).to(memory_format=torch.channels_last)
        weight = 1 + recipe.finding_weight * torch.from_numpy(data.masks[chosen]).float().unsqueeze(1)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe.vq_steps, recipe.vq_rate, 100)
        figures = _step(model, codebook, optimizer, learned, target, weight, step, recipe, rng)
        step += 1
        progress(step, recipe.vq_steps, figures)
        if step % _SAVE_EVERY == 0 or step == recipe.vq_steps:
            state: dict[str, Any] = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "codebook": codebook.state(),
                "step": step,
            }
            save_state(path, recipe.vq_part, state)
    return model.eval().requires_grad_(False)


def _step(
    model: VQGAN,
    codebook: MovingCodebook,
    optimizer: torch.optim.Optimizer,
    learned: list[torch.nn.Parameter],
    target: Tensor,
    weight: Tensor,
    step: int,
    recipe: Recipe,
    rng: torch.Generator,
) -> dict[str, float]:
    latents = model.latents(target)
    flat = latents.detach().permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).contiguous()
    if step < recipe.vq_unquantized_steps:
        quantized, commitment = latents, latents.square().mean() * 0.01
    else:
        if step == recipe.vq_unquantized_steps:
            codebook.start(flat, rng)
        codes = torch.cdist(flat, codebook.weight).argmin(1)
        codebook.update(flat, codes)
        near = model.quantize.lookup(codes.view(len(target), -1), *latents.shape[2:])
        commitment = functional.mse_loss(latents, near.detach())
        quantized = latents + (near - latents).detach()
        if step % _RESET_EVERY == 0 and step < 0.75 * recipe.vq_steps:
            codebook.revive(flat, rng, below=0.1)
    reconstruction = loss_of(model.pixels(quantized), target, weight)
    loss = reconstruction + _COMMITMENT * commitment
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learned, 1.0)
    optimizer.step()
    used = float((codebook.size > 0.05).float().mean())
    return {"loss": reconstruction.item(), "commitment": commitment.item(), "codes used": used}


@torch.inference_mode()
def encode_all(
    model: VQGAN,
    pictures: NDArray[np.uint8],
    progress: Callable[[int, int], None] = lambda done, total: None,
    batch: int = 64,
) -> NDArray[np.int16]:
    """Codes of pictures uint8 [N, S, S, 3]: int16 [N, cells]. `progress` gets pictures done and all."""
    parts = []
    for index in range(0, len(pictures), batch):
        pixels = tensor_of(pictures[index : index + batch]).to(memory_format=torch.channels_last)
        parts.append(model.encode(pixels).to(torch.int16))
        progress(min(index + batch, len(pictures)), len(pictures))
    codes: NDArray[np.int16] = torch.cat(parts).numpy()
    return codes


@torch.inference_mode()
def reconstruct(model: VQGAN, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures through the codes and back, uint8 [N, S, S, 3]."""
    output = model.decode(model.encode(tensor_of(pictures)))
    result: NDArray[np.uint8] = (
        output.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )
    return result
