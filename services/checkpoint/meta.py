"""Meta's layout, as Chameleon, Anole and MedMax were published in it.

models/<name>/params.json                the transformer's shape
models/<name>/consolidate_params.json    number of model-parallel shards
models/<name>/consolidated.pth           weights; or one consolidated.NN.pth per shard
tokenizer/text_tokenizer.json, vqgan.ckpt, vqgan.yaml
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.checkpoint.checkpoint import Checkpoint, Layout
from services.checkpoint.checks import check_vocabulary, check_weights
from services.checkpoint.config import ModelConfig
from services.checkpoint.extras import extras
from services.checkpoint.files import read_json
from services.checkpoint.names import from_pairs, is_head_norm, is_rotated, meta_name
from services.checkpoint.stored import StoredTensor, read_torch, require_finite
from services.checkpoint.tensors import StoredWeights, Weights
from services.checkpoint.vocabulary import Vocabulary
from services.checkpoint.vq import CKPT, YAML, config_of_yaml, read_ckpt
from services.errors import CheckpointError

PARAMS, SHARDS_FILE, WHOLE = "params.json", "consolidate_params.json", "consolidated.pth"
TEXT_TOKENIZER = "text_tokenizer.json"
CONTEXT = 4096
"""Of every published model; params.json does not say."""

Shard = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class MetaFolders:
    """Where the parts of a checkpoint lie; `root` holds both."""

    root: Path
    model: Path
    tokenizer: Path


def find_meta(path: Path) -> MetaFolders | None:
    """The folders of a checkpoint in Meta's layout whose root, or one of whose models, is `path`.

    Raises:
        CheckpointError: there are several models below the root.
    """

    def is_model(folder: Path) -> bool:
        return (folder / PARAMS).is_file() or any(folder.glob("consolidated*.pth"))

    if is_model(path):
        beside = [path / "tokenizer", path.parent.parent / "tokenizer", path.parent / "tokenizer"]
        tokenizer = next((folder for folder in beside if folder.is_dir()), beside[1])
        return MetaFolders(tokenizer.parent, path, tokenizer)
    models = [folder for folder in sorted((path / "models").glob("*")) if is_model(folder)]
    if len(models) > 1:
        names = ", ".join(folder.name for folder in models)
        raise CheckpointError(f"models/ holds {names}; name one of these folders", field="checkpoint")
    return MetaFolders(path, models[0], path / "tokenizer") if models else None


def open_meta(folders: MetaFolders) -> Checkpoint:
    """Describe a directory in Meta's layout.

    Raises:
        CheckpointError: a file, setting or tensor is missing or damaged, or two of them disagree.
    """
    params = read_json(folders.model / PARAMS)
    files = _weight_files(folders.model)
    shards: list[Shard] = [read_torch(file) for file in files]
    provenance, generation, context = extras(folders.root)
    vq_config = config_of_yaml(folders.tokenizer / YAML)
    vocabulary = Vocabulary.from_file(folders.tokenizer / TEXT_TOKENIZER)
    config = _config(params, shards, vocabulary.size, context or CONTEXT)
    check_vocabulary(config, vq_config, vocabulary, TEXT_TOKENIZER, exact=True)
    weights = MetaWeights(shards, config)
    check_weights(config, weights, "consolidated*.pth", PARAMS)
    ckpt = folders.tokenizer / CKPT
    return Checkpoint(
        config=config,
        vq_config=vq_config,
        vocabulary=vocabulary,
        generation=generation,
        provenance=provenance,
        weights=weights,
        vqgan_weights=StoredWeights(read_ckpt(ckpt)),
        weight_files=(*files, ckpt),
        layout=Layout.META,
    )


class MetaWeights(Weights):
    """Model-parallel shards, joined and in Hugging Face's order while they are read."""

    def __init__(self, shards: Sequence[Shard], config: ModelConfig) -> None:
        """
        Raises:
            CheckpointError: a shard lacks a tensor that another has.
        """
        self._shards, self._config, self._shapes = shards, config, config.shapes()
        for name in self._shapes:
            have = [meta_name(name) in shard for shard in shards]
            if any(have) and not all(have):
                file = next(iter(shards[have.index(False)].values())).file.name
                raise CheckpointError(f"lacks tensor {meta_name(name)}; copy it again", field=file)

    def _pieces(self, name: str) -> list[StoredTensor]:
        if name not in self._shapes:
            raise KeyError(name)
        return [shard[meta_name(name)] for shard in self._shards]

    def shape(self, name: str) -> tuple[int, ...]:
        pieces, wanted = self._pieces(name), self._shapes[name]
        if is_head_norm(name):
            # One row stands for all of a shard's heads.
            return (wanted[0], *pieces[0].shape) if len(pieces[0].shape) == 1 else pieces[0].shape
        axis = _joined_axis(pieces, wanted)
        return tuple(
            sum(p.shape[d] for p in pieces) if d == axis else n for d, n in enumerate(pieces[0].shape)
        )

    def dtype(self, name: str) -> torch.dtype:
        return self._pieces(name)[0].dtype

    def part(self, name: str, axis: int, start: int, stop: int) -> Tensor:
        pieces, head_dim = self._pieces(name), self._config.head_dim
        if is_head_norm(name):
            heads = self._shapes[name][0] // len(pieces)
            rows = torch.cat([from_pairs(p.read(), head_dim).expand(heads, -1) for p in pieces])
            tensor = rows.narrow(axis, start, stop - start).contiguous()
        else:
            tensor = _join(pieces, _joined_axis(pieces, self._shapes[name]), axis, start, stop)
            if is_rotated(name) and tensor.shape[0] % head_dim == 0 and start % head_dim == 0:
                tensor = from_pairs(tensor, head_dim)
            elif is_rotated(name):
                raise ValueError(f"{name} is read by whole heads only")
        return require_finite(tensor, name, pieces[0].file.name)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes and meta_name(str(name)) in self._shards[0]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._shapes if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _joined_axis(pieces: Sequence[StoredTensor], whole: tuple[int, ...]) -> int | None:
    """The axis along which shards divide a tensor; None where each holds all of it."""
    shape = pieces[0].shape
    if len(pieces) == 1 or shape == whole or len(shape) != len(whole):
        return None
    return next((d for d, n in enumerate(shape) if n * len(pieces) == whole[d]), 0)


def _join(pieces: Sequence[StoredTensor], joined: int | None, axis: int, start: int, stop: int) -> Tensor:
    if joined is None:
        return pieces[0].read(axis, start, stop)
    if joined != axis:
        return torch.cat([piece.read(axis, start, stop) for piece in pieces], joined)
    parts, first = [], 0
    for piece in pieces:
        length = piece.shape[axis]
        low, high = max(start - first, 0), min(stop - first, length)
        if low < high:
            parts.append(piece.read(axis, low, high))
        first += length
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    numbered = sorted(folder.glob("consolidated.[0-9][0-9].pth"))
    count = len(numbered)
    if (folder / SHARDS_FILE).is_file():
        stated = read_json(folder / SHARDS_FILE).get("model_parallel_size")
        count = stated if isinstance(stated, int) and stated > 1 else count
    if numbered:
        count = max(count, int(numbered[-1].name.split(".")[1]) + 1)
    files = [folder / f"consolidated.{index:02d}.pth" for index in range(count)] or [folder / WHOLE]
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{file.name} is missing; the model has {len(files)} such files, copy it again",
                field=file.name,
            )
    return files


def _config(params: Mapping[str, Any], shards: Sequence[Shard], ids: int, context: int) -> ModelConfig:
    model = params.get("model", params)
    inner = [shard.get("layers.0.feed_forward.w1.weight") for shard in shards]
    if any(tensor is None for tensor in inner):
        raise CheckpointError(
            "lacks tensor layers.0.feed_forward.w1.weight; it holds no Chameleon model", field=WHOLE
        )
    try:
        if not model.get("qk_normalization", True):
            raise CheckpointError(f"{PARAMS}: qk_normalization false is not supported", field=PARAMS)
        vocabulary = model.get("vocab_size", -1)
        values = {
            "vocab_size": vocabulary if vocabulary != -1 else ids,
            "hidden_size": model["dim"],
            "num_hidden_layers": model["n_layers"],
            "num_attention_heads": model["n_heads"],
            "num_key_value_heads": model.get("n_kv_heads") or model["n_heads"],
            "intermediate_size": sum(tensor.shape[0] for tensor in inner if tensor is not None),
            "max_position_embeddings": context,
            "rope_theta": model.get("rope_theta", 10_000.0),
            "rms_norm_eps": model.get("norm_eps", 1e-5),
            "swin_norm": model.get("swin_norm", False),
            "tie_word_embeddings": _tied(shards),
        }
        return ModelConfig.from_json(values)
    except (KeyError, AttributeError) as error:
        raise CheckpointError(f"{PARAMS} lacks {error}; copy it again", field=PARAMS) from None
    except CheckpointError as error:
        raise CheckpointError(error.message.replace("config.json", PARAMS), field=error.field) from None


def _tied(shards: Sequence[Shard]) -> bool:
    """Whether input and output embedding are one: stored once, or not at all the second time."""
    head, embedding = shards[0].get("output.weight"), shards[0].get("tok_embeddings.weight")
    return head is None or head == embedding
