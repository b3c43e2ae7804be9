"""Objects that a forked child must not touch: they are copies of its parent's."""

from __future__ import annotations

import contextlib

_left: list[object] = []


def leave_to_parent(*things: object) -> None:
    """Keep *things*, and all that they refer to, from being collected in this process.

    Collecting them, even at exit, would unlock the parent's files, remove sockets from its event
    loop, or wait for native threads that only the parent has.
    """
    _left.extend(things)
    with contextlib.suppress(ImportError, AttributeError):  # only CPython has both
        import ctypes

        for thing in things:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
