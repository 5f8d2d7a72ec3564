"""The VQ-GAN: pictures to codes of a codebook, and back."""

from services.vqgan.config import VQConfig
from services.vqgan.load import load_vqgan
from services.vqgan.model import VQGAN

__all__ = ["VQGAN", "VQConfig", "load_vqgan"]
