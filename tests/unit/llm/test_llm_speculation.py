"""Speculative image codes: exactly the stated distribution, exactly the greedy answer, fewer steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from services.llm.sampler import Draw
from services.llm.speculation import settle

CODES, WINDOW = 5, 3
CPU = torch.device("cpu")


def chain(seed: int) -> torch.Tensor:
    """Logits of a code given the one before, [codes before, codes]; a small language of its own."""
    return torch.randn(CODES, CODES, generator=torch.Generator().manual_seed(seed)).double() * 2


def simulate(table: torch.Tensor, draw: Draw, runs: int, length: int, seed: int) -> np.ndarray:
    """`runs` sequences of `length` codes, the first after code 0: int64 [runs, length]."""
    random = np.random.default_rng(seed)
    done = torch.zeros(runs, length + 1, dtype=torch.int64)
    count = torch.ones(runs, dtype=torch.int64)
    drafts = torch.from_numpy(random.integers(0, CODES, (runs, WINDOW)))
    weights = torch.full((runs, WINDOW, CODES), 1 / CODES, dtype=torch.float64)
    row = torch.arange(runs)
    while (count <= length).any():
        width = (length + 1 - count).clamp(1, WINDOW)
        before = torch.cat((done[row, (count - 1).clamp(max=length)].unsqueeze(1), drafts[:, :-1]), 1)
        uniform = torch.from_numpy(random.random((runs, 3, WINDOW)))
        codes, settled, drafts, weights = settle(table[before], drafts, weights, width, draw, uniform)
        for place in range(WINDOW):
            on = (place < settled) & (count + place <= length)
            done[row[on], (count + place)[on]] = codes[on, place]
        count = torch.where(count <= length, count + settled, count)
    return done[:, 1:].numpy()


def settings_of(temperature: float, top_p: float, runs: int) -> Draw:
    return Draw.of([(temperature, top_p, 0)] * runs, CPU)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.8)])
def test_whole_sequences_have_the_models_distribution(temperature: float, top_p: float) -> None:
    """Chi-square over all 125 sequences of three codes, against the product of the model's own probabilities."""
    table, runs = chain(1), 60_000
    found = simulate(table, settings_of(temperature, top_p, runs), runs, 3, seed=2)
    p = torch.softmax(table / temperature, -1).numpy()
    for line in p:
        order = np.argsort(-line)
        line[order[np.cumsum(line[order]) - line[order] >= top_p]] = 0
        line /= line.sum()
    expected = (p[0][:, None, None] * p[:, :, None] * p[None]).ravel() * runs
    counts = np.bincount(found @ np.array([25, 5, 1]), minlength=125)
    assert not counts[expected == 0].any()
    common = expected >= 5
    rare = ~common & (expected > 0)
    observed, wanted = counts[common].tolist(), expected[common].tolist()
    if rare.any():
        observed.append(counts[rare].sum())
        wanted.append(expected[rare].sum())
    assert stats.chisquare(observed, wanted).pvalue > 1e-4


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_greedy_codes_are_those_of_one_at_a_time(seed: int, length: int) -> None:
    table = chain(seed)
    found = simulate(table, settings_of(0, 1, 1), 1, length, seed)[0]
    code, expected = 0, []
    for _ in range(length):
        code = int(table[code].argmax())
        expected.append(code)
    assert found.tolist() == expected


@given(
    st.lists(st.tuples(st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=5),
    st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_a_sequence_settles_the_same_codes_beside_any_others(
    rows: list[tuple[int, float]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    n = len(rows)
    logits = torch.stack([chain(s)[:WINDOW] for s, _ in rows])
    drafts = torch.from_numpy(random.integers(0, CODES, (n, WINDOW)))
    weights = torch.full((n, WINDOW, CODES), 1 / CODES, dtype=torch.float64)
    width = torch.from_numpy(random.integers(1, WINDOW + 1, n))
    uniform = torch.from_numpy(random.random((n, 3, WINDOW)))
    draws = [(t, 0.9, 0) for _, t in rows]
    together = settle(logits, drafts, weights, width, Draw.of(draws, CPU), uniform)
    for i in range(n):
        one = slice(i, i + 1)
        alone = settle(
            logits[one], drafts[one], weights[one], width[one], Draw.of(draws[one], CPU), uniform[one]
        )
        settled = int(alone[1])
        assert settled == int(together[1][i])
        assert alone[0][0, :settled].tolist() == together[0][i, :settled].tolist()
        assert alone[2][0].tolist() == together[2][i].tolist()


def test_between_one_code_and_the_whole_window_is_settled() -> None:
    table, runs = chain(3), 500
    uniform = torch.rand(runs, 3, WINDOW, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drafts = torch.randint(0, CODES, (runs, WINDOW), generator=torch.Generator().manual_seed(1))
    weights = torch.full((runs, WINDOW, CODES), 1 / CODES, dtype=torch.float64)
    width = torch.tensor([1, 2, 3] * (runs // 3) + [1] * (runs % 3))
    logits = table[torch.cat((torch.zeros(runs, 1, dtype=torch.int64), drafts[:, :-1]), 1)]
    _, settled, _, following = settle(logits, drafts, weights, width, settings_of(1, 1, runs), uniform)
    assert (settled >= 1).all()
    assert (settled <= width).all()
    assert set(settled.tolist()) == {1, 2, 3}
    torch.testing.assert_close(following.sum(-1), torch.ones(runs, WINDOW, dtype=torch.float64))
