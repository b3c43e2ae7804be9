"""Cross-encoders of a few hundred weights, as sentence-transformers loads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.support.modules import require

_WINDOW = 32


def tiny_cross_encoder(
    directory: Path, labels: Sequence[str], words: Iterable[str], constant: float | None = None
) -> str:
    """Make a BERT with random weights in *directory*; return its path.

    Args:
        directory: Where it is saved.
        labels: Names of its outputs.
        words: Words that it knows.
        constant: Output for every pair in place of a random one.
    """
    require("sentence_transformers")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(set(words))]
    made = Tokenizer(
        models.WordLevel({token: place for place, token in enumerate(tokens)}, "[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=_WINDOW, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    torch.manual_seed(1)
    untyped: Any = BertConfig
    config = untyped(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=_WINDOW, initializer_range=1.0,
        num_labels=len(labels), id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
    )  # fmt: skip
    model: Any = BertForSequenceClassification(config)
    if constant is not None:
        torch.nn.init.zeros_(model.classifier.weight)
        torch.nn.init.constant_(model.classifier.bias, constant)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)
