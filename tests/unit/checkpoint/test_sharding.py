from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.checkpoint import Checkpoint, open_checkpoint
from services.checkpoint.convert import convert
from services.checkpoint.sharding import bounds
from services.checkpoint.stored import StoredTensor, contiguous
from services.errors import CheckpointError
from tests.support.golden import NAMES, Golden


@pytest.fixture(params=NAMES)
def meta_checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return open_checkpoint(Golden(request.param).checkpoint)


@pytest.fixture(params=["meta", "own"])
def checkpoint(request: pytest.FixtureRequest, meta_checkpoint: Checkpoint, tmp_path: Path) -> Checkpoint:
    return meta_checkpoint if request.param == "meta" else convert(meta_checkpoint, tmp_path / "own")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_ranks_parts_make_up_the_whole(checkpoint: Checkpoint, size: int) -> None:
    ranks = [dict(checkpoint.slices(rank, size)) for rank in range(size)]
    for name, whole in checkpoint.tensors():
        axis, start, stop = bounds(checkpoint.config, name, 0, size)
        parts = [rank[name] for rank in ranks]
        if stop - start == whole.shape[axis]:
            assert all(torch.equal(part, whole) for part in parts)
        elif (stop - start) * size == whole.shape[axis]:
            assert torch.equal(torch.cat(parts, axis), whole), name
        else:  # fewer key heads than ranks: neighbours share one
            assert size > checkpoint.config.num_key_value_heads
            assert torch.equal(torch.cat(parts[::2], axis), whole), name
            assert torch.equal(parts[0], parts[1])


def test_a_rank_computes_its_share_of_a_layer(checkpoint: Checkpoint) -> None:
    """Sums over ranks of o(v(x)) and down(up(x)) are the whole layer's."""
    x = torch.randn(5, checkpoint.config.hidden_size)
    repeat = checkpoint.config.num_attention_heads // checkpoint.config.num_key_value_heads

    def share(rank: int, size: int) -> torch.Tensor:
        def part(name: str) -> torch.Tensor:
            return checkpoint.slice(f"model.layers.1.{name}.weight", rank, size).float()

        v = (x @ part("self_attn.v_proj").T).unflatten(1, (-1, checkpoint.config.head_dim))
        attended = v.repeat_interleave(repeat, 1).flatten(1) @ part("self_attn.o_proj").T
        return attended + (x @ part("mlp.up_proj").T) @ part("mlp.down_proj").T

    torch.testing.assert_close(share(0, 2) + share(1, 2), share(0, 1))


@pytest.mark.parametrize("size", [3, 8])
def test_ranks_that_do_not_divide_the_heads_are_refused(meta_checkpoint: Checkpoint, size: int) -> None:
    with pytest.raises(CheckpointError, match=f"cannot be shared by {size} ranks"):
        meta_checkpoint.slice("model.norm.weight", 0, size)


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_of_a_stored_tensor_are_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axis: int
) -> None:
    monkeypatch.setattr("services.checkpoint.stored.BLOCK_BYTES", 64)
    whole = torch.arange(7 * 5, dtype=torch.float32).view(7, 5)
    file = tmp_path / "raw"
    file.write_bytes(b"head" + whole.numpy().tobytes())
    stored = StoredTensor(file, 4, whole.dtype, (7, 5), contiguous((7, 5)))
    assert torch.equal(stored.read(axis, 1, 4), whole.narrow(axis, 1, 3))
    turned = StoredTensor(file, 4, whole.dtype, (5, 7), (1, 5))
    assert torch.equal(turned.read(axis, 1, 4), whole.T.narrow(axis, 1, 3))
    assert torch.equal(turned.read(), whole.T)
