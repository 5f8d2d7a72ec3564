"""What the engine benchmark asks, and of which checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loadtests.engine import works
from loadtests.engine.client import last_words
from loadtests.engine.docs import BEGIN, END, rewrite
from loadtests.engine.jobs import Objective
from loadtests.engine.noise import HEAD, Shape, never_ends, random_checkpoint
from loadtests.engine.works import ONE, OURS, PROMPT, SERIAL, Work
from services.checkpoint import Checkpoint, open_checkpoint
from tests.support.tiny import CODES_PER_IMAGE, tiny_checkpoint

SHAPE = Shape(hidden=32, inner=48, layers=1, heads=2, vocabulary=1200, codes=64, grid=4, context=512)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp("bench"), max_position_embeddings=512))


def test_a_round_is_the_same_every_time_and_no_other_rounds(checkpoint: Checkpoint) -> None:
    work = Work("text", 4)
    first = works.jobs(work, checkpoint, 8, 0)[OURS]
    assert first == works.jobs(work, checkpoint, 8, 0)[OURS]
    prompts = [tuple(r.prompt) for i in range(3) for r in works.jobs(work, checkpoint, 8, i)[OURS].requests]
    assert len(set(prompts)) == len(prompts) == 12
    assert {len(prompt) for prompt in prompts} == {PROMPT}


def test_questions_share_a_picture_together_and_none_one_at_a_time(checkpoint: Checkpoint) -> None:
    jobs = works.jobs(Work("questions", 10), checkpoint, 0, 0)

    def pictures(label: str) -> set[tuple[int, ...]]:
        return {tuple(r.prompt[1 : CODES_PER_IMAGE + 3]) for r in jobs[label].requests}

    assert len(pictures(OURS)) == len(pictures(ONE)) == 1
    assert len(pictures(SERIAL)) == 10
    assert jobs[SERIAL].in_flight == 1
    assert not pictures(OURS) & pictures(ONE)


def test_serial_pictures_are_those_that_are_drawn_together(checkpoint: Checkpoint) -> None:
    jobs = works.jobs(Work("pictures", 8), checkpoint, 0, 0)
    assert jobs[OURS].requests == jobs[SERIAL].requests
    assert (jobs[OURS].in_flight, jobs[SERIAL].in_flight) == (0, 1)


def test_a_higher_rate_brings_the_same_requests_closer_together(checkpoint: Checkpoint) -> None:
    slow, fast = (works.arrivals(checkpoint, rate, 20.0, (0, 0), Objective()).requests for rate in (2.0, 4.0))
    assert len(slow) < len(fast)
    assert max(r.arrival_s for r in fast) < 20
    for early, late in zip(fast, slow, strict=False):
        assert early.prompt == late.prompt
        assert early.arrival_s == pytest.approx(late.arrival_s / 2)
    assert {r.picture for r in fast} == {True, False}
    other = works.arrivals(checkpoint, 2.0, 20.0, (0, 1), Objective()).requests
    assert [(r.picture, r.arrival_s, len(r.prompt)) for r in other] == [
        (r.picture, r.arrival_s, len(r.prompt)) for r in slow
    ]
    assert not {tuple(r.prompt) for r in other} & {tuple(r.prompt) for r in slow}


def test_greedy_text_of_the_checkpoints_never_ends() -> None:
    checkpoint = random_checkpoint(SHAPE)
    v = checkpoint.vocabulary
    head = checkpoint.weights[HEAD]
    hidden = torch.randn(2000, SHAPE.hidden, generator=torch.Generator().manual_seed(0))
    logits = hidden @ head.T
    logits[:, torch.from_numpy(v.code_ids)] = -torch.inf  # what text may not draw
    drawn = set(logits.argmax(-1).tolist())
    assert len(drawn) > 100
    assert drawn <= set(v.text_ids.tolist())
    assert not any("\ufffd" in v.decode([i]) for i in drawn)


def test_code_rows_of_the_head_stay_as_they_are(checkpoint: Checkpoint) -> None:
    head = checkpoint.weights[HEAD]
    codes = torch.from_numpy(checkpoint.vocabulary.code_ids)
    assert torch.equal(never_ends(head, checkpoint.vocabulary)[codes], head[codes])


def test_the_section_between_the_markers_is_rewritten_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rewrite(page, "new")
    rewrite(page, "newer")
    assert page.read_text() == f"before\n{BEGIN}\nnewer\n{END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        rewrite(page, "new")


def test_a_log_ends_in_its_last_error() -> None:
    log = "INFO start\nTraceback …\n\x1b[31mRuntimeError: no such model\x1b[0m\nshutting down\n"
    assert last_words(log) == "RuntimeError: no such model"
    assert last_words("only a line\n") == "only a line"
    assert last_words("") == ""
