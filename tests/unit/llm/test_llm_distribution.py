"""Image codes are drawn from the stated distribution: guided logits, temperature, nucleus (chi-square at fixed seeds)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from services.checkpoint import Checkpoint
from services.config import Settings
from services.llm.engine import Engine
from services.llm.model import Chameleon
from services.llm.request import GenerationRequest, OutputMode, SamplingRequest
from services.llm.sequence import guidance_weights
from services.llm.validation import resolve
from tests.support.tiny import N_CODES
from tests.unit.llm.test_llm_equivalence import prompt

DRAWS = 2000
SETTINGS = [
    SamplingRequest(image_temperature=1, image_top_p=1, guidance_text=1, guidance_image=1),
    SamplingRequest(image_temperature=1.5, image_top_p=1, guidance_text=3, guidance_image=1.2),
    SamplingRequest(image_temperature=2, image_top_p=0.8, guidance_text=2, guidance_image=0),
]


def stated(
    checkpoint: Checkpoint, model: Chameleon, request: GenerationRequest, codes: list[int]
) -> NDArray[np.float64]:
    """Probabilities [codes] of the code after `codes`, computed from the formulas alone."""
    v, asked = checkpoint.vocabulary, request.sampling
    full = [*request.prompt_ids, v.begin_image]
    kept = {v.bos, v.begin_image, v.end_image, *v.code_ids.tolist()}
    streams = [full, [i for i in full if i in kept], [v.bos, v.begin_image]]
    drawn = [int(v.code_ids[code]) for code in codes]
    with torch.inference_mode():
        full_, image, none = (
            model(torch.tensor([stream + drawn]))[0, -1, torch.from_numpy(v.code_ids)].numpy()
            for stream in streams
        )
    logits = none + asked.guidance_image * (image - none) + asked.guidance_text * (full_ - image)
    p = np.exp((logits - logits.max()) / asked.image_temperature)
    p /= p.sum()
    order = np.argsort(-p)
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= asked.image_top_p]] = 0
    return p / p.sum()


def fits(counts: NDArray[np.int64], p: NDArray[np.float64]) -> bool:
    """Whether counts may come from probabilities `p`; outcomes too rare for the test count together."""
    expected = p * counts.sum()
    assert not counts[p == 0].any()
    common = expected >= 5
    observed, wanted = counts[common].tolist(), expected[common].tolist()
    if (~common & (p > 0)).any():
        observed.append(counts[~common].sum())
        wanted.append(expected[~common].sum())
    return bool(stats.chisquare(observed, wanted).pvalue > 1e-4)


@pytest.fixture(scope="module", params=[1, 4], ids=["one at a time", "drafted"])
def drawing(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[Engine]:
    """An engine that draws codes one by one, and one that settles up to four in a step."""
    engine = Engine(checkpoint, Settings(threads=1, speculative_codes=request.param), dtype=torch.float64)
    yield engine
    engine.check_integrity()
    assert (engine.stats().drafts_kept > 0) == (request.param > 1)
    engine.close()


@pytest.mark.parametrize("sampling", SETTINGS, ids=["plain", "guided", "nucleus"])
@pytest.mark.parametrize("pictures", [0, 1])
def test_codes_follow_the_stated_distribution(
    sampling: SamplingRequest,
    pictures: int,
    drawing: Engine,
    checkpoint: Checkpoint,
    models: dict[str, Chameleon],
) -> None:
    ids = prompt(checkpoint, 4, 3, pictures)
    request = GenerationRequest(ids, OutputMode.IMAGE, sampling=sampling)
    weights = guidance_weights(resolve(request, drawing._limits).sampling, pictures > 0)
    assert sum(weights) == pytest.approx(1)
    asked = [
        GenerationRequest(
            ids,
            OutputMode.IMAGE,
            sampling=SamplingRequest(
                image_temperature=sampling.image_temperature,
                image_top_p=sampling.image_top_p,
                guidance_text=sampling.guidance_text,
                guidance_image=sampling.guidance_image,
                seed=seed,
            ),
        )
        for seed in range(DRAWS)
    ]
    codes = np.array([answer.pictures[0].codes for answer in drawing.generate_batch(asked)])
    first = stated(checkpoint, models["mha"], request, [])
    assert fits(np.bincount(codes[:, 0], minlength=N_CODES), first)
    for_each = {code: stated(checkpoint, models["mha"], request, [code]) for code in np.flatnonzero(first)}
    second = sum(first[code] * p for code, p in for_each.items())
    assert fits(np.bincount(codes[:, 1], minlength=N_CODES), second)
    # And the third, given the likeliest two before it: there drafts have been kept and thrown away.
    a = int(np.bincount(codes[:, 0]).argmax())
    b = int(np.bincount(codes[codes[:, 0] == a, 1]).argmax())
    after = codes[(codes[:, 0] == a) & (codes[:, 1] == b), 2]
    third = stated(checkpoint, models["mha"], request, [a, b])
    assert fits(np.bincount(after, minlength=N_CODES), third)


def test_the_chi_square_notices_another_distribution() -> None:
    random = np.random.default_rng(0)
    p = np.arange(1, 9) / 36
    counts = np.bincount(random.choice(8, DRAWS, p=p), minlength=8)
    assert fits(counts, p)
    assert not fits(counts, np.full(8, 1 / 8))
