from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from services.llm import cpu
from services.llm.sampler import FORBIDDEN, Draw, assess, penalise, sample, truncated

CPU = torch.device("cpu")


def expected_distribution(logits: np.ndarray, temperature: float, top_p: float, top_k: int) -> np.ndarray:
    """By the definition, one choice at a time: temperature, then the k likeliest, then the nucleus."""
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept = order[: top_k or len(p)]
    total, nucleus, gathered = p[kept].sum(), [], 0.0
    for choice in kept:
        if gathered >= top_p * total:
            break
        nucleus.append(choice)
        gathered += p[choice]
    out = np.zeros_like(p)
    out[nucleus] = p[nucleus] / p[nucleus].sum()
    return out


def draws(logits: np.ndarray, setting: tuple[float, float, int], uniform: np.ndarray) -> np.ndarray:
    rows = torch.tensor(logits, dtype=torch.float32).repeat(len(uniform), 1)
    draw = Draw.of([setting] * len(uniform), CPU)
    return sample(rows, draw, torch.from_numpy(uniform)).numpy()


@pytest.mark.parametrize(
    "setting", [(1.0, 1.0, 0), (0.7, 1.0, 0), (1.5, 0.9, 0), (1.0, 1.0, 5), (0.8, 0.8, 7), (2.0, 0.5, 3)]
)
def test_draws_follow_the_distribution(setting: tuple[float, float, int]) -> None:
    logits = np.random.default_rng(1).normal(0, 2, 24)
    expected = expected_distribution(logits, *setting)
    counts = np.bincount(draws(logits, setting, np.random.default_rng(2).random(20_000)), minlength=24)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(expected))
    likely = expected > 1e-3
    scaled = expected[likely] / expected[likely].sum() * counts[likely].sum()
    assert stats.chisquare(counts[likely], scaled).pvalue > 1e-4


@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=20),
    temperature=st.floats(1e-300, 2),
    top_p=st.floats(1e-12, 1),
    top_k=st.integers(0, 25),
    uniform=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=50, deadline=None)
def test_a_draw_is_always_among_the_kept_choices(
    logits: list[float], temperature: float, top_p: float, top_k: int, uniform: float
) -> None:
    logits[0] = FORBIDDEN
    values = np.array(logits)
    chosen = draws(values, (temperature, top_p, top_k), np.array([uniform]))[0]
    assert chosen != 0
    if top_k:
        assert (values > values[chosen]).sum() < top_k


@pytest.mark.parametrize("uniform", [0.0, 0.5, np.nextafter(1, 0)])
def test_the_edges_of_the_uniform_draw_stay_inside_the_nucleus(uniform: float) -> None:
    logits = np.array([FORBIDDEN, 3.0, 1.0, 0.0, FORBIDDEN])
    for setting in ((1.0, 1.0, 0), (1.0, 0.99, 0)):
        assert draws(logits, setting, np.array([uniform]))[0] in (1, 2, 3)


def test_a_row_draws_the_same_beside_others_of_any_setting() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(3))
    uniform = torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    settings_ = [(0.0, 1.0, 0), (1.0, 1.0, 0), (0.7, 0.9, 0), (1.3, 1.0, 4)]
    together = sample(logits, Draw.of(settings_, CPU), uniform).tolist()
    alone = [
        int(sample(logits[i : i + 1], Draw.of([setting], CPU), uniform[i : i + 1]))
        for i, setting in enumerate(settings_)
    ]
    assert together == alone


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_seen_tokens() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalise(logits, seen, torch.tensor([2.0])).tolist() == [[1.0, -4.0, 2.0, -2.0]]


def test_log_probability_and_entropy_leave_forbidden_choices_out() -> None:
    logits = torch.tensor([[0.0, 0.0, FORBIDDEN]])
    _, picked, entropy = assess(logits, torch.tensor([1]))
    assert picked.item() == pytest.approx(np.log(0.5))
    assert entropy.item() == pytest.approx(np.log(2))


@given(
    rows=st.lists(st.lists(st.integers(0, 6), min_size=9, max_size=9), min_size=1, max_size=4).filter(
        lambda rows: all(any(row) for row in rows)
    ),
    top_p=st.sampled_from([1e-9, 0.25, 0.5, 0.9, 1.0]),
    top_k=st.integers(0, 10),
)
@settings(max_examples=200, deadline=None)
def test_truncation_without_sorting_keeps_what_sorting_keeps(
    rows: list[list[int]], top_p: float, top_k: int
) -> None:
    """Whole numbers: many are equal, and no sum is rounded."""
    weights = torch.tensor(rows, dtype=torch.float64)
    draw = Draw.of([(1.0, top_p, top_k)] * len(rows), CPU)
    expected = truncated(weights, draw)
    cpu.truncate(weights.numpy(), draw.top_k.numpy(), draw.top_p.numpy())
    assert weights.tolist() == expected.tolist()
