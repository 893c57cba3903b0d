"""all-MiniLM-L6-v2 as an ONNX graph, built in code from its published weights.

The package with the weights brings safetensors and a tokenizer but no ONNX file, and torch (which could export one)
is too large to install. BERT is small enough to write down: Devlin et al., arXiv 1810.04805; sizes from the model's
own config.json.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LAYERS = 6
HEADS = 12
DIMENSIONS = 384
HEAD_SIZE = DIMENSIONS // HEADS
LAYER_NORM_EPSILON = 1e-12
# Far below any attention score, so that a masked token's share after Softmax is exactly zero.
MASKED = -1e9
# The oldest in which both LayerNormalization and Gelu are one operator.
OPSET = 20
IR_VERSION = 10

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]


class _Graph:
    """The nodes and constants written so far. A value is known by its name; every operator has one output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[np.float32] | NDArray[np.int64]) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def op(self, kind: str, *inputs: str, **attributes: int | float | list[int]) -> str:
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: int | float | list[int]) -> list[str]:
        stem = f"{kind}_{len(self.nodes)}"
        names = [f"{stem}_{n}" for n in range(outputs)]
        node = helper.make_node(kind, list(inputs), names, name=stem)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return names

    def dense(self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """x @ weight.T + bias, the weight as torch keeps it: (out, in)."""
        product = self.op("MatMul", x, self.constant(f"{name}.weight", weight.T))
        return self.op("Add", product, self.constant(f"{name}.bias", bias))

    def norm(self, x: str, name: str, weights: Weights) -> str:
        scale = self.constant(f"{name}.weight", weights[f"{name}.weight"])
        shift = self.constant(f"{name}.bias", weights[f"{name}.bias"])
        return self.op("LayerNormalization", x, scale, shift, epsilon=LAYER_NORM_EPSILON)


def build_graph(weights: Weights) -> onnx.ModelProto:
    """The encoder in float32.

    Takes the tensors under their names in model.safetensors. Inputs of the graph: `input_ids` and `attention_mask`,
    int64 of shape (batch, tokens), 1 to 512 tokens, padded on the right. Output: `last_hidden_state`, float32 of
    shape (batch, tokens, 384). Pooling is the caller's. Raises KeyError when a tensor is missing.
    """
    graph = _Graph()
    x = _embed(graph, weights)
    mask = _attention_mask(graph)
    for layer in range(LAYERS):
        x = _layer(graph, f"encoder.layer.{layer}", x, mask, weights)
    graph.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))

    shape = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, DIMENSIONS])
    body = helper.make_graph(graph.nodes, "minilm", inputs, [output], list(graph.constants.values()))
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, opset_imports=opset, ir_version=IR_VERSION, producer_name="sluice")
    onnx.checker.check_model(model)  # pyright: ignore[reportUnknownMemberType]
    return model


def _embed(graph: _Graph, weights: Weights) -> str:
    """Word plus position plus segment; there is one segment, so its row is added to the positions beforehand."""
    segment = weights["embeddings.token_type_embeddings.weight"][0]
    positions = weights["embeddings.position_embeddings.weight"] + segment
    words = graph.constant("embeddings.words", weights["embeddings.word_embeddings.weight"])
    # A running count of the mask, not a Range over Shape, which onnxruntime's optimiser trips over.
    count = graph.op("CumSum", "attention_mask", graph.constant("axis", np.array(1, np.int64)))
    index = graph.op("Sub", count, graph.constant("one", np.array(1, np.int64)))
    word = graph.op("Gather", words, "input_ids")
    position = graph.op("Gather", graph.constant("embeddings.positions", positions), index)
    return graph.norm(graph.op("Add", word, position), "embeddings.LayerNorm", weights)


def _attention_mask(graph: _Graph) -> str:
    """What is added to the scores: 0 for a token, MASKED for padding; shape (batch, 1, 1, tokens)."""
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    absent = graph.op("Sub", graph.constant("present", np.array(1, np.float32)), mask)
    bias = graph.op("Mul", absent, graph.constant("masked", np.array(MASKED, np.float32)))
    return graph.op("Unsqueeze", bias, graph.constant("mask_axes", np.array([1, 2], np.int64)))


def _layer(graph: _Graph, name: str, x: str, mask: str, weights: Weights) -> str:
    """Attention, then the two dense layers with Gelu between; each added to its input and normalised."""

    def dense(x: str, part: str) -> str:
        full = f"{name}.{part}"
        return graph.dense(x, full, weights[f"{full}.weight"], weights[f"{full}.bias"])

    attended = dense(_attention(graph, name, x, mask, weights), "attention.output.dense")
    x = graph.norm(graph.op("Add", attended, x), f"{name}.attention.output.LayerNorm", weights)
    wide = graph.op("Gelu", dense(x, "intermediate.dense"))
    return graph.norm(graph.op("Add", dense(wide, "output.dense"), x), f"{name}.output.LayerNorm", weights)


def _attention(graph: _Graph, name: str, x: str, mask: str, weights: Weights) -> str:
    """softmax(query @ key.T / sqrt(32) + mask) @ value in each head, the heads joined: (batch, tokens, 384)."""
    # One multiplication makes query, key and value: they read the same input.
    parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([weights[f"{part}.weight"] for part in parts])
    bias = np.concatenate([weights[f"{part}.bias"] for part in parts])
    joined = graph.dense(x, f"{name}.attention.self", weight, bias)

    apart = graph.constant("apart", np.array([0, 0, HEADS, HEAD_SIZE], np.int64))
    thirds = graph.ops("Split", 3, joined, axis=2, num_outputs=3)
    query, key, value = (graph.op("Reshape", third, apart) for third in thirds)
    query = graph.op("Transpose", query, perm=[0, 2, 1, 3])
    key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
    value = graph.op("Transpose", value, perm=[0, 2, 1, 3])

    root = graph.constant("root", np.array(HEAD_SIZE**-0.5, np.float32))
    scores = graph.op("Add", graph.op("Mul", graph.op("MatMul", query, key), root), mask)
    read = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    together = graph.constant("together", np.array([0, 0, DIMENSIONS], np.int64))
    return graph.op("Reshape", graph.op("Transpose", read, perm=[0, 2, 1, 3]), together)
