"""The simulator of docs/capacity.md against what queueing theory knows exactly, and its other promises."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.capacity.device import Device, Work, read
from loadtests.capacity.simulator import Replicas, Simulation, poisson
from loadtests.samples import Sample

STEP_S = 0.01
DEVICE = Device(
    device="one row at a time",
    conditions="none: a model of a queue",
    gpus=1,
    step_base_s=STEP_S,
    step_row_s=0.0,
    prefill_token_s=0.0,
    overheads=((0.0, 0.0),),
    tokenize_s=0.0,
    decode_s=0.0,
    max_batch=1,
    picture_tokens=20,
    picture_rows=2,
    start_s=10.0,
    cores=None,
    works=(Work("text", 0, 0, 10, 0),),
)
MEAN_S = 10 * STEP_S


def simulate(device: Device, rate: float, seconds: float, replicas: Replicas = Replicas()) -> list[Sample]:  # noqa: B008
    arrivals = poisson(device, {"text": 1.0}, rate, seconds, seed=1)
    return Simulation(device, replicas).run(arrivals)


def mean_s(samples: list[Sample]) -> float:
    return float(np.mean([sample.total_s for sample in samples]))


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_answers_of_one_length_wait_as_in_an_m_d_1_queue(load: float) -> None:
    samples = simulate(DEVICE, load / MEAN_S, 2500)
    expected = MEAN_S + load * MEAN_S / (2 * (1 - load))  # Pollaczek–Khinchine
    assert mean_s(samples) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_answers_of_exponential_length_wait_as_in_an_m_m_1_queue(load: float) -> None:
    rng = np.random.default_rng(2)
    steps = np.maximum(1, np.round(rng.exponential(1000, 20_000))).astype(int)
    works = tuple(Work("text", 0, 0, int(each), 0) for each in steps)
    device = replace(DEVICE, step_base_s=MEAN_S / 1000, works=works)
    samples = simulate(device, load / MEAN_S, 2500)
    assert mean_s(samples) == pytest.approx(MEAN_S / (1 - load), rel=0.08)
    # The time in the system is itself exponential.
    p90 = float(np.quantile([sample.total_s for sample in samples], 0.9))
    assert p90 == pytest.approx(MEAN_S / (1 - load) * np.log(10), rel=0.1)


def test_a_tokenizer_alone_is_an_m_d_1_queue_too() -> None:
    device = replace(DEVICE, step_base_s=0.0, tokenize_s=0.1, works=(Work("text", 1, 0, 1, 0),))
    samples = simulate(device, 7.0, 1500)
    assert mean_s(samples) == pytest.approx(0.1 + 0.7 * 0.1 / (2 * 0.3), rel=0.05)


def test_sequences_share_steps() -> None:
    device = replace(DEVICE, max_batch=4, step_base_s=0.008, step_row_s=0.002)
    together = Simulation(device, Replicas()).run([(0.0, device.works[0])] * 4)
    # Requests of one moment may begin one step apart.
    assert [sample.total_s for sample in together] == pytest.approx([10 * 0.016] * 4, abs=0.016)


def test_a_fifth_sequence_waits_for_a_row() -> None:
    device = replace(DEVICE, max_batch=4)
    samples = Simulation(device, Replicas()).run([(0.0, device.works[0])] * 5)
    totals = sorted(sample.total_s for sample in samples)
    assert totals[:4] == pytest.approx([0.1] * 4, abs=0.011)
    assert totals[4] == pytest.approx(0.2, abs=0.011)


def test_a_newcomer_joins_before_the_next_step_and_its_prompt_holds_up_the_others() -> None:
    device = replace(DEVICE, max_batch=4, prefill_token_s=0.001)
    first, second = Work("text", 0, 0, 10, 0), Work("text", 0, 50, 1, 0)
    samples = Simulation(device, Replicas()).run([(0.0, first), (0.015, second)])
    by_length = {sample.tokens: sample for sample in samples}
    # Asked in the second step, read in the third.
    assert by_length[1].total_s == pytest.approx(0.02 + 0.01 + 0.05 - 0.015)
    assert by_length[10].total_s == pytest.approx(0.1 + 0.05)


def test_a_picture_takes_its_steps_and_the_decoder() -> None:
    device = replace(DEVICE, max_batch=2, decode_s=0.3, step_row_s=0.01)
    (sample,) = Simulation(device, Replicas()).run([(0.0, Work("drawing", 0, 0, 0, 1))])
    assert sample.total_s == pytest.approx(20 * (0.01 + 2 * 0.01) + 0.3)
    assert sample.first_s == sample.total_s


def test_two_replicas_answer_twice_as_much() -> None:
    load = 1.5 / MEAN_S
    assert mean_s(simulate(DEVICE, load, 120, Replicas(llm=2))) < 5 * MEAN_S
    assert mean_s(simulate(DEVICE, load, 120)) > 50 * MEAN_S


def test_autoscaling_adds_replicas_after_its_delay_and_takes_them_away() -> None:
    plan = Replicas(llm=1, most=3, target=2.0, up_s=5.0, down_s=20.0, look_back_s=5.0)
    busy = poisson(DEVICE, {"text": 1.0}, 2.2 / MEAN_S, 120, seed=3)
    calm = [(at + 120, work) for at, work in poisson(DEVICE, {"text": 1.0}, 0.2 / MEAN_S, 120, seed=4)]
    simulation = Simulation(DEVICE, plan)
    simulation.run([*busy, *calm])
    serving = {round(at): number for at, number, _ in simulation.history}
    assert all(number == 1 for at, number in serving.items() if at < 5 + DEVICE.start_s)
    assert max(serving.values()) == 3
    assert serving[max(serving)] == 1


@settings(max_examples=30, deadline=None)
@given(
    works=st.lists(
        st.builds(
            Work,
            kind=st.just("text"),
            films=st.integers(0, 2),
            prompt_tokens=st.integers(0, 500),
            text_tokens=st.integers(0, 40),
            pictures=st.integers(0, 2),
        ),
        min_size=1,
        max_size=6,
    ),
    rate=st.floats(0.5, 20),
    cores=st.sampled_from([None, 1, 2]),
    batch=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_every_request_is_answered_once_and_never_faster_than_alone(
    works: list[Work], rate: float, cores: int | None, batch: int, seed: int
) -> None:
    device = replace(
        DEVICE,
        works=tuple(works),
        cores=cores,
        max_batch=batch,
        prefill_token_s=1e-4,
        tokenize_s=0.02,
        decode_s=0.03,
        overheads=((0.01, 0.002),),
        step_row_s=0.001,
    )
    arrivals = poisson(device, {"text": 1.0}, rate, 10, seed)
    samples = Simulation(device, Replicas()).run(arrivals)
    assert len(samples) == len(arrivals)
    assert sorted(sample.due_s for sample in samples) == pytest.approx([at for at, _ in arrivals])
    alone = {work: Simulation(device, Replicas()).run([(0.0, work)])[0].total_s for work in set(works)}
    fastest = min(alone.values())
    assert all(sample.total_s >= fastest - 1e-9 for sample in samples)


def test_a_kind_that_was_not_calibrated_is_refused() -> None:
    with pytest.raises(ValueError, match="drawing"):
        poisson(DEVICE, {"text": 0.5, "drawing": 0.5}, 1.0, 10, 0)


def test_a_device_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    DEVICE.write(tmp_path / "one.json")
    assert read(tmp_path / "one.json") == DEVICE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step_base_s", -1),
        ("max_batch", 0),
        ("gpus", "two"),
        ("works", []),
        ("cores", 0),
        ("overheads", [[1.0]]),
        ("unknown", 1),
    ],
)
def test_a_wrong_device_file_says_what_is_wrong(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({**asdict(DEVICE), field: value}))
    with pytest.raises(ValueError, match=field):
        read(path)


BEFORE_S, AFTER_S = 0.03, 0.02


def measured(kind: str, **server_ms: float) -> Sample:
    """A sample of a machine whose steps of n rows take 2 + 0.5 n ms, at 0.1 ms a prompt token."""
    return Sample(kind, "grpc", 0.0, 0.0, 0.1, 0.2, server_ms=server_ms)


def drawn(callers: int, device: Device) -> Sample:
    step_ms = 1000 * device.step_s(device.picture_rows * callers)
    took = {"tokenize_ms": 0.0, "generate_ms": 144 * step_ms, "decode_ms": 40.0, "first_token_ms": step_ms}
    return replace(
        measured("drawing", **took), pictures=1, image_tokens=144, total_s=144 * step_ms / 1000 + 0.09
    )


def read_and_answered(prompt: int, tokens: int, device: Device) -> Sample:
    step_ms = 1000 * device.step_s(1)
    first = step_ms + prompt * 1000 * device.prefill_token_s
    generate = first + (tokens - 1) * step_ms
    took = {"tokenize_ms": 20.0, "first_token_ms": 20 + first, "generate_ms": generate, "decode_ms": 0.0}
    sample = replace(measured("vqa", **took), tokens=tokens, prompt_tokens=prompt, new_films=1)
    return replace(
        sample, first_s=(first + 20) / 1000 + BEFORE_S, total_s=(generate + 20) / 1000 + BEFORE_S + AFTER_S
    )


def test_calibration_finds_the_machine_that_made_the_samples() -> None:
    from loadtests.capacity.fit import fit

    truth = replace(DEVICE, step_base_s=0.002, step_row_s=0.0005, prefill_token_s=0.0001)
    crowds = {callers: [drawn(callers, truth)] * 3 for callers in (1, 2, 4, 8)}
    singles = [read_and_answered(prompt, 5, truth) for prompt in (10, 50, 160)] + [drawn(1, truth)]
    known = {"device": "d", "conditions": "c", "gpus": 0, "max_batch": 32, "start_s": 1.0, "cores": None}
    found = fit(crowds, singles, truth.picture_rows, known)
    assert found.step_base_s == pytest.approx(truth.step_base_s, rel=1e-6)
    assert found.step_row_s == pytest.approx(truth.step_row_s, rel=1e-6)
    assert found.prefill_token_s == pytest.approx(truth.prefill_token_s, rel=1e-6)
    assert np.allclose(found.overheads, [(BEFORE_S, AFTER_S)] * 3)
    assert (found.tokenize_s, found.decode_s, found.picture_tokens) == (0.02, 0.04, 144)
    assert [work.kind for work in found.works] == ["vqa"] * 3 + ["drawing"]


def test_a_prediction_is_of_the_very_requests_that_were_measured() -> None:
    from loadtests.capacity.prediction import compare, predict

    samples = [replace(read_and_answered(10, 5, DEVICE), due_s=float(at)) for at in range(10)]
    predicted = predict(DEVICE, samples)
    assert [sample.due_s for sample in predicted] == [sample.due_s for sample in samples]
    row = compare(1.0, samples, predicted)
    assert row["total_s"]["p50"]["predicted"] == pytest.approx(5 * STEP_S)
    assert row["total_s"]["p50"]["ratio"] == pytest.approx(5 * STEP_S / samples[0].total_s, abs=0.01)


def test_the_plan_stops_at_the_first_number_that_is_enough() -> None:
    from loadtests.capacity.__main__ import enough
    from loadtests.samples import Objective

    objective = Objective(first_s=1.0, token_s=1.0, total_s=0.5, share=0.95)
    tried = enough(DEVICE, {"text": 1.0}, 2.5 / MEAN_S, objective, 60, 8, 0)
    assert [row["replicas"] for row in tried] == list(range(1, len(tried) + 1))
    assert [row["enough"] for row in tried] == [False] * (len(tried) - 1) + [True]
    assert len(tried) >= 3
    assert tried[-1]["gpus"] == len(tried) * DEVICE.gpus


def test_memory_and_latency_that_grow_are_seen() -> None:
    from loadtests.drift import drift, growth, kind_of

    readings = [(at * 60.0, {"llm": 500.0 + at}) for at in range(20)]
    assert growth(readings, "llm") == pytest.approx(60.0)
    assert growth(readings[:4], "llm") is None
    slower = [replace(measured("vqa"), due_s=float(at), total_s=1.0 + (at >= 90)) for at in range(100)]
    assert drift(slower, 100.0) == pytest.approx(2.0)
    assert drift([], 100.0) is None
    assert kind_of("ray::ServeReplica:medmax:llm.Generate") == "llm"
    assert kind_of("ray::ProxyActor.receive_asgi_messages") == "proxy"
    assert kind_of("ray::ServeController.listen_for_change") == "controller"
