"""Everything that decides what a training run yields."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from evaluation.phantoms import SIZE
from services.vqgan import VQConfig

CODES = 512
CONTEXT = 1024


@dataclass(frozen=True)
class Mix:
    """What the decoder's sequences are, as shares of their number; the rest is text, picture, text.

    `dialogue` a chat about a picture, `report` questions about a report, `drawing` a picture from a description, `bare` a
    picture without a prompt, `questions` single questions that share a picture, `per_picture` of them. A dialogue's later
    answers can be guessed from its earlier ones; single questions must be answered by looking.
    """

    dialogue: float = 0.06
    report: float = 0.03
    drawing: float = 0.66
    bare: float = 0.04
    questions: float = 0.16
    per_picture: int = 24


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
    lm_steps: int = 7_000
    lm_mix: Mix = Mix()
    lm_finding_weight: float = 4.0
    lm_batch_tokens: int = 4_096
    lm_rate: float = 4e-3
    lm_warmup_steps: int = 150
    hidden: int = 192
    layers: int = 5
    heads: int = 6
    inner: int = 512
    text_entries: int = 1024
    # Slices (modality, topic) whose questions the decoder never sees
    without: tuple[tuple[str, str], ...] = ()

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
        values = asdict(self)
        if not self.without:
            del values["without"]  # as in recipes saved before there was one
        return values

    def shortened(self, factor: int) -> Recipe:
        """The same run with `factor` times fewer steps and phantoms, to try the machinery."""
        return replace(
            self,
            phantoms=max(64, self.phantoms // factor),
            vq_steps=max(8, self.vq_steps // factor),
            vq_unquantized_steps=max(2, self.vq_unquantized_steps // factor),
            lm_steps=max(4, self.lm_steps // factor),
            lm_warmup_steps=max(2, self.lm_warmup_steps // factor),
        )
