"""Adapters over a runner's projections: y = x @ W + scaling · (x @ A) @ B, each for the tokens that run under it.

Adapters in use are taken one after another. On a CPU that beat one product with all of them side by side and a mask, whose
cost grows with every adapter that is loaded, and products with matrices gathered for each token (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.checkpoint.adapter import Adapter
from services.checkpoint.config import ModelConfig
from services.checkpoint.sharding import bounds
from services.errors import CheckpointError
from services.llm.group import Group
from services.llm.step import Share

# The runner's products and the weights that it has put side by side in each.
PRODUCTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}

Added = Callable[[str, Tensor, Tensor], Tensor]
"""(product, x [N, in], y [N, out]) → y with what the step's adapters add to that product of one layer; overwrites y."""


def nothing(product: str, x: Tensor, y: Tensor) -> Tensor:
    """`Added` of a step without adapters."""
    return y


@dataclass(frozen=True)
class LowRank:
    """One adapter's part of one product: a [in, r], b [r, out] with the scaling within.

    Of several weights side by side, each has its own `rank` columns of a, and b is zero between them.
    """

    a: Tensor
    b: Tensor

    def add(self, x: Tensor, y: Tensor, tokens: Tensor | None) -> None:
        if tokens is None:
            y.addmm_(x @ self.a, self.b)
        else:
            y.index_add_(0, tokens, (x[tokens] @ self.a) @ self.b)


class Adapters:
    """Every adapter that a runner may be asked for, as far as this rank needs it; read when made.

    Attributes:
        layers: for each layer and product, what each adapter does to it; None where nothing. Empty without adapters.
    """

    def __init__(
        self,
        adapters: Sequence[Adapter],
        config: ModelConfig,
        group: Group,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Raises: CheckpointError: a value is too large for `dtype`."""
        self.layers: list[Mapping[str, Sequence[LowRank | None]]] = []
        for layer in range(config.num_hidden_layers if adapters else 0):
            products: dict[str, list[LowRank | None]] = {}
            for product, weights in PRODUCTS.items():
                names = [f"model.layers.{layer}.{weight}.weight" for weight in weights]
                products[product] = [_low_rank(one, config, names, group, dtype, device) for one in adapters]
            self.layers.append(products)

    def __bool__(self) -> bool:
        return bool(self.layers)

    def at(self, layer: int, shares: Sequence[Share]) -> Added:
        """What the adapters of a step add in one layer."""
        if not shares:
            return nothing
        products = self.layers[layer]

        def added(product: str, x: Tensor, y: Tensor) -> Tensor:
            for share in shares:
                if (change := products[product][share.adapter]) is not None:
                    change.add(x, y, share.tokens)
            return y

        return added


def _low_rank(
    adapter: Adapter,
    config: ModelConfig,
    names: Sequence[str],
    group: Group,
    dtype: torch.dtype,
    device: torch.device,
) -> LowRank | None:
    """None where the adapter changes none of the weights `names`."""
    shapes, rank = config.shapes(), adapter.rank
    downs: list[Tensor] = []
    ups: list[tuple[int, Tensor]] = []
    width = 0
    for name in names:
        axis, start, stop = bounds(config, name, group.rank, group.size)
        if name in adapter.pairs:
            a, b = adapter.part(config, name, group.rank, group.size)
            # In float64, so that what is rounded is rounded once.
            downs.append(a.t().double())
            ups.append((width, b.t().double() * adapter.scaling))
        width += shapes[name][0] if axis else stop - start
    if not downs:
        return None
    whole = torch.zeros(len(ups) * rank, width, dtype=torch.float64)
    for index, (first, up) in enumerate(ups):
        whole[index * rank : (index + 1) * rank, first : first + up.shape[1]] = up
    made = LowRank(torch.cat(downs, 1).to(device, dtype).contiguous(), whole.to(device, dtype).contiguous())
    if not all(bool(torch.isfinite(part).all()) for part in (made.a, made.b)):
        raise CheckpointError(f"the adapter holds values too large for {dtype}", field=names[0])
    return made
