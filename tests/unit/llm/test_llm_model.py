from __future__ import annotations

import copy

import pytest
import torch

from services.checkpoint import Checkpoint
from services.llm.kv_cache import KVCache
from services.llm.model import Chameleon
from services.llm.runner import Runner

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", ["mha", "gqa_swin"])
def test_cached_steps_equal_the_full_computation(
    shape: str, checkpoints: dict[str, Checkpoint], models: dict[str, Chameleon]
) -> None:
    model, config = models[shape], checkpoints[shape].config
    ids = torch.randint(0, config.vocab_size, (3, 40), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([7, 25, 30])
    runner, cache = Runner(copy.deepcopy(model)), KVCache(config, 4, torch.float64, CPU)
    with torch.inference_mode():
        expected = model(ids)
        hidden = runner.prefill(ids[:, :30], lengths, cache, 0)
        for step in range(8):
            positions = lengths - 1 + step
            got = hidden @ runner.head.T
            torch.testing.assert_close(got, expected[torch.arange(3), positions], rtol=1e-4, atol=1e-4)
            positions = positions + 1
            hidden = runner.step(ids[torch.arange(3), positions], positions, cache, int(positions.max()) + 1)


def test_no_position_sees_what_follows_it(checkpoint: Checkpoint, models: dict[str, Chameleon]) -> None:
    ids = torch.randint(0, checkpoint.config.vocab_size, (1, 20), generator=torch.Generator().manual_seed(2))
    other = ids.clone()
    other[0, 12:] = 5
    with torch.inference_mode():
        torch.testing.assert_close(models["mha"](ids)[0, :12], models["mha"](other)[0, :12])


@pytest.mark.parametrize("shape", ["mha", "gqa_swin"])
def test_every_parameter_learns_and_has_the_name_that_checkpoints_use(
    shape: str, checkpoints: dict[str, Checkpoint]
) -> None:
    config = checkpoints[shape].config
    model = Chameleon(config)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == config.shapes()
    ids = torch.randint(0, config.vocab_size, (2, 16))
    loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_fusing_takes_the_weights_out_of_the_model(
    checkpoint: Checkpoint, models: dict[str, Chameleon]
) -> None:
    model = copy.deepcopy(models["mha"])
    Runner(model)
    assert all(p.is_meta for layer in model.layers for p in layer.parameters())
