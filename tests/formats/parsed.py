"""Stored data, parsed: decrypted, its checksums verified, and without anything that varies.

Written from the formats and not with the cache's own code, which is to be held against it.
"""

from __future__ import annotations

import base64
import json
import re
from hashlib import blake2b
from typing import Any
from zlib import crc32

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.formats.worlds import AT, KEY

_VARIES = (
    (re.compile(r"\b[pi][0-9a-f]{16}(\.[0-9a-f]{8})?\b"), "<token>"),
    (re.compile(r"\b\d{13}-\d+\b"), "<position>"),
    (re.compile(r"\b1[6-9]\d{14}\b"), "<position>"),
    (re.compile(r"\b1[67]\d{8}(\.\d+)?\b"), "<time>"),
    (re.compile(r"\b[0-9a-f]{8}\b"), "<name>"),
    (re.compile(r"^[0-9a-f]{12}$"), "<id>"),
    (re.compile(r"^/.*"), "<directory>"),
)
_STAMP = re.compile(r"\d{10}\.\d{6}(\+\d+)? ")
"""Begins each row of a hash in Redis: when it was written, and how long it lives."""

_BOUND = ("v", "k", "s", "g", "t", "x", "w", "p", "o", "r", "n")
"""Names that the body of an envelope is bound to, besides its place."""

_AGE, _SECONDS, _AGES, _EXPIRED, _TEXTS = 10, 11, 21, 22, 23
"""Places in the list that is a decision; its texts follow each other."""

_HIT_LATENCY, _OTHER_LATENCY, _ALL_SECONDS = 10, 11, 12
"""Places in the list that is the sums of an hour: what they have depends on the machine."""

_NAMES = ("message_text", "matched_text", "response_text")


def parsed(raw: dict[str, Any], *, sealed: bool) -> dict[str, Any]:
    """Return `World.raw()` with the same values for the same cache, whenever it was written."""
    found = {
        "values": {
            _masked(key): [_value(key, text, sealed=sealed), _life(expires)]
            for key, (text, expires) in raw["values"].items()
            if not _is_heartbeat(key)
        },
        "heartbeats": {
            _masked(key): _heartbeat(json.loads(text))
            for key, (text, _) in raw["values"].items()
            if _is_heartbeat(key)
        },
        "hashes": {
            _masked(key): {
                _masked(name): _row(key, name, text, expires, sealed=sealed)
                for name, (text, expires) in rows.items()
            }
            for key, rows in raw["hashes"].items()
        },
        "logs": {
            log: [_logged(log, item, sealed=sealed) for item in items]
            for log, items in raw["logs"].items()
        },
        "vectors": {
            name: [configuration, [_vector(*row, sealed=sealed) for row in rows]]
            for name, (configuration, rows) in raw["vectors"].items()
        },
        "files": {
            _masked(name): _lines(name, text, sealed=sealed) for name, text in raw["files"].items()
        },
    }
    return {**found, **{name: raw[name] for name in ("schema", "places") if name in raw}}


def opened(text: str, place: str) -> str:
    """Return the text that was sealed for *place* with the snapshots' key."""
    name, _, data = text.partition(".")
    key = base64.b64decode(KEY)
    assert name == blake2b(key, digest_size=4, person=b"glasscache").hexdigest()
    raw = base64.b64decode(data, validate=True)
    return AESGCM(key).decrypt(raw[:12], raw[12:], place.encode()).decode()


def _life(expires: float | None) -> int | None:
    """Return the life of something in steps of five minutes: it took seconds to write all."""
    return None if expires is None else round((expires - AT) / 300)


def _masked(text: str) -> str:
    for pattern, name in _VARIES:
        text = pattern.sub(name, text)
    return text


def _walked(value: Any) -> Any:
    if isinstance(value, dict):
        return {_masked(name): _walked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_walked(item) for item in value]
    if isinstance(value, str):
        return _masked(value)
    if isinstance(value, float):
        return "<time>" if abs(value - AT) < 1e7 else round(value, 4)
    return value


def _value(key: str, text: str, *, sealed: bool) -> Any:
    if text.startswith("{"):
        return _envelope(text, sealed=sealed)
    if ":lease:" in key or "{history-merging}" in key:
        # With the trace of its computation, where there is one.
        assert re.fullmatch(r"[0-9a-f]{16}(-[0-9a-f-]*)?", text)
        return "<lease>"
    return _walked(json.loads(text)) if text.startswith("[") else _masked(text)


def _envelope(text: str, *, sealed: bool) -> Any:
    body, _, check = text.removesuffix('"}').rpartition(',"c":"')
    assert check == f"{crc32(body.encode()):08x}"
    envelope = json.loads(text)
    assert list(envelope)[-2:] == (["e", "c"] if sealed else ["b", "c"])
    if sealed:
        place = json.dumps([envelope.get(name) for name in _BOUND], separators=(",", ":"))
        envelope["b"] = json.loads(opened(envelope.pop("e"), place))
    return _walked({**envelope, "c": "<checksum>"})


def _is_heartbeat(key: str) -> bool:
    return "{replica-" in key


def _heartbeat(beat: dict[str, Any]) -> Any:
    """Return the form of a heartbeat: what it counts depends on the time."""
    assert all(isinstance(beat[name], int) for name in ("pid", "tuning_version"))
    counters = {name: type(value).__name__ for name, value in beat["counters"].items()}
    return _walked({**beat, "pid": "<pid>", "counters": counters})


def _row(key: str, name: str, text: str, expires: float | None, *, sealed: bool) -> Any:
    stamp = _STAMP.match(text)
    life: Any = _life(expires)
    if stamp is not None:
        text = text[stamp.end() :]
        life = stamp[1]
    if "}:v" in key:
        text, _, check = text.partition(".")
        assert check == f"{crc32(f'{key} {name} {text}'.encode()):08x}"
    if "{history-live}" in key:
        return [_sums(json.loads(text)), life]
    if "}:p:" in key:
        assert re.fullmatch(r"([0-9a-f]{32}|-)\.[0-9a-f]{32}\.[0-9]+\.p?[0-9a-f]+", text)
        return ["<vote>", life]
    return [_walked(json.loads(text)) if text.startswith("{") else _masked(text), life]


def _sums(record: list[Any]) -> Any:
    _, sums, _ = record
    for place in (_HIT_LATENCY, _OTHER_LATENCY):
        sums[place] = sum(sums[place])
    sums[_ALL_SECONDS] = type(sums[_ALL_SECONDS]).__name__
    return _walked(record)


def _logged(log: str, item: Any, *, sealed: bool) -> Any:
    if isinstance(item, dict):  # of a stream in Redis
        return {name: _logged(log, text, sealed=sealed) for name, text in item.items()}
    record = json.loads(item)
    if log.endswith("{decisions}"):
        return _decision(record, sealed=sealed)
    if sealed and isinstance(record, dict) and record.get("text"):
        record["text"] = opened(record["text"], log)
    return _walked(record)


def _decision(record: list[Any], *, sealed: bool) -> Any:
    for place, name in enumerate(_NAMES, _TEXTS):
        if sealed and record[place]:
            record[place] = opened(record[place], record[2] + name)
    for place in (_AGE, _SECONDS):
        record[place] = type(record[place]).__name__
    for place in (_AGES, _EXPIRED):
        record[place] = sorted(record[place])
    return _walked(record)


def _vector(identity: str, vector: list[float], row: dict[str, Any], *, sealed: bool) -> Any:
    entry = _envelope(row["entry"], sealed=sealed)
    return [identity, [round(value, 4) for value in vector], _walked({**row, "entry": entry})]


def _lines(name: str, text: str, *, sealed: bool) -> Any:
    head, *lines = text.splitlines()
    store = json.loads(head)
    assert re.fullmatch(r"[0-9a-f]{32}", store["place"])
    if sealed:
        lines = [opened(line, f"{name} {head}") for line in lines]
    return [{**store, "place": "<digest>"}, *map(json.loads, lines)]
