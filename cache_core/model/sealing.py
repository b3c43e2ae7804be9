"""Encryption at rest: AES-256-GCM of the `cryptography` library, with rotating keys.

A sealed text is bound to its place: to the envelope's key, scope, generation, times and writer,
or to its log. Moved elsewhere, or with one of these changed, it does not open. Write access to
the store without a key can remove answers but not add any.
Its form is `ID.DATA`: the first four bytes of the key's digest, in hex, and base64 of a random
96-bit nonce and AES-GCM's output. One key is good for 2^32 texts (NIST SP 800-38D, 8.3): rotate
it earlier.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from hashlib import blake2b

from pydantic import SecretStr

from cache_core.model.exceptions import ConfigurationError

_KEY_BYTES = 32
_NONCE_BYTES = 12
_MAKE_ONE = "make one with: openssl rand -base64 32"


class SealError(Exception):
    """A text that does not open: damaged, moved, or not sealed with a known key."""


class UnknownKeyError(SealError):
    """A text sealed with a key that this process lacks."""


def make_sealer(keys: Sequence[SecretStr]) -> Sealer | None:
    """Return a sealer with the given keys; `None` without keys.

    Raises:
        ConfigurationError: As `Sealer` does.
    """
    return Sealer([key.get_secret_value() for key in keys]) if keys else None


class Sealer:
    """Encrypter that seals with the first of its keys and opens with all of them.

    Args:
        keys: 32 bytes each, base64.

    Raises:
        ConfigurationError: For an invalid key, or if `cryptography` is not installed.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ConfigurationError(
                "CACHE_ENCRYPTION_KEYS is set, but cryptography is not installed: "
                "pip install 'glasscache[encryption]'"
            ) from None
        self._invalid = InvalidTag
        raw = [_key(number, text) for number, text in enumerate(keys, 1)]
        if not raw:
            raise ConfigurationError(f"no encryption key was given: {_MAKE_ONE}")
        self._ciphers = {_name(key): AESGCM(key) for key in raw}
        self._first = _name(raw[0])

    def seal(self, text: str, place: str) -> str:
        """Return *text* sealed so that it opens only with a key and only at *place*."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        data = self._ciphers[self._first].encrypt(nonce, _bytes(text), _bytes(place))
        return f"{self._first}.{base64.b64encode(nonce + data).decode('ascii')}"

    def open(self, sealed: str, place: str) -> str:
        """Return the text sealed for *place*.

        Raises:
            UnknownKeyError: If none of the keys sealed it.
            SealError: If it is damaged, or was sealed for another place.
        """
        name, _, data = sealed.partition(".")
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise UnknownKeyError
        try:
            raw = binascii.a2b_base64(data.encode("ascii"), strict_mode=True)
            opened = cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bytes(place))
            return opened.decode("utf-8", "surrogatepass")
        except (self._invalid, binascii.Error, ValueError):
            raise SealError from None


def _key(number: int, text: str) -> bytes:
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"key {number} of CACHE_ENCRYPTION_KEYS is refused: {_KEY_BYTES} bytes in base64 are "
            f"expected; {_MAKE_ONE}"
        )
    return key


def _name(key: bytes) -> str:
    return blake2b(key, digest_size=4, person=b"glasscache").hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
