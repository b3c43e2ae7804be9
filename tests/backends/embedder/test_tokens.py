"""Length of a text in a model's tokens, and the part that it reads: by its own tokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cache_core import ConfigurationError, MultiLevelCache
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.backends.embedder.sentence_transformers import SentenceTransformerEncoder
from cache_core.backends.embedder.tokens import TokenCounter
from tests.support.caches import CacheFactory
from tests.support.modules import require
from tests.support.patience import PATIENT

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: E402 - if it is there

SENTENCES = [
    "how do i cancel my order",
    "where is my package",
    "the shop opens at nine, please?",
] * 20


def byte_level() -> Any:
    """RoBERTa's kind: it makes tokens of bytes, and has an unknown token that it never makes."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    made.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    ))  # fmt: skip
    return made


def pieces(unknown: str | None = None) -> Any:
    """Byte pairs of letters; without an unknown token they drop what they do not know."""
    made = Tokenizer(models.BPE(unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [unknown] if unknown else []
    made.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=120, special_tokens=special, show_progress=False
    ))  # fmt: skip
    return made


def unigram() -> Any:
    """SentencePiece's kind: the unknown token is a number in the model."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(SENTENCES, trainers.UnigramTrainer(
        vocab_size=80, unk_token="<unk>", special_tokens=["<pad>", "<unk>"], show_progress=False
    ))  # fmt: skip
    return made


def whole_words() -> Any:
    """Static models' kind: a token a word."""
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(
        special_tokens=["[UNK]"], show_progress=False
    ))  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("made", "known", "unknown"),
    [
        (byte_level(), ["where is 日本", "👍", "x" * 150], ["\ud800"]),
        (pieces(), ["where is my order", "is \u200b my"], ["where is 日本", "Zürich", "\ud800"]),
        (pieces("[UNK]"), ["where is my order"], ["where is 日本", "Zürich"]),
        (unigram(), ["where is my order"], ["where is 日本", "👍"]),
        (whole_words(), ["where is my order"], ["where is my parcel", "日本"]),
    ],
    ids=["bytes", "pieces", "pieces-unk", "unigram", "words"],
)
def test_what_a_tokenizer_does_not_know_is_found(
    made: Any, known: list[str], unknown: list[str]
) -> None:
    """A tokenizer makes an unknown token of it, drops it, or has a token for every byte."""
    reader = TokenCounter.of(made)
    assert [reader.knows(text) for text in known] == [True] * len(known)
    assert [reader.knows(text) for text in unknown] == [False] * len(unknown)


@pytest.mark.parametrize("made", [byte_level(), pieces("[UNK]"), unigram(), whole_words()])
def test_the_window_is_counted_in_tokens(made: Any) -> None:
    """To the token, whatever makes many tokens of a character; the model's own prompt counts."""
    text = "where is 日本 👍 xyz order"
    tokens = len(made.encode(text).ids)
    assert TokenCounter.of(made).fits(text, tokens)
    assert not TokenCounter.of(made).fits(text, tokens - 1)
    assert not TokenCounter.of(made, prompt="where is my order ").fits(text, tokens)
    assert TokenCounter.of(made).fits(text * 10_000, float("inf"))


def test_truncation_and_padding_of_the_model_do_not_count() -> None:
    """A tokenizer that cuts and fills its texts is counted without, and left as it is."""
    made = byte_level()
    made.enable_truncation(8)
    made.enable_padding(length=64)
    counter = TokenCounter.of(SimpleNamespace(backend_tokenizer=made))
    assert counter.fits("a b", 10)
    assert not counter.fits("where is 日本 " * 5, 10)
    assert made.truncation is not None


def test_a_tokenizer_that_cannot_count_is_refused() -> None:
    """The type and the variable are named."""
    with pytest.raises(ConfigurationError, match=r"SimpleNamespace.*EMBEDDING_MODEL"):
        TokenCounter.of(SimpleNamespace())


def test_the_packaged_model_counts_hangul_and_finds_long_words(
    real_embedder: ThreadEmbedder,
) -> None:
    """A syllable of Hangul is several tokens to it, and a word of over 100 letters is unknown."""
    assert real_embedder.fits("where is my order " * 60)
    assert not real_embedder.fits("where is my order " * 64)
    assert not real_embedder.fits("안녕하세요 " * 40)
    assert real_embedder.knows("is this it: " + "ACGT" * 25)
    assert not real_embedder.knows("is this it: " + "ACGT" * 26)
    assert not real_embedder.knows("ACGT" * 30 + "!")


async def test_unrelated_long_words_get_no_answer(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder
) -> None:
    """Two sequences are one unknown token each, and so 1.0 alike: not searched."""
    cache: MultiLevelCache = await make_cache(embedding_model=real_embedder, settings=PATIENT)
    await cache.ready()
    letters = random.Random(1)
    one, two = ("".join(letters.choices("ACGT", k=120)) for _ in range(2))
    await cache.put(f"which protein does this gene encode: {one}", "ann", "A1")
    found = await cache.lookup(f"which protein does this gene encode: {two}", "ann")
    assert (found.response, found.reasons[-1]) == (None, "unreadable")


async def test_what_the_model_would_cut_is_truncated_in_any_language(
    make_cache: CacheFactory, real_embedder: ThreadEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two long messages with the same beginning are not taken for the same."""
    monkeypatch.setenv("CACHE_LANGUAGES", "any")
    cache: MultiLevelCache = await make_cache(embedding_model=real_embedder, settings=PATIENT)
    await cache.ready()
    start = (
        "안녕하세요 저는 지난 주 월요일 에 온라인 에서 신발 을 사서 오늘 보니 사이즈 가 너무 커요 "
        * 4
    )
    assert len(start) < 256
    await cache.put(start + "환불 주세요", "ann", "refund")
    found = await cache.lookup(start + "신발 교환 해 주세요", "ann")
    assert (found.response, found.reasons[-1]) == (None, "truncated")


def save_static(place: Path, made: Any) -> str:
    """Save a model that is a table of vectors, for a tokenizer; return its directory."""
    require("sentence_transformers")
    import sentence_transformers

    try:
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    except ImportError:
        from sentence_transformers.models import StaticEmbedding  # type: ignore[no-redef]
    weights = np.random.default_rng(1).standard_normal((made.get_vocab_size(), 64))
    static = StaticEmbedding(made, embedding_weights=weights.astype("float32"))
    sentence_transformers.SentenceTransformer(modules=[static], device="cpu").save(str(place))
    return str(place)


@pytest.mark.slow
async def test_a_static_model_is_loaded_and_serves(
    make_cache: CacheFactory, tmp_path: Path
) -> None:
    """A model that is a table of vectors has a bare tokenizer and no window."""
    directory = save_static(tmp_path / "static", whole_words())
    encoder = SentenceTransformerEncoder(directory)
    assert encoder.fits("where is my order " * 10_000)
    assert encoder.knows("where is my order")
    assert not encoder.knows("where is my parcel")
    cache: MultiLevelCache = await make_cache(
        embedding_model=directory, settings=PATIENT, semantic_threshold=0.6
    )
    await cache.ready()
    await cache.put("where is my order", "ann", "There.")
    assert (await cache.lookup("where is my order, please?", "ann")).tier == "l2"


@pytest.mark.slow
def test_the_window_of_a_static_model_is_what_its_tokenizer_keeps(tmp_path: Path) -> None:
    """A static model reads no more than its own tokenizer, which may truncate."""
    made = whole_words()
    made.enable_truncation(8)
    encoder = SentenceTransformerEncoder(save_static(tmp_path / "static", made))
    assert encoder.fits("where is my order " * 2)
    assert not encoder.fits("where is my order " * 2 + "please")
    one, two = encoder.encode(["where is my order " * 2 + end for end in ("cancel", "please")])
    assert (one == two).all(), "the model reads the same of both"
