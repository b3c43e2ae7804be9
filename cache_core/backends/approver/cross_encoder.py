"""A sentence-transformers CrossEncoder as the approver: reads both questions together."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from cache_core.backends.embedder.sentence_transformers import (
    is_installed,
    is_local,
    without_progress_bars,
)
from cache_core.backends.embedder.tokens import TokenCounter
from cache_core.backends.forking import leave_to_parent
from cache_core.model.exceptions import BackendError, ConfigurationError

if TYPE_CHECKING:  # both come with the extra `models`
    import numpy as np
    import numpy.typing as npt

log = logging.getLogger("glasscache")

_WINDOW = 512
"""Tokens assumed for a model that does not state its window."""

_CLOSE_SECONDS = 5.0

_approvers: WeakSet[CrossEncoderApprover] = WeakSet()


class CrossEncoderApprover:
    """Approver that runs a sentence-transformers `CrossEncoder` on the CPU (extra `models`).

    It scores the asked message and the stored one in both orders, and approves if both scores are
    high enough; the answer is not read. What the model cannot read as a whole is rejected. The
    first call starts loading in a thread, and no answer is approved before that is done.

    Args:
        model: A directory, or a name that sentence-transformers can download.
        at_least: Least score of an approval, more than 0 and at most 1: the sigmoid of a single
            output, or the share of *label* in the softmax of several.
        label: Name or number of the output that means "the same", such as `entailment`; for a model
            with several outputs, which needs it.
        threads: Threads of torch, in the whole process; 0 leaves them as they are.

    Raises:
        ConfigurationError: Without the extra, or for a value out of its range.
    """

    def __init__(
        self,
        model: str | Path,
        at_least: float = 0.5,
        *,
        label: str | int | None = None,
        threads: int = 1,
    ) -> None:
        if not 0 < at_least <= 1:
            msg = f"at_least={at_least!r} is rejected: expected more than 0 and at most 1"
            raise ConfigurationError(msg)
        if not is_installed():
            msg = (
                f"the approver's model {str(model)!r} needs sentence-transformers: "
                "pip install 'glasscache[models]'"
            )
            raise ConfigurationError(msg)
        self._name = str(model)
        self._at_least = at_least
        self._label = label
        self._threads = threads
        self._scorer: _Scorer | None = None
        self._failure = ""
        self._closed = False
        self._start_over()
        _approvers.add(self)

    def _start_over(self) -> None:
        """Set what only this process and its threads have."""
        self._lock = threading.Lock()
        self._busy = threading.Lock()
        """Held while the model is loaded or used: its tokenizer serves one thread at a time."""
        self._loading: threading.Thread | None = None

    def __call__(self, message: str, stored: str, response: str) -> bool:
        """Return whether both messages mean the same to the model.

        Raises:
            BackendError: `overloaded` while the model is being loaded, `backend_error` once it is
                closed, or for a score that is no number.
            ConfigurationError: If the model cannot be loaded.
        """
        scorer = self._scorer
        if scorer is None:
            self._start()
            raise BackendError("overloaded", "Loading")
        with self._busy:
            if self._closed:
                raise BackendError("backend_error", "Closed")
            score = scorer.score(message, stored)
        return score >= self._at_least

    def load(self) -> None:
        """Load the model now, so that the first call need not wait for it.

        Raises:
            ConfigurationError: If it cannot be loaded.
        """
        while self._scorer is None:
            self._start().join()

    def _start(self) -> threading.Thread:
        """Return the thread that loads; raises `ConfigurationError` if one has failed."""
        with self._lock:
            if self._failure:
                raise ConfigurationError(self._failure)
            if self._loading is None:
                self._loading = threading.Thread(
                    target=self._load, name="glasscache-approver", daemon=True
                )
                self._loading.start()
            return self._loading

    def _load(self) -> None:
        with self._busy:
            if self._closed:
                self._failure = "the approver is closed"
                return
            try:
                self._scorer = _Scorer(self._name, self._label, self._threads)
            except Exception as error:  # noqa: BLE001 - raised to each caller
                why = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
                if isinstance(error, ConfigurationError):
                    why = str(error)
                self._failure = f"the approver's model {self._name!r} cannot be used: {why}"
                log.error("approve= never approves: %s", self._failure)

    def close(self) -> None:
        """Wait for a call under way; later ones fail."""
        self._closed = True
        if self._busy.acquire(timeout=_CLOSE_SECONDS):
            self._busy.release()

    def forked(self) -> None:
        """Go on in a child: a model that was in use during the fork is loaded again."""
        if self._busy.locked():
            leave_to_parent(self._scorer)
            self._scorer = None
        leave_to_parent(self._loading)
        self._start_over()


class _Scorer:
    """A loaded model.

    Args:
        name: Directory or name.
        label: Output that means the same.
        threads: Threads of torch.

    Raises:
        ConfigurationError: If *label* does not fit the model.
        Exception: If it cannot be loaded.
    """

    def __init__(self, name: str, label: str | int | None, threads: int) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        with without_progress_bars():
            made: Any = CrossEncoder(name, device="cpu", local_files_only=is_local(name))
        self._model = made
        self._as_they_are = torch.nn.Identity()
        if threads:
            torch.set_num_threads(threads)
        self._counter = TokenCounter.of(made.tokenizer)
        known = int(getattr(made.model.config, "max_position_embeddings", 0) or _WINDOW)
        self._window = min(int(made.tokenizer.model_max_length), known)
        names = getattr(made.model.config, "id2label", None) or {}
        outputs = int(made.num_labels)
        self._place = _place(label, [str(names.get(place, place)) for place in range(outputs)])

    def score(self, message: str, stored: str) -> float:
        """Return the lesser score of both orders, 0 to 1; 0 for what the model cannot read."""
        counter = self._counter
        if not (counter.knows(message) and counter.knows(stored)):
            return 0.0
        # The special tokens around two texts are no more than those around each.
        if sum(len(counter.encode(text).ids) for text in (message, stored)) > self._window:
            return 0.0
        found = self._model.predict(
            [(message, stored), (stored, message)],
            activation_fn=self._as_they_are,
            show_progress_bar=False,
        )
        scores = [self._share(row) for row in found.reshape(2, -1)]
        if not all(math.isfinite(score) for score in scores):
            raise BackendError("backend_error", "NotANumber")
        return min(scores)

    def _share(self, row: npt.NDArray[np.floating[Any]]) -> float:
        """Return the sigmoid of one output, or the share of the label in the softmax of several."""
        # A sigmoid is the softmax beside an output of zero.
        outputs = [float(value) for value in row] if self._place is not None else [float(*row), 0.0]
        highest = max(outputs)
        weights = [math.exp(value - highest) for value in outputs]
        return weights[self._place or 0] / sum(weights)


def _place(label: str | int | None, names: Sequence[str]) -> int | None:
    """Return the number of the output that means the same; `None` for a single output.

    Raises:
        ConfigurationError: If *label* is none of several, or is given for a single one.
    """
    if len(names) == 1:
        if label is not None:
            raise ConfigurationError(f"label={label!r} is given, but it has a single output")
        return None
    shown = ", ".join(f"{place} ({name})" for place, name in enumerate(names))
    if isinstance(label, str) and names.count(label) == 1:
        return names.index(label)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        return label
    if label is None:
        raise ConfigurationError(f"label= must name the output that means the same: {shown}")
    raise ConfigurationError(f"label={label!r} names none of its outputs: {shown}")


@atexit.register
def _stop() -> None:
    """Stop all models: a thread in native code at the interpreter's exit aborts the process."""
    for approver in list(_approvers):
        approver.close()


def _forked() -> None:
    for approver in list(_approvers):
        approver.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
