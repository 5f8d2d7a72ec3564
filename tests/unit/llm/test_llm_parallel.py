"""One model shared by several processes gives the answers of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from services.checkpoint import Checkpoint
from services.errors import ConfigurationError
from services.llm.engine import Engine
from services.llm.model import Chameleon
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest
from tests.support import naive_llm
from tests.unit.llm.conftest import shared
from tests.unit.llm.test_llm_equivalence import assert_same, build, mixes, prompt


@pytest.fixture(scope="module", params=[("mha", 2), ("gqa_swin", 4)], ids=["mha-2", "gqa_swin-4"])
def team(
    request: pytest.FixtureRequest,
    checkpoints: dict[str, Checkpoint],
    adapters: dict[str, dict[str, Path]],
) -> Iterator[tuple[str, Engine]]:
    """Four ranks of a model with two key heads: two ranks each keep the same one."""
    shape, size = request.param
    with shared(checkpoints[shape], size, adapters=adapters[shape]) as engine:
        yield shape, engine


@given(mix=mixes(1, 6))
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_mix_answers_as_one_process_would(
    mix: list[dict[str, object]],
    team: tuple[str, Engine],
    checkpoints: dict[str, Checkpoint],
    references: dict[tuple[str, str], Chameleon],
) -> None:
    shape, engine = team
    checkpoint = checkpoints[shape]
    asked = [build(checkpoint, arguments) for arguments in mix]
    answers = engine.generate_batch(asked)
    for request, got in zip(asked, answers, strict=True):
        expected = naive_llm.answer(checkpoint, references[shape, request.adapter], request)
        assert_same(checkpoint, got, expected, len(request.prompt_ids))
    engine.check_integrity()


def test_seeds_give_the_same_answers_as_in_one_process(
    team: tuple[str, Engine], engines: dict[str, Engine], checkpoints: dict[str, Checkpoint]
) -> None:
    shape, engine = team
    asked = [
        GenerationRequest(
            prompt(checkpoints[shape], seed, 5, seed % 2), mode, 40, sampling=SamplingRequest(seed=seed)
        )
        for seed in range(3)
        for mode in OutputMode
    ]
    together, alone = engine.generate_batch(asked), engines[shape].generate_batch(asked)
    assert [(a.text, [p.codes for p in a.pictures]) for a in together] == [
        (a.text, [p.codes for p in a.pictures]) for a in alone
    ]


def test_a_process_shares_one_engine_at_most(team: tuple[str, Engine], checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigurationError) as caught, shared(checkpoint, 2):
        pass
    assert caught.value.field == "MEDMAX_TENSOR_PARALLEL"
