"""Meta's layout, as Chameleon, Anole and MedMax were published in it.

models/<name>/params.json                the transformer's shape
models/<name>/consolidate_params.json    number of model-parallel shards
models/<name>/consolidated.pth           weights; or one consolidated.NN.pth per shard
tokenizer/text_tokenizer.json, vqgan.ckpt, vqgan.yaml
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.checkpoint.checkpoint import Checkpoint, Layout
from services.checkpoint.checks import check_vocabulary, check_weights
from services.checkpoint.config import ModelConfig
from services.checkpoint.extras import extras
from services.checkpoint.files import read_json
from services.checkpoint.formats import read_torch
from services.checkpoint.meta_weights import MetaWeights, Shard
from services.checkpoint.tensors import StoredWeights
from services.checkpoint.vocabulary import Vocabulary
from services.checkpoint.vq import CKPT, YAML, config_of_yaml, read_ckpt
from services.errors import CheckpointError

PARAMS, SHARDS_FILE, WHOLE = "params.json", "consolidate_params.json", "consolidated.pth"
TEXT_TOKENIZER = "text_tokenizer.json"
CONTEXT = 4096
"""Of every published model; params.json does not say."""


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
