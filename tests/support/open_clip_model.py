"""Writes small random open_clip folders, scores with them, and says what it found: run by test_open_clip.py.

    python -m tests.support.open_clip_model OPEN_CLIP_FOLDER OUT

A process of its own, since torchvision's CUDA build, once imported beside torch's CPU build, changes what transformers does.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

SIZE, WIDTH = 32, 32
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = ("a film of the chest", "a mass on the left")


def declare_operators() -> torch.library.Library:
    """torchvision describes operators of its CUDA library when it is imported; here that library is absent."""
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "DEF")
    for first, second in sorted(set(re.findall(r'register_meta\("(\w+)"\)|torchvision::(\w+)', text))):
        library.define(f"{first or second}(Tensor x) -> Tensor")
    return library


def config(folder: Path, tower: str) -> dict[str, Any]:
    text: dict[str, Any] = {
        "context_length": 77,
        "vocab_size": 49408,
        "width": WIDTH,
        "heads": 2,
        "layers": 1,
    }
    if tower == "bert":  # BiomedCLIP's form: its text tower is a BERT of transformers
        name = str(bert(folder))
        text = {"hf_model_name": name, "hf_tokenizer_name": name, "hf_proj_type": "mlp", "context_length": 16,
                "hf_model_pretrained": False, "hf_pooler_type": "mean_pooler"}  # fmt: skip
    vision = {"layers": 2, "width": WIDTH, "patch_size": 16, "image_size": SIZE, "head_width": 16}
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}


def bert(folder: Path) -> Path:
    from transformers import BertConfig, BertTokenizerFast

    place = folder / "bert"
    place.mkdir()
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *sorted({w for text in WORDS for w in text.split()}),
    ]
    (place / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(place / "vocab.txt")).save_pretrained(
        folder
    )  # beside the weights, as BiomedCLIP's is
    BertConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    ).save_pretrained(place)
    return place


def write(folder: Path, tower: str) -> Any:
    """A folder in the form that the hub's open_clip models have; returns the model."""
    import open_clip
    from open_clip.model import CLIP, CustomTextCLIP
    from safetensors.torch import save_file

    folder.mkdir()
    model_cfg = config(folder, tower)
    torch.manual_seed(1)
    model = (CustomTextCLIP if tower == "bert" else CLIP)(**model_cfg)
    model.eval()
    wanted = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_cfg, "preprocess_cfg": wanted})
    )
    save_file(
        {name: t.contiguous() for name, t in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    assert open_clip.__version__
    return model


@torch.inference_mode()
def by_hand(
    model: Any, folder: Path, tower: str, shown: Image.Image, words: str
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings by the model that was written, with our own resizing and the tokenizer's own call."""
    from evaluation.scorers.clip import centred

    pixels = (np.asarray(centred(shown, SIZE), np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(
        STD, np.float32
    )
    image = model.encode_image(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()
    if tower == "bert":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer([words], padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    else:
        from open_clip import SimpleTokenizer

        ids = SimpleTokenizer(context_length=77)([words])
    return image, model.encode_text(ids)[0].numpy()


def main(out: Path) -> dict[str, Any]:
    from evaluation.scorers.clip import Clip, ClipImageText, load
    from evaluation.suite.example import Answer, Truth

    noise = np.random.default_rng(0).integers(256, size=(40, 48, 3), dtype=np.uint8)
    shown, file = Image.fromarray(noise), out / "shown.png"
    shown.save(file)
    found: dict[str, Any] = {}
    for tower in ("native", "bert"):
        folder = out / tower
        model = write(folder, tower)
        clip = load(folder)
        assert isinstance(clip, Clip), clip
        angles = []
        for words in WORDS:
            image, text = by_hand(model, folder, tower, shown, words)
            pairs = ((clip.image(shown), image), (clip.text(words), text))
            angles += [float(ours @ theirs / np.linalg.norm(theirs)) for ours, theirs in pairs]
        truth = Truth(WORDS[0], picture=file)
        score = asyncio.run(ClipImageText(folder).score(truth, Answer(text=WORDS[0])))
        expected = float(clip.image(shown) @ clip.text(WORDS[0]))
        found[tower] = {"agree": angles, "score": score.value, "expected": expected,
                        "apart": float(clip.text(WORDS[0]) @ clip.text(WORDS[1]))}  # fmt: skip
    (out / "native" / "open_clip_model.safetensors").write_bytes(b"{}")
    load.cache_clear()
    found["damaged"] = load(out / "native")
    return found


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    library = declare_operators()
    print(json.dumps(main(Path(sys.argv[2]))))
