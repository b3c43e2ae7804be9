"""A CrossEncoder as the approver: tiny models run by sentence-transformers."""

from __future__ import annotations

import logging
import math
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from cache_core import ConfigurationError, CrossEncoderApprover, MultiLevelCache
from cache_core.backends.approver import cross_encoder
from cache_core.model.exceptions import BackendError
from tests.docs.test_approval_page import CROSS_ENCODER
from tests.operations.test_learning import ASKED, NEAR
from tests.support import processes
from tests.support.caches import CacheFactory
from tests.support.cross_encoders import tiny_cross_encoder
from tests.support.modules import require
from tests.support.patience import PATIENT
from tests.support.waiting import until

WORDS = [*ASKED.split(), *NEAR.split()]
LABELS = ["contradiction", "entailment", "neutral"]


def logits(model: str, *pair: str) -> list[float]:
    """Return the outputs of sentence-transformers itself."""
    import torch
    from sentence_transformers import CrossEncoder

    encoder: Any = CrossEncoder(model, device="cpu", local_files_only=True)
    found = encoder.predict([pair], activation_fn=torch.nn.Identity(), show_progress_bar=False)
    return [float(value) for value in found.reshape(-1)]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with one output."""
    return tiny_cross_encoder(tmp_path_factory.mktemp("single"), ["score"], WORDS)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with three outputs."""
    return tiny_cross_encoder(tmp_path_factory.mktemp("several"), LABELS, WORDS)


@pytest.mark.slow
@pytest.mark.timeout(400)  # the first one imports torch
def test_the_lesser_sigmoid_of_both_orders_decides(single: str) -> None:
    """A score of exactly the limit approves, and a greater limit rejects."""
    outputs = [*logits(single, ASKED, NEAR), *logits(single, NEAR, ASKED)]
    assert len(set(outputs)) == 2
    score = 1 / (1 + math.exp(-min(outputs)))
    for at_least, approved in ((score - 1e-4, True), (score + 1e-4, False)):
        approve = CrossEncoderApprover(single, at_least)
        approve.load()
        assert approve(ASKED, NEAR, "the answer") is approved
        assert approve(NEAR, ASKED, "another answer") is approved


@pytest.mark.slow
@pytest.mark.parametrize("label", ["entailment", 1])
def test_the_softmax_of_a_label_decides(several: str, label: str | int) -> None:
    """The named output counts, of several."""
    shares = []
    for pair in ((ASKED, NEAR), (NEAR, ASKED)):
        powers = [math.exp(value) for value in logits(several, *pair)]
        shares.append(powers[1] / sum(powers))
    for at_least, approved in ((min(shares) - 1e-4, True), (min(shares) + 1e-4, False)):
        approve = CrossEncoderApprover(Path(several), at_least, label=label)
        approve.load()
        assert approve(ASKED, NEAR, "the answer") is approved


@pytest.mark.slow
def test_what_the_model_cannot_read_is_rejected(single: str) -> None:
    """An unknown word, a lone surrogate, and texts that would be cut."""
    approve = CrossEncoderApprover(single, 1e-9)
    approve.load()
    assert approve(ASKED, ASKED, "")
    for text in (f"{ASKED} today", f"{ASKED} \ud800", f"{ASKED} {ASKED} {ASKED}"):
        assert not approve(text, ASKED, "")
        assert not approve(ASKED, text, "")


@pytest.mark.slow
@pytest.mark.parametrize("store_kind", ["embedded"])
async def test_nothing_is_approved_before_it_is_loaded(
    make_cache: CacheFactory, single: str
) -> None:
    """The first lookup starts loading, off the loop, and is a miss; the breaker stays closed."""
    approve = CrossEncoderApprover(single, 1e-9)
    cache: MultiLevelCache = await make_cache(approve=approve, settings=PATIENT)
    await cache.tune({"approve_margin": 0.1}, author="test")
    await cache.put(ASKED, "ann", "the answer", shared=True)
    with approve._busy:
        for _ in range(7):
            assert (await cache.lookup(NEAR, "bob")).reasons[-1] == "approval_failed"
    assert cache.state.breakers["approver"] == "closed"

    async def served() -> bool:
        return (await cache.lookup(NEAR, "bob")).response == "the answer"

    await until(served, 60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("outputs", "label", "named"),
    [
        (3, None, r"label= must name .*: 0 \(contradiction\), 1 \(entailment\), 2 \(neutral\)"),
        (3, "same", "label='same' names none"),
        (3, 3, "label=3 names none"),
        (3, True, "label=True names none"),
        (1, "entailment", "single output"),
        (0, None, "FileNotFoundError"),
    ],
)
def test_a_model_that_cannot_be_used_is_explained(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, tmp_path: Path,
    outputs: int, label: Any, named: str,
) -> None:  # fmt: skip
    """The reason is raised by `load` and by each call, and logged once."""
    require("sentence_transformers")
    fixture = {1: "single", 3: "several"}.get(outputs)
    model = request.getfixturevalue(fixture) if fixture else str(tmp_path / "none")
    approve = CrossEncoderApprover(model, label=label)
    with caplog.at_level(logging.ERROR, "glasscache"):
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=named):
                approve.load()
        with pytest.raises(ConfigurationError, match=named):
            approve(ASKED, NEAR, "")
    assert len(caplog.records) == 1


@pytest.mark.slow
def test_a_model_in_use_during_a_fork_is_loaded_again(single: str) -> None:
    """An idle one serves the child as it is; a thread of the parent's is in the child no more."""
    approve = CrossEncoderApprover(single, 1e-9)
    approve.load()
    approve.forked()
    assert approve(ASKED, NEAR, "")
    approve._busy.acquire()
    approve.forked()
    with pytest.raises(BackendError, match="overloaded"):
        approve(ASKED, NEAR, "")
    approve.load()
    assert approve(ASKED, NEAR, "")
    approve.close()
    with pytest.raises(BackendError, match="backend_error"):
        approve(ASKED, NEAR, "")


@pytest.mark.slow
def test_the_program_of_the_page_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a local model in place of the one that a hub has; in this process, which has torch."""
    program, shown = CROSS_ENCODER
    words = re.findall(r"\w+|[?]", "How do I reset my password? How can I change my password?")
    model = tiny_cross_encoder(tmp_path / "model", ["score"], words, constant=2.0)
    named = program.replace("cross-encoder/quora-roberta-base", model)
    assert named != program
    (tmp_path / "page.py").write_text(named, encoding="utf-8")
    for name, value in {**processes.ENVIRONMENT, "CACHE_DIR": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    runpy.run_path(str(tmp_path / "page.py"), run_name="__main__")
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("wrong", [0, -0.1, 1.1, math.nan])
def test_a_limit_out_of_range_is_rejected(wrong: float) -> None:
    """A limit of 0 would approve everything."""
    with pytest.raises(ConfigurationError, match="more than 0"):
        CrossEncoderApprover("m", wrong)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the model and the extra."""
    monkeypatch.setattr(cross_encoder, "is_installed", lambda: False)
    with pytest.raises(
        ConfigurationError, match=r"'m' needs .* pip install 'glasscache\[models\]'"
    ):
        CrossEncoderApprover("m")
