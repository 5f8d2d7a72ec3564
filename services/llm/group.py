"""The ranks that share one model, and what they say to each other."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, distributed


class Group(ABC):
    """A tensor-parallel group as one of its ranks sees it. All ranks make the same calls in the same order."""

    rank: int
    size: int

    @abstractmethod
    def sum(self, part: Tensor) -> Tensor:
        """The sum of every rank's tensor, on every rank; may overwrite `part`."""

    @abstractmethod
    def share(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, on every rank; overwrites the others'."""


class Alone(Group):
    """One process holds the whole model."""

    rank, size = 0, 1

    def sum(self, part: Tensor) -> Tensor:
        return part

    def share(self, tensor: Tensor) -> Tensor:
        return tensor


class TorchGroup(Group):
    """Over `torch.distributed`, whose default process group must be up: NCCL between GPUs, Gloo on a CPU."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def sum(self, part: Tensor) -> Tensor:
        part = part.contiguous()
        distributed.all_reduce(part)
        return part

    def share(self, tensor: Tensor) -> Tensor:
        distributed.broadcast(tensor, 0)
        return tensor


def joined(group: Group, part: Tensor, places: Tensor, width: int) -> Tensor:
    """[rows, width] put together from each rank's columns.

    Args:
        part: [rows, n], this rank's columns.
        places: int64 [n], where they go; every place belongs to one rank.
    """
    if group.size == 1:
        return part
    whole = torch.zeros(len(part), width, dtype=part.dtype, device=part.device)
    whole[:, places] = part
    return group.sum(whole)
