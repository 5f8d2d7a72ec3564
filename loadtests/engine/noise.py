"""Random checkpoints of any size that exist only in their description: nothing of their size is held in memory."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from services.checkpoint import Checkpoint, GenerationDefaults, ModelConfig, Vocabulary, code_name
from services.checkpoint.tensors import Weights
from services.checkpoint.vocabulary import BEGIN_IMAGE, BOS, END_IMAGE, END_OF_TURN, EOS, PAD, UNK
from services.vqgan import VQGAN, VQConfig

HEAD = "lm_head.weight"
_SPECIAL = (BOS, PAD, EOS, UNK)
_STEERING = (BEGIN_IMAGE, END_IMAGE, END_OF_TURN, "<reserved08707>")
_PERIOD = 1_000_003  # prime: no two rows of a matrix are the same


@dataclass(frozen=True)
class Shape:
    """Of a random model: hidden and inner size, layers, heads, ids of the vocabulary, codes among them, side of a picture."""

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    codes: int = 8192
    grid: int = 32
    context: int = 4096

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            intermediate_size=self.inner,
            max_position_embeddings=self.context,
        )


def never_ends(head: Tensor, vocabulary: Vocabulary) -> Tensor:
    """A copy of the head [ids, hidden] under which greedy text does not end and is whole characters.

    Peers can be told to go on after an end token, our engine cannot. So the rows of end tokens, and of bytes that are no
    whole character, become the mean of the text rows: their logit is the mean of those, and never the largest.
    """
    whole = [int(i) for i in vocabulary.text_ids if "\ufffd" not in vocabulary.decode([int(i)])]
    drawn = torch.zeros(len(head), dtype=torch.bool)
    drawn[whole] = True
    drawn[torch.from_numpy(vocabulary.code_ids)] = True
    changed = head.clone()
    changed[~drawn] = head[whole].float().mean(0).to(head.dtype)
    return changed


def random_checkpoint(shape: Shape, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Noise of standard deviation 0.02, the same every time; its text never ends."""
    vocabulary = Vocabulary(tokenizer_json(shape.vocabulary, shape.codes))
    vq_config = small_vq_config(shape.codes, shape.grid)
    return Checkpoint(
        config=shape.config,
        vq_config=vq_config,
        vocabulary=vocabulary,
        generation=GenerationDefaults(),
        provenance={"command": "loadtests.engine"},
        weights=_Noise(shape.config, vocabulary, dtype),
        vqgan_weights=small_vqgan(vq_config),
        weight_files=(),
    )


def tokenizer_json(size: int, codes: int) -> str:
    """A byte-level tokenizer of `size` ids: steering tokens, codes, bytes, pairs and triples of letters, reserved ids."""
    letters = string.ascii_lowercase
    pairs = [(a, b) for a in letters for b in letters]
    merges = pairs + [(a + b, c) for a, b in pairs for c in letters]
    names = [*_SPECIAL, *(code_name(k) for k in range(codes)), *_STEERING]
    names += sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = merges[: size - len(names)]
    names += [a + b for a, b in merges]
    names += [f"<reserved{i:05d}>" for i in range(len(names) + 10_000, size + 10_000)]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in (*_SPECIAL, *_STEERING)])
    return str(tokenizer.to_str())


def small_vq_config(codes: int, grid: int) -> VQConfig:
    """8 pixels a code, and as few channels as transformers' group norms take."""
    return VQConfig(
        resolution=8 * grid,
        ch=32,
        ch_mult=(1, 1, 1, 1),
        num_res_blocks=1,
        z_channels=32,
        embed_dim=8,
        n_embed=codes,
    )


def small_vqgan(config: VQConfig) -> Weights:
    """A random VQ-GAN's tensors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _Held(VQGAN(config).state_dict())


class _Noise(Weights):
    def __init__(self, config: ModelConfig, vocabulary: Vocabulary, dtype: torch.dtype) -> None:
        self._shapes, self._vocabulary = config.shapes(), vocabulary
        noise = torch.randn(_PERIOD, generator=torch.Generator().manual_seed(0)) * 0.02
        self._noise = noise.to(dtype)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        return self._noise.dtype

    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        shape = self._shapes[name]
        count = torch.Size(shape).numel()
        noise = self._noise.roll(sum(name.encode()))
        tensor = noise.repeat(-(-count // _PERIOD))[:count].view(shape)
        if name == HEAD:
            tensor = never_ends(tensor, self._vocabulary)
        elif "norm" in name and name.endswith("weight"):
            tensor = tensor + 1
        return tensor.narrow(axis, start, stop - start).contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


class _Held(Weights):
    """Tensors in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        tensor = self._tensors[name]
        return tensor.narrow(axis, start, stop - start).contiguous() if tensor.ndim else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
