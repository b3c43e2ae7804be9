"""Choice between onnxruntime and sentence-transformers, and whose vectors may be compared."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cache_core import ConfigurationError, Settings
from cache_core.backends.embedder import onnx, sentence_transformers
from cache_core.backends.embedder.choosing import Backend, chosen, make_embedder, shared_embedder
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.identity import identity_of
from tests.support.modules import require

ANOTHER = "paraphrase-multilingual-MiniLM-L12-v2"


@pytest.mark.parametrize(
    ("model", "backend", "installed", "expected"),
    [
        (PACKAGED_MODEL, "auto", "onnx torch", "onnx"),
        (f"sentence-transformers/{PACKAGED_MODEL}", "auto", "onnx", "onnx"),
        (PACKAGED_MODEL, "auto", "torch", "torch"),
        (PACKAGED_MODEL, "auto", "", "onnx"),
        (ANOTHER, "auto", "onnx torch", "torch"),
        (ANOTHER, "auto", "onnx", "torch"),
        ("/models/all-MiniLM-L6-v2", "auto", "onnx torch", "torch"),
        (PACKAGED_MODEL, "torch", "onnx", "torch"),
        (PACKAGED_MODEL, "onnx", "torch", "onnx"),
        (ANOTHER, "onnx", "onnx torch", "onnx"),
    ],
)
def test_what_runs_a_model(
    monkeypatch: pytest.MonkeyPatch, model: str, backend: Backend, installed: str, expected: str
) -> None:
    """By itself, onnxruntime where the packages are installed, for one model."""
    monkeypatch.setattr(onnx, "is_installed", lambda: "onnx" in installed)
    monkeypatch.setattr(sentence_transformers, "is_installed", lambda: "torch" in installed)
    assert chosen(model, backend) == expected


def test_another_model_is_refused_on_onnx(tmp_path: Path) -> None:
    """The error names both settings that would help."""
    embedder = make_embedder(ANOTHER, "onnx")
    with pytest.raises(ConfigurationError, match=rf"{ANOTHER}.*EMBEDDING_BACKEND=auto.*\[models\]"):
        asyncio.run(embedder.wait_ready())


def test_weights_of_other_precision_are_another_model() -> None:
    """Their vectors differ, so that none is compared with the other's."""
    require("onnxruntime")
    light, exact = make_embedder(backend="onnx"), make_embedder(backend="torch")
    assert identity_of(light) == onnx.IDENTITY
    assert identity_of(exact) == PACKAGED_MODEL
    assert identity_of(make_embedder(f"sentence-transformers/{PACKAGED_MODEL}", "onnx")) == (
        onnx.IDENTITY
    )


def test_caches_share_what_runs_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """One embedder for `auto` and what it stands for; another for the other library."""
    monkeypatch.setattr(onnx, "is_installed", lambda: True)
    assert shared_embedder() is shared_embedder(PACKAGED_MODEL, "onnx")
    assert shared_embedder() is not shared_embedder(PACKAGED_MODEL, "torch")


def test_the_setting_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMBEDDING_BACKEND says it; by itself it is `auto`."""
    from cache_core.config.settings import load_settings

    assert Settings().embedding_backend == "auto"
    monkeypatch.setenv("EMBEDDING_BACKEND", "torch")
    assert load_settings().embedding_backend == "torch"
