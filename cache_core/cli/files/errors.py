"""Errors about files and their values."""

from __future__ import annotations

from cache_core.model.exceptions import ConfigurationError


class UnusableFile(ConfigurationError):  # noqa: N818 - named for its state, as users read it
    """A file without anything usable; the message says what was found and expected."""


class BadValue(ValueError):  # noqa: N818 - named for what it is about, as users read it
    """An invalid value of a row; the message says what was expected and found."""
