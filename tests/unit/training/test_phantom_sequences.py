"""Rows as sequences of ids: what is read, what is learnt, and the vocabulary under them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.phantoms import Truth, rows, truth
from evaluation.phantoms.core import Finding
from evaluation.phantoms.rows import IMAGE, texts
from services.checkpoint import ModelConfig, Vocabulary, code_name
from services.llm.model import Chameleon
from training.losses import Targets
from training.phantom.lm import loss_of
from training.phantom.recipe import Mix
from training.phantom.sequences import SequenceMaker, digest, finding_weights
from training.phantom.vocabulary import tokenizer_json

N_CODES, CELLS = 32, 9
MIX = Mix(dialogue=0.3, report=0.1, drawing=0.3, bare=0.1, questions=0.1)
TRUTHS = [truth(seed) for seed in range(40)]
WEIGHTS = np.random.default_rng(4).uniform(1, 4, (len(TRUTHS), CELLS)).astype(np.float32)


def _vocabulary() -> Vocabulary:
    rng = np.random.default_rng(0)
    return Vocabulary(tokenizer_json((t for item in TRUTHS for t in texts(rows(item, rng))), N_CODES, 400))


VOCABULARY = _vocabulary()


@pytest.fixture
def maker() -> SequenceMaker:
    codes = np.random.default_rng(1).integers(N_CODES, size=(len(TRUTHS), CELLS)).astype(np.int16)
    return SequenceMaker(VOCABULARY, TRUTHS, codes, WEIGHTS, context=256)


def test_ids_come_in_the_published_order() -> None:
    assert (VOCABULARY.bos, VOCABULARY.pad, VOCABULARY.eos, VOCABULARY.unk) == (0, 1, 2, 3)
    assert VOCABULARY.code_ids.tolist() == list(range(4, 4 + N_CODES))
    assert (VOCABULARY.end_image, VOCABULARY.begin_image) == (4 + N_CODES, 5 + N_CODES)
    assert VOCABULARY.end_of_turn == 6 + N_CODES


@given(st.text(max_size=80))
@settings(max_examples=50, deadline=None)
def test_any_text_survives_the_vocabulary(text: str) -> None:
    ids = VOCABULARY.encode(text)
    assert VOCABULARY.decode(ids) == text
    assert set(ids) <= set(VOCABULARY.text_ids.tolist())


@pytest.mark.parametrize("name", ["</s>", "<reserved08706>", "<racm3:break>", code_name(5)])
def test_text_that_spells_a_special_token_stays_text(name: str) -> None:
    assert set(VOCABULARY.encode(name)) <= set(VOCABULARY.text_ids.tolist())


def test_one_turn_reads_as_the_server_will_ask_it(maker: SequenceMaker) -> None:
    example = maker.sequence([(f"{IMAGE}Is it normal?", "yes")], 3)
    span = VOCABULARY.image_span(maker.codes[3].astype(np.int64))
    asked, answer = VOCABULARY.encode("Is it normal?"), VOCABULARY.encode("yes")
    assert example.ids.tolist() == [VOCABULARY.bos, *span, *asked, VOCABULARY.end_of_turn, *answer]
    learnt = example.labels[example.labels >= 0]
    assert learnt.tolist() == [*answer, VOCABULARY.eos]


def test_every_answer_of_a_dialogue_is_learnt_to_its_end(maker: SequenceMaker) -> None:
    example = maker.sequence([(f"{IMAGE}First?", "one"), ("Second?", "two")], 0)
    learnt = example.labels[example.labels >= 0].tolist()
    end = VOCABULARY.eos
    assert learnt == [*VOCABULARY.encode("one"), end, *VOCABULARY.encode("two"), end]
    assert end not in example.ids.tolist()
    assert example.ids.tolist().count(VOCABULARY.end_of_turn) == 3


def test_labels_are_the_next_ids_wherever_one_follows_within_the_answer(maker: SequenceMaker) -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        example = maker.draw(rng, MIX)
        assert example.ids.shape == example.labels.shape
        assert (example.labels >= 0).any()
        for place in range(len(example.ids) - 1):
            label = int(example.labels[place])
            assert label in (-1, VOCABULARY.eos, int(example.ids[place + 1]))


def test_drawing_answers_begin_with_the_begin_of_image(maker: SequenceMaker) -> None:
    example = maker.sequence([("Draw it.", IMAGE)], 2)
    learnt = example.labels[example.labels >= 0].tolist()
    assert learnt[0] == VOCABULARY.begin_image
    assert learnt[-2:] == [VOCABULARY.end_image, VOCABULARY.eos]
    assert VOCABULARY.id_to_code(learnt[1:-2]).tolist() == maker.codes[2].tolist()


def test_the_unconditional_sequence_never_learns_to_begin_a_picture(maker: SequenceMaker) -> None:
    example = maker.unconditional(1)
    assert example.ids[:2].tolist() == [VOCABULARY.bos, VOCABULARY.begin_image]
    assert example.labels[0] == -1
    assert len(example.labels[example.labels >= 0]) == CELLS + 1


def test_batches_keep_to_their_size_and_learn_no_padding(maker: SequenceMaker) -> None:
    batches = maker.batches(np.random.default_rng(2), 600, MIX)
    for _ in range(30):
        batch = next(batches)
        assert batch.ids.size <= 600
        padding = batch.ids == VOCABULARY.pad
        assert (batch.labels[padding] == -1).all()


def test_the_digest_depends_on_pictures_and_truths() -> None:
    whole = digest(TRUTHS, "a")
    assert whole == digest(TRUTHS, "a")
    assert len({whole, digest(TRUTHS, "b"), digest(TRUTHS[1:], "a")}) == 3


def test_questions_that_share_a_picture_are_learnt_as_if_each_stood_alone(maker: SequenceMaker) -> None:
    turns = [("Is it normal?", "yes"), ("Which side?", "the left side"), ("How many?", "three")]
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=VOCABULARY.size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=48,
        max_position_embeddings=256,
    )
    model = Chameleon(config).double()
    targets = Targets.of(VOCABULARY)
    together, _, _ = loss_of(model, maker._pad([maker.questions(turns, 3)]), targets)
    total = weight = 0.0
    for user, answer in turns:
        alone = maker.sequence([(f"{IMAGE}{user}", answer)], 3)
        learnt = int((alone.labels >= 0).sum())
        total += learnt * loss_of(model, maker._pad([alone]), targets)[0].item()
        weight += learnt
    assert together.item() == pytest.approx(total / weight, rel=1e-6)


def test_codes_are_learnt_among_codes_alone_and_the_forced_end_of_a_picture_not_at_all(
    maker: SequenceMaker,
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=VOCABULARY.size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=48,
        max_position_embeddings=256,
    )
    model = Chameleon(config).double()
    batch = maker._pad([maker.sequence([("Draw it.", IMAGE)], 2)])
    loss, text, picture = loss_of(model, batch, Targets.of(VOCABULARY))
    logits = model(torch.from_numpy(batch.ids))[0]
    start = batch.ids[0].tolist().index(VOCABULARY.begin_image)
    spans = logits[start : start + CELLS][:, VOCABULARY.code_ids]
    expected = torch.nn.functional.cross_entropy(
        spans, torch.from_numpy(maker.codes[2].astype(np.int64)), reduction="none"
    )
    assert picture.item() == pytest.approx(expected.mean().item())
    begin = -torch.log_softmax(logits[start - 1], 0)[VOCABULARY.begin_image]
    end = -torch.log_softmax(logits[start + CELLS + 1], 0)[VOCABULARY.eos]
    assert text.item() == pytest.approx(((begin + end) / 2).item())
    weight = torch.from_numpy(WEIGHTS[2])
    whole = ((expected * weight).sum() + begin + end) / (weight.sum() + 2)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)


def test_codes_weigh_by_place_in_described_drawings_alone(maker: SequenceMaker) -> None:
    codes = slice(-1 - CELLS, -1)
    drawn = maker.sequence([("Draw it.", IMAGE)], 7)
    learnt = VOCABULARY.id_to_code(drawn.labels.clip(0)) >= 0
    assert drawn.weight[learnt].tolist() == WEIGHTS[7].tolist()
    assert set(drawn.weight[~learnt]) == {1}
    assert set(maker.unconditional(7).weight[codes]) == {1}
    assert set(maker.sequence([(f"{IMAGE}Is it normal?", "yes")], 7).weight) == {1}


def test_weights_follow_from_the_kinds_described_and_not_from_where_the_finding_is() -> None:
    left = Truth(1, "chest_xray", (Finding("mass", "left", "small"),))
    right = Truth(2, "chest_xray", (Finding("mass", "right", "small"),))
    normal = Truth(3, "chest_xray", ())
    masks = np.zeros((3, 4, 4), np.bool_)
    masks[0, 0, 3] = masks[1, 0, 0] = True
    weights = finding_weights([left, right, normal], masks, (4, 4), most=4)
    assert weights[0].tolist() == weights[1].tolist()
    assert weights[0].reshape(4, 4)[0].tolist() == [4, 1, 1, 4]
    assert set(weights[2]) == {1}
