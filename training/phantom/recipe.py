"""Everything that decides what a training run yields."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from evaluation.phantoms import SIZE
from services.vqgan import VQConfig

CODES = 512
CONTEXT = 1024


@dataclass(frozen=True)
class Phase:
    """A stretch of the decoder's training, up to step `until`.

    Shares of the sequences: `dialogue` a chat about a picture, `report` questions about a report, `drawing` a
    picture from a description, `bare` a picture without a prompt, `questions` single questions that share a picture,
    `per_picture` of them; the rest is text, picture, text. In the loss a
    text token weighs 1, an image code `picture_weight`, one of a finding's cells `finding_weight` times that.
    """

    until: int
    dialogue: float
    report: float
    drawing: float
    bare: float
    picture_weight: float
    finding_weight: float
    questions: float = 0.0
    per_picture: int = 24


# Anatomy and reading come first; a drawing's few cells that matter take longer, and more weight; then many single
# questions a picture, since a dialogue's later answers can be guessed from its earlier ones without looking.
FIRST = Phase(
    2_000, dialogue=0.56, report=0.07, drawing=0.26, bare=0.03, picture_weight=0.5, finding_weight=1
)
DRAWING = Phase(
    3_000, dialogue=0.25, report=0.04, drawing=0.57, bare=0.04, picture_weight=1, finding_weight=3
)
READING = Phase(
    4_600,
    dialogue=0.06,
    report=0.03,
    drawing=0.58,
    bare=0.04,
    picture_weight=1,
    finding_weight=3,
    questions=0.22,
)


@dataclass(frozen=True)
class Recipe:
    """Sizes and lengths of a run. Batch sizes are in pictures and in sequences."""

    seed: int = 0
    phantoms: int = 32_000
    # VQ-GAN
    vq_steps: int = 2_400
    vq_batch: int = 16
    vq_rate: float = 1.2e-3
    vq_unquantized_steps: int = 250
    finding_weight: float = 4.0
    # Decoder
    lm_phases: tuple[Phase, ...] = (FIRST, DRAWING, READING)
    lm_batch_tokens: int = 4_096
    lm_rate: float = 2e-3
    lm_warmup_steps: int = 150
    hidden: int = 192
    layers: int = 5
    heads: int = 6
    inner: int = 512
    text_entries: int = 1024

    @property
    def lm_steps(self) -> int:
        return self.lm_phases[-1].until

    def phase_at(self, step: int) -> Phase:
        """The phase of a decoder step."""
        return next(phase for phase in self.lm_phases if step < phase.until)

    @property
    def vq_config(self) -> VQConfig:
        return VQConfig(
            resolution=SIZE,
            ch=16,
            ch_mult=(1, 1, 2, 4),
            num_res_blocks=1,
            z_channels=32,
            embed_dim=16,
            n_embed=CODES,
        )

    @property
    def vq_part(self) -> dict[str, Any]:
        """What the VQ-GAN depends on."""
        names = ("seed", "phantoms", "finding_weight")
        return {
            name: value for name, value in asdict(self).items() if name in names or name.startswith("vq_")
        }

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "lm_phases": [asdict(phase) for phase in self.lm_phases]}

    def shortened(self, factor: int) -> Recipe:
        """The same run with `factor` times fewer steps and phantoms, to try the machinery."""
        return replace(
            self,
            phantoms=max(64, self.phantoms // factor),
            vq_steps=max(8, self.vq_steps // factor),
            vq_unquantized_steps=max(2, self.vq_unquantized_steps // factor),
            lm_phases=tuple(
                replace(phase, until=max(4 * (index + 1), phase.until // factor))
                for index, phase in enumerate(self.lm_phases)
            ),
            lm_warmup_steps=max(2, self.lm_warmup_steps // factor),
        )
