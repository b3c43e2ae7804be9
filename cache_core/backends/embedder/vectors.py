"""Check of the vectors that embedders return."""

from __future__ import annotations

import logging

from cache_core.backends.base import Vector
from cache_core.model.exceptions import BackendError
from cache_core.model.logs import RateLimited

_UNIT_WITHIN = 1e-3
"""Deviation of a vector's length from 1 above which it is scaled."""


class InvalidVectorError(Exception):
    """An embedder returned an unusable vector."""


class VectorCheck:
    """Checks the vectors of one embedder.

    A vector must have one axis, real and finite values, a length other than 0, and as many values
    as the first one. It is converted to a float32 unit vector: cosines rely on it.

    Args:
        model: Name of the model, for the log.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._dimension: int | None = None
        self._log = RateLimited(logging.getLogger("glasscache"))

    def __call__(self, given: object) -> Vector:
        """Return *given* as a unit vector; raises `InvalidVectorError`, which is logged."""
        try:
            return self._vector(given)
        except (InvalidVectorError, ValueError, TypeError) as error:
            own = isinstance(error, InvalidVectorError)
            what = error if own else "what is no array"
            self._log.limited(
                "vector", "l2: the embedder %r returned %s; it is not used", self._model, what
            )
            raise InvalidVectorError(str(what)) from error

    def or_error(self, given: object) -> Vector | BackendError:
        """Return *given* as a unit vector, or the error of an unusable one."""
        try:
            return self(given)
        except InvalidVectorError as error:
            return BackendError("backend_error", type(error).__name__, str(error))

    def _vector(self, given: object) -> Vector:
        import numpy as np  # of the `semantic` extra

        if not isinstance(given, np.ndarray):
            given = np.asarray(given)
        if given.dtype.kind not in "fiu":
            raise InvalidVectorError(f"values of type {given.dtype}, not float32")
        if given.ndim != 1 or given.size == 0:
            raise InvalidVectorError(f"an array of shape {given.shape}, not (dimension,)")
        if self._dimension is not None and given.size != self._dimension:
            msg = f"{given.size} values, where the first vector had {self._dimension}"
            raise InvalidVectorError(msg)
        length = float(np.linalg.norm(given.astype(np.float64)))
        if not np.isfinite(length):
            raise InvalidVectorError("a vector with values that are not finite")
        if length == 0:
            raise InvalidVectorError("a vector of zeros")
        self._dimension = given.size
        if abs(length - 1) > _UNIT_WITHIN:
            given = given.astype(np.float64) / length
        return given.astype(np.float32, copy=False)
