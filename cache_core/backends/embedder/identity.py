"""Identity of an embedding model, independent of its name: a digest of its files.

A directory may get other weights, and the same weights may have two names. Vectors of different
models must never be compared, and those of one model should be found under each of its names.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cache_core.backends.base import Embedder
from cache_core.backends.embedder.encoder import ORGANISATION, PACKAGED_MODEL, is_packaged
from cache_core.backends.embedder.pool import ThreadEmbedder

PUBLISHED = "ad85469aa191774d724a3b323a916dcc"
"""Digest of the packaged model's files as published, with weights of 32 bits."""

_PUBLISHED_BYTES = 90_868_376
"""Size of their weights: other directories are not read to find out that they are others."""

_WHOLE_BYTES = 256 * 1_048_576
"""Larger files are sampled: a model of some gigabytes must not delay the start by seconds."""

_STEP = 1_048_576
_SAMPLE = 16_384
"""Bytes read of every `_STEP` of a large file. Training changes nearly every weight."""

_OTHER_FORMATS = {".h5", ".msgpack", ".ot", ".onnx", ".md", ".png", ".jpg", ".lock"}
_OTHER_FOLDERS = {"onnx", "openvino", "coreml", ".git", ".cache", "__pycache__"}
_OTHER_NAMES = {".gitattributes", ".gitignore", "data_config.json", "LICENSE", "train_script.py"}
_VOLATILE = {
    "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "__version__",
    "model_card_data",
}  # fmt: skip


def identity_of(embedder: Embedder) -> str:
    """Return the identity of *embedder*'s model; may read its files.

    Constant while *embedder* lives, as is its loaded model. An embedder without files is identified
    by its own name for the model.
    """
    return embedder.identity if isinstance(embedder, ThreadEmbedder) else embedder.model


def is_published(name: str) -> bool:
    """Return whether *name* is the packaged model, by name or as a directory of its files.

    Reads 90 MB (0.2 s) where the weights of a directory have the right size.
    """
    if is_packaged(name):
        return True
    with contextlib.suppress(OSError, ValueError):  # ValueError: no name of a file
        weights = (Path(name) / "model.safetensors").stat()
        return weights.st_size == _PUBLISHED_BYTES and fingerprint(Path(name)) == PUBLISHED
    return False


def model_identity(name: str) -> str:
    """Return the identity of the model that sentence-transformers loads by *name*.

    The packaged model keeps its name, by which earlier versions stored its vectors. A name whose
    files are not on this machine yet stands for itself.
    """
    if is_packaged(name):
        return PACKAGED_MODEL
    directory = _directory(name)
    if directory is None:
        return name
    with contextlib.suppress(OSError):
        found = fingerprint(directory)
        return PACKAGED_MODEL if found == PUBLISHED else found
    return name


def _directory(name: str) -> Path | None:
    # A name may be too long for a file, or have characters that no file name may have.
    with contextlib.suppress(OSError, ValueError):
        if Path(name).is_dir():
            # Any other directory might be a whole disk.
            made = any((Path(name) / file).is_file() for file in ("modules.json", "config.json"))
            return Path(name) if made else None
    with contextlib.suppress(Exception):
        import huggingface_hub

        hub: Any = huggingface_hub
        names = [name] if "/" in name else [ORGANISATION + name, name]
        for candidate in names:
            with contextlib.suppress(Exception):
                return Path(hub.snapshot_download(candidate, local_files_only=True))
    return None


def fingerprint(directory: Path) -> str:
    """Return a digest of a model's files: weights, tokenizer and configuration.

    Raises:
        OSError: If they cannot be read.
    """
    total = blake2b(digest_size=16)
    for file in _files(directory):
        total.update(f"{file.relative_to(directory).as_posix()}\0".encode())
        total.update(_configuration(file) if file.suffix == ".json" else _digest(file))
    return total.hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    for file in sorted(directory.rglob("*")):
        parts = file.relative_to(directory).parts
        other = file.suffix in _OTHER_FORMATS or file.name in _OTHER_NAMES
        if other or not file.is_file() or not _OTHER_FOLDERS.isdisjoint(parts):
            continue
        # Not loaded: older copies of the same weights.
        if file.suffix == ".bin" and any(file.parent.glob("*.safetensors")):
            continue
        yield file


def _configuration(file: Path) -> bytes:
    """Return the digest of a JSON file without the fields that vary with the saving program."""
    data = file.read_bytes()
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if isinstance(values, dict):
        values = {name: value for name, value in values.items() if name not in _VOLATILE}
        data = json.dumps(values, sort_keys=True).encode()
    return blake2b(data, digest_size=16).digest()


def _digest(file: Path) -> bytes:
    size = file.stat().st_size
    total = blake2b(f"{size}".encode(), digest_size=16)
    step, amount = (_STEP, _STEP) if size <= _WHOLE_BYTES else (_STEP, _SAMPLE)
    with file.open("rb") as opened:
        for place in range(0, size, step):
            opened.seek(place)
            total.update(opened.read(amount))
    return total.digest()
