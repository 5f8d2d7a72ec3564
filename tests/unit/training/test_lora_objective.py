"""What a pack teaches: the same as its rows alone, in any precision, and DPO as its paper says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.checkpoint import Checkpoint
from services.llm.load import load_model
from tests.support.tiny import CODES_PER_IMAGE, N_CODES
from training.lora import objective
from training.lora.adapter import adapted, chameleon
from training.lora.batch import collate
from training.lora.objective import answers_loss, pairs_loss
from training.lora.recipe import Recipe
from training.losses import Targets
from training.rows.schema import pair_of, row_of
from training.rows.sequence import Example, SequenceMaker

EOT = "<reserved08706>"
PLAIN = Recipe(dropout=0.0, rank=4)


def maker(checkpoint: Checkpoint) -> SequenceMaker:
    codes = {name: np.random.default_rng(ord(name)).integers(N_CODES, size=CODES_PER_IMAGE) for name in "abc"}
    return SequenceMaker(checkpoint.vocabulary, CODES_PER_IMAGE, 256, lambda path: codes[path])


def examples(checkpoint: Checkpoint) -> list[Example]:
    rows = [
        {"text": f"<image>Is it?{EOT}yes it is", "image_path": "a"},
        {"text": f"Draw.{EOT}Here: <image> done", "image_path": "b"},
        {"text": f"<image>One{EOT}1{EOT}Two{EOT}<image>", "image_path": ["c", "a"]},
    ]
    return [maker(checkpoint).row(row_of(row)) for row in rows]


def learner(checkpoint: Checkpoint, recipe: Recipe = PLAIN, noise: float = 0.05):
    """A model whose adapter has learnt something already, so that every gradient is there."""
    model = adapted(checkpoint, recipe, "cpu")
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += noise * torch.randn_like(parameter)
    return model


def gradients(model) -> torch.Tensor:
    parts = [p.grad.double().flatten() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    return torch.cat(parts)


def test_an_adapter_that_is_off_or_new_leaves_the_base_exactly_as_it_is(checkpoint: Checkpoint) -> None:
    ids = torch.from_numpy(examples(checkpoint)[2].ids)[None]
    base = load_model(checkpoint)(ids)
    assert torch.equal(adapted(checkpoint, PLAIN, "cpu").base_model.model(ids), base)
    model = learner(checkpoint)
    with model.disable_adapter():
        assert torch.equal(chameleon(model)(ids), base)
    assert not torch.allclose(chameleon(model)(ids), base)


def test_rows_in_one_pack_are_learnt_as_if_each_stood_alone(checkpoint: Checkpoint) -> None:
    model, targets = learner(checkpoint).double(), Targets.of(checkpoint.vocabulary)
    rows = examples(checkpoint)
    together, figures = answers_loss(model, collate(rows), targets, 1.0)
    alone = [answers_loss(model, collate([row]), targets, 1.0) for row in rows]
    assert together.item() == pytest.approx(sum(loss.item() for loss, _ in alone), rel=1e-9)
    assert torch.allclose(figures, sum(sums for _, sums in alone), rtol=1e-9)
    assert figures[3] == 2 * CODES_PER_IMAGE


def test_codes_count_for_their_weight(checkpoint: Checkpoint) -> None:
    model, targets, batch = (
        learner(checkpoint),
        Targets.of(checkpoint.vocabulary),
        collate(examples(checkpoint)),
    )
    _, figures = answers_loss(model, batch, targets, 1.0)
    loss, _ = answers_loss(model, batch, targets, 0.25)
    assert loss.item() == pytest.approx((figures[0] + 0.25 * figures[2]).item(), rel=1e-5)


def kept(checkpoint: Checkpoint) -> list[Example]:
    return [replace(example, keep=True) for example in examples(checkpoint)]


def test_a_row_that_keeps_costs_what_the_model_strayed_from_its_base(checkpoint: Checkpoint) -> None:
    model, vocabulary = learner(checkpoint).double(), checkpoint.vocabulary
    targets = Targets.of(vocabulary)
    loss, figures = answers_loss(model, collate(kept(checkpoint)), targets, 0.5, 3.0)
    wanted = 0.0
    for example in examples(checkpoint):
        ids = torch.from_numpy(example.ids)[None]
        now = chameleon(model)(ids)[0]
        with model.disable_adapter():
            base = chameleon(model)(ids)[0]
        for place, label in enumerate(example.labels.tolist()):
            code = vocabulary.id_to_code(np.array([label]))[0] >= 0
            if label < 0 or not (code or targets.is_text[label]):
                continue
            among = torch.from_numpy(vocabulary.code_ids) if code else slice(None)
            p, q = base[place][among].softmax(-1), now[place][among].softmax(-1)
            wanted += (0.5 if code else 1.0) * (p * (p.log() - q.log())).sum().item()
    assert wanted > 1e-3
    assert figures[8].item() == pytest.approx(wanted, rel=1e-9)
    assert loss.item() == pytest.approx(3 * wanted, rel=1e-9)
    assert not figures[:8].any()


def test_a_new_adapter_strays_nowhere_and_is_pulled_nowhere(checkpoint: Checkpoint) -> None:
    model = adapted(checkpoint, PLAIN, "cpu")
    loss, _ = answers_loss(model, collate(kept(checkpoint)), Targets.of(checkpoint.vocabulary), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert gradients(model).abs().max() < 1e-5


def test_rows_that_keep_and_rows_that_teach_share_a_pack_without_a_change(checkpoint: Checkpoint) -> None:
    model, targets = learner(checkpoint).double(), Targets.of(checkpoint.vocabulary)
    rows = [examples(checkpoint)[0], kept(checkpoint)[1], examples(checkpoint)[2]]
    together, figures = answers_loss(model, collate(rows), targets, 1.0, 2.0)
    alone = [answers_loss(model, collate([row]), targets, 1.0, 2.0) for row in rows]
    assert together.item() == pytest.approx(sum(loss.item() for loss, _ in alone), rel=1e-9)
    assert torch.allclose(figures, sum(sums for _, sums in alone), rtol=1e-9)


@pytest.mark.parametrize("pairs", [False, True])
def test_gradients_in_bfloat16_agree_with_full_precision(checkpoint: Checkpoint, pairs: bool) -> None:
    targets = Targets.of(checkpoint.vocabulary)

    def run(precise: bool) -> torch.Tensor:
        model = learner(checkpoint)
        model = model.double() if precise else model
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            if pairs:
                loss, _ = pairs_loss(model, collate([_pair(checkpoint)]), targets, 0.1)
            else:
                loss, _ = answers_loss(model, collate(examples(checkpoint)), targets, 1.0)
        loss.backward()
        return gradients(model)

    exact, narrow = run(True), run(False)
    assert torch.isfinite(narrow).all()
    assert torch.nn.functional.cosine_similarity(exact, narrow, dim=0) > 0.99
    assert narrow.norm() / exact.norm() == pytest.approx(1, abs=0.05)


def test_recomputing_layers_and_cutting_the_head_change_no_gradient(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets, batch = Targets.of(checkpoint.vocabulary), collate(examples(checkpoint))
    recipe = Recipe(dropout=0.3, rank=4)

    def run(recompute: bool) -> torch.Tensor:
        model = learner(checkpoint, recipe).double()
        model.train()
        chameleon(model).recompute = recompute
        torch.manual_seed(3)
        loss, _ = answers_loss(model, batch, targets, 1.0)
        loss.backward()
        return gradients(model)

    plain = run(False)
    monkeypatch.setattr(objective, "_HEAD_ELEMENTS", 1000)
    assert torch.allclose(run(True), plain, rtol=1e-9, atol=1e-12)


def _pair(checkpoint: Checkpoint) -> Example:
    record = {"prompt": "<image>Q", "image_path": "a", "chosen": "good <image>", "rejected": "bad",
              "chosen_image_path": "b"}  # fmt: skip
    return maker(checkpoint).pair(pair_of(record))


def test_the_loss_of_pairs_is_the_papers(checkpoint: Checkpoint) -> None:
    model, targets = learner(checkpoint).double(), Targets.of(checkpoint.vocabulary)
    make = maker(checkpoint)
    answers = [
        make.row(row_of({"text": f"<image>Q{EOT}good <image>", "image_path": ["a", "b"]})),
        make.row(row_of({"text": f"<image>Q{EOT}bad", "image_path": "a"})),
    ]
    with torch.no_grad():
        learnt = [answers_loss(model, collate([row]), targets, 1.0)[0] for row in answers]
        with model.disable_adapter():
            reference = [answers_loss(model, collate([row]), targets, 1.0)[0] for row in answers]
    chosen, rejected = (r - p for p, r in zip(learnt, reference, strict=True))  # log π/πref
    wanted = -torch.log(torch.sigmoid(0.3 * (chosen - rejected)))
    batch = collate([_pair(checkpoint), *examples(checkpoint)[:1], _pair(checkpoint)][::2])
    loss, figures = pairs_loss(model, batch, targets, 0.3)
    assert loss.item() == pytest.approx(2 * wanted.item(), rel=1e-9)
    assert figures[7] == 2
    assert figures[6].item() == pytest.approx(2 * 0.3 * (chosen - rejected).item(), rel=1e-6)


def test_a_new_adapter_prefers_nothing(checkpoint: Checkpoint) -> None:
    model = adapted(checkpoint, PLAIN, "cpu")
    loss, figures = pairs_loss(model, collate([_pair(checkpoint)]), Targets.of(checkpoint.vocabulary), 0.1)
    assert loss.item() == pytest.approx(np.log(2), rel=1e-6)
    assert figures[6] == 0


def test_the_shipped_model_loads_with_an_adapter_on_every_projection() -> None:
    from services.checkpoint import open_checkpoint
    from services.config import SHIPPED_MODEL

    shipped = open_checkpoint(Path(SHIPPED_MODEL))
    model = adapted(shipped, Recipe(), "cpu")
    named = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(named) == 2 * 7 * shipped.config.num_hidden_layers
    assert all(".lora_" in name for name in named)
