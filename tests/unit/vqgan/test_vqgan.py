"""The VQ-GAN: published parameter names, nearest codes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from services.errors import CheckpointError
from services.vqgan import VQGAN, VQConfig
from services.vqgan.load import build_vqgan

CONFIG = VQConfig(
    resolution=16, ch=32, ch_mult=(1, 2), num_res_blocks=1, z_channels=8, embed_dim=6, n_embed=20
)


@pytest.fixture
def model() -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(CONFIG).eval().requires_grad_(False)


def pixels(count: int = 2, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_published_512_px_shape_gives_32_by_32_codes() -> None:
    published = VQConfig(
        resolution=512, ch=128, ch_mult=(1, 1, 2, 2, 4), num_res_blocks=2, z_channels=256, embed_dim=256, n_embed=8192
    )  # fmt: skip
    assert published.grid == (32, 32)
    assert published.n_codes_per_image == 1024
    with torch.device("meta"):
        names = VQGAN(published).state_dict()
    assert names["encoder.down.2.block.0.nin_shortcut.weight"].shape == (256, 128, 1, 1)
    assert names["decoder.up.4.block.2.conv2.weight"].shape == (512, 512, 3, 3)
    assert names["decoder.up.1.upsample.conv.weight"].shape == (128, 128, 3, 3)
    assert "encoder.down.4.downsample.conv.weight" not in names
    assert "decoder.up.0.upsample.conv.weight" not in names
    assert {"encoder.mid.attn_1.proj_out.weight", "decoder.mid.attn_1.q.bias", "quant_conv.weight"} <= set(
        names
    )


def test_attention_resolutions_add_attention_to_each_block_of_that_side() -> None:
    with torch.device("meta"):
        names = set(VQGAN(replace(CONFIG, attn_resolutions=(8,))).state_dict())
    assert {"encoder.down.1.attn.0.q.weight", "decoder.up.1.attn.1.v.weight"} <= names
    assert not any(name.startswith(("encoder.down.0.attn", "decoder.up.0.attn")) for name in names)


def test_configuration_survives_its_json_form() -> None:
    assert VQConfig.from_json(CONFIG.to_json()) == CONFIG


@pytest.mark.parametrize("missing", ["ddconfig", "n_embed", "embed_dim"])
def test_an_incomplete_configuration_is_a_checkpoint_error(missing: str) -> None:
    data = CONFIG.to_json()
    del data[missing]
    with pytest.raises(CheckpointError, match=missing):
        VQConfig.from_json(data)


def test_a_code_is_the_nearest_codebook_vector_row_by_row(model: VQGAN) -> None:
    latents = model.latents(pixels())
    codes = model.encode(pixels())
    book = model.quantize.embedding.weight
    for picture in range(2):
        for row in range(8):
            for column in range(8):
                distance = (book - latents[picture, :, row, column]).double().norm(dim=1)
                assert distance[codes[picture, row * 8 + column]] <= distance.min() + 1e-6


def test_a_codebook_vector_keeps_its_place_on_the_grid(model: VQGAN) -> None:
    codes = torch.arange(64).remainder(20)[None]
    quantized = model.quantize.lookup(codes, 8, 8)
    assert torch.equal(quantized[0, :, 3, 5], model.quantize.embedding.weight[codes[0, 3 * 8 + 5]])


def test_pictures_of_a_batch_do_not_touch_each_other(model: VQGAN) -> None:
    both = model.encode(pixels())
    assert torch.equal(both[1:], model.encode(pixels()[1:]))


def test_decoded_pixels_lie_in_range(model: VQGAN) -> None:
    with torch.no_grad():
        model.decoder.conv_out.bias.fill_(5.0)  # type: ignore[union-attr]
    picture = model.decode(torch.zeros(1, 64, dtype=torch.int64))
    assert picture.shape == (1, 3, 16, 16)
    assert picture.dtype == torch.float32
    assert float(picture.max()) == 1.0


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 63, dtype=torch.int64), "64 codes"),
        (torch.zeros(64, dtype=torch.int64), "64 codes"),
        (torch.full((1, 64), 20), "0…19"),
        (torch.full((1, 64), -1), "0…19"),
    ],
)
def test_codes_that_do_not_fit_are_refused(model: VQGAN, codes: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.decode(codes)


def test_half_of_a_model_loads_and_says_which_half_it_lacks(model: VQGAN) -> None:
    tensors = {**model.state_dict(), "loss.logvar": torch.zeros(1)}
    reader = build_vqgan(CONFIG, tensors, decoder=False)
    assert torch.equal(reader.encode(pixels()), model.encode(pixels()))
    with pytest.raises(ValueError, match="without its decoder"):
        reader.decode(torch.zeros(1, 64, dtype=torch.int64))
    writer = build_vqgan(CONFIG, tensors, encoder=False)
    with pytest.raises(ValueError, match="without its encoder"):
        writer.encode(pixels())


def test_damaged_weights_are_named(model: VQGAN) -> None:
    name = "decoder.conv_out.bias"
    good = dict(model.state_dict())
    with pytest.raises(CheckpointError, match=name):
        build_vqgan(CONFIG, {key: value for key, value in good.items() if key != name})
    with pytest.raises(CheckpointError, match=name):
        build_vqgan(CONFIG, {**good, name: torch.zeros(4)})
    with pytest.raises(CheckpointError, match=name):
        build_vqgan(CONFIG, {**good, name: torch.full((3,), float("nan"))})
