"""Makes the graph of the packaged model, which takes its weights from the package's own file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cache_core.backends.embedder.onnx import GRAPH, weights_file

_CONTRIB = "com.microsoft"
_LAYERS, _HEADS, _WIDTH = 6, 12, 384
_EMBEDDINGS = "inner.embeddings."


class Graph:
    """Graph in the making.

    Attributes:
        nodes, stored: Its nodes, and the places of its weights by their names.

    Args:
        weights: Content of the package's file.
    """

    def __init__(self, weights: bytes) -> None:
        self._weights = weights
        self._theirs = {one.name: one for one in onnx.load_from_string(weights).graph.initializer}
        self.nodes: list[Any] = []
        self.stored: dict[str, TensorProto] = {}
        # The exporter numbered the matrices of the layers, in the order of their use.
        names = [name[:-2] for name in self._theirs if name.startswith("val_") and "_q" in name]
        self.matrices = sorted(names, key=lambda name: int(name.removeprefix("val_")))

    def number(self, name: str, value: Any) -> str:
        self.stored[name] = numpy_helper.from_array(np.array(value, np.int64), name)
        return name

    def weight(self, name: str) -> str:
        """Refer to a weight by its place in the package's file."""
        theirs = self._theirs[name]
        where = {
            "location": weights_file().name,
            "offset": str(self._weights.index(theirs.raw_data)),
            "length": str(len(theirs.raw_data)),
        }
        place = TensorProto(name=name, data_type=theirs.data_type, dims=theirs.dims)
        place.data_location = TensorProto.EXTERNAL
        for key, value in where.items():
            place.external_data.add(key=key, value=value)
        self.stored[name] = place
        return name

    def node(self, kind: str, given: list[str], out: str, domain: str = "", **values: Any) -> str:
        self.nodes.append(helper.make_node(kind, given, [out], domain=domain, **values))
        return out

    def matrix(self, name: str, out: str) -> str:
        """Scale a matrix of 8 bits; onnxruntime does it once, when it loads the model."""
        wide = self.node("Cast", [self.weight(f"{name}_q")], f"{out}.cast", to=TensorProto.FLOAT)
        return self.node("Mul", [wide, self.weight(f"{name}_scale")], out)

    def rows(self, table: str, ids: str, out: str) -> str:
        """Scale some rows of a table of 8 bits; it stays in 8 bits."""
        found = self.node("Gather", [self.weight(f"{table}_q"), ids], f"{out}.rows")
        wide = self.node("Cast", [found], f"{out}.cast", to=TensorProto.FLOAT)
        scales = self.node("Gather", [self.weight(f"{table}_scale"), ids], f"{out}.scales")
        return self.node("Mul", [wide, scales], out)

    def dense(self, given: str, matrix: str, bias: str, out: str) -> str:
        found = self.node("MatMul", [given, matrix], f"{out}.product")
        return self.node("Add", [found, bias], out)

    def normal(self, given: str, beside: str, name: str, out: str) -> str:
        """Add two and normalise the sum."""
        layer = [self.weight(f"{name}LayerNorm.weight"), self.weight(f"{name}LayerNorm.bias")]
        return self.node(
            "SkipLayerNormalization", [given, beside, *layer], out, _CONTRIB, epsilon=1e-12
        )

    def embedding(self) -> str:
        zero, first = self.number("zero", [0]), self.number("first", 0)
        words = self.rows(f"{_EMBEDDINGS}word_embeddings.weight", "input_ids", "words")
        kinds = self.weight(f"{_EMBEDDINGS}token_type_embeddings.weight")
        typed = self.node("Add", [words, self.node("Gather", [kinds, first], "type")], "typed")
        every = self.matrix(f"{_EMBEDDINGS}position_embeddings.weight", "positions")
        length = self.node("Shape", ["input_ids"], "length", start=1, end=2)
        places = self.node("Slice", [every, zero, length, zero], "places")
        total = self.node("Add", [typed, places], "embedded")
        layer = [f"{_EMBEDDINGS}LayerNorm.weight", f"{_EMBEDDINGS}LayerNorm.bias"]
        return self.node(
            "LayerNormalization", [total, *map(self.weight, layer)], "x", axis=-1, epsilon=1e-12
        )

    def layer(self, number: int, given: str) -> str:
        own = self.matrices[6 * number : 6 * number + 6]
        name = f"inner.encoder.layer.{number}."
        three = [
            self.matrix(one, f"{number}.{part}") for one, part in zip(own, "qkv", strict=False)
        ]
        biases = [
            self.weight(f"{name}attention.self.{part}.bias") for part in ("query", "key", "value")
        ]
        # One product for the three.
        matrix = self.node("Concat", three, f"{number}.qkv.matrix", axis=1)
        bias = self.node("Concat", biases, f"{number}.qkv.bias", axis=0)
        both = [self.dense(given, matrix, bias, f"{number}.qkv"), "thirds"]
        parts = [f"{number}.{part}" for part in ("query", "key", "value")]
        self.nodes.append(helper.make_node("Split", both, parts, axis=-1))
        attended = self.node(
            "MultiHeadAttention", parts, f"{number}.attended", _CONTRIB, num_heads=_HEADS
        )

        def dense(of: str, place: int, part: str, out: str) -> str:
            matrix = self.matrix(own[place], f"{number}.{out}.matrix")
            return self.dense(of, matrix, self.weight(f"{name}{part}.bias"), f"{number}.{out}")

        out = dense(attended, 3, "attention.output.dense", "out")
        seen = self.normal(out, given, f"{name}attention.output.", f"{number}.seen")
        wide = dense(seen, 4, "intermediate.dense", "wide")
        bent = self.node("Gelu", [wide], f"{number}.bent", _CONTRIB)
        narrow = dense(bent, 5, "output.dense", "narrow")
        return self.normal(narrow, seen, f"{name}output.", f"{number}.x")

    def whole(self) -> bytes:
        """Return the graph from token ids to the unit vector of their mean."""
        self.number("thirds", [_WIDTH] * 3)
        found = self.embedding()
        for number in range(_LAYERS):
            found = self.layer(number, found)
        # Nothing is padded, so the mean is over all tokens.
        mean = self.node("ReduceMean", [found], "mean", axes=[1], keepdims=0)
        self.node("LpNormalization", [mean], "vector", axis=-1, p=2)
        graph = helper.make_graph(
            self.nodes,
            GRAPH.stem,
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, _WIDTH])],
            list(self.stored.values()),
        )
        sets = [helper.make_opsetid("", 17), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=8)
        made: bytes = model.SerializeToString(deterministic=True)
        return made


def made() -> bytes:
    """Return the content of `GRAPH`."""
    return Graph(weights_file().read_bytes()).whole()


if __name__ == "__main__":
    GRAPH.write_bytes(made())
