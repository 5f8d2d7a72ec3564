"""The shipped VQ-GAN keeps what matters: findings are still readable after encoding and decoding."""

import numpy as np

from evaluation.phantoms import analyse, draw, held_out
from services.checkpoint import open_checkpoint
from services.config import SHIPPED_MODEL
from services.vqgan import load_vqgan
from training.phantom.vq import reconstruct


def test_findings_of_held_out_phantoms_survive_the_codes() -> None:
    phantoms = [draw(seed) for seed in held_out(700, 60)]
    vqgan = load_vqgan(open_checkpoint(SHIPPED_MODEL))
    pictures = reconstruct(vqgan, np.stack([phantom.picture for phantom in phantoms]))
    wrong = [
        phantom
        for phantom, picture in zip(phantoms, pictures, strict=True)
        if set(analyse(picture, phantom.modality)) != set(phantom.findings)
    ]
    assert len(wrong) <= 1, [(phantom.seed, phantom.findings) for phantom in wrong]
