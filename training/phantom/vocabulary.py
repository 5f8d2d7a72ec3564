"""The small model's vocabulary: Chameleon's special names, its image codes, byte-level BPE for text."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from services.checkpoint.vocabulary import BEGIN_IMAGE, BOS, END_IMAGE, END_OF_TURN, EOS, PAD, UNK, code_name

IMAGE_PLACEHOLDER = "<reserved08707>"


def tokenizer_json(texts: Iterable[str], n_codes: int, text_entries: int) -> str:
    """A `tokenizer.json` in the order of the published ones: specials, codes, specials, text.

    Any text can be encoded: all 256 bytes are entries; `text_entries` counts them and the merges.
    """
    first = [BOS, PAD, EOS, UNK]
    last = [END_IMAGE, BEGIN_IMAGE, END_OF_TURN, IMAGE_PLACEHOLDER]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=text_entries,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    names = [*first, *(code_name(code) for code in range(n_codes)), *last, *(name for name, _ in learned)]
    merges = _merges(learner)
    tokenizer = Tokenizer(
        models.BPE({name: index for index, name in enumerate(names)}, merges, unk_token=UNK)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in (*first, *last)])
    return tokenizer.to_str()


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    described = json.loads(learner.to_str())["model"]["merges"]
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in described]
