"""BERT's encoder in numpy, written from the paper (arXiv 1810.04805) and not from our graph, to judge the graph by.

Each head is computed alone, and query, key and value apart: slow, but with none of the graph's rearrangements.
"""

import math

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from infra.embeddings.graph import Weights

Array = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def run(graph: onnx.ModelProto, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """The graph's own last hidden state, by onnxruntime."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {"input_ids": ids, "attention_mask": mask}
    return np.asarray(session.run(None, given)[0], np.float32)  # pyright: ignore[reportUnknownMemberType]


def encode(weights: Weights, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
    """The last hidden state, (batch, tokens, 384); rows of padding are without meaning."""
    return np.stack([_encode_one(weights, row, present) for row, present in zip(ids, mask, strict=True)])


def _encode_one(weights: Weights, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Array:
    def table(name: str) -> Array:
        return weights[f"embeddings.{name}_embeddings.weight"].astype(np.float64)

    x = table("word")[ids] + table("position")[: len(ids)] + table("token_type")[0]
    x = _norm(weights, "embeddings.LayerNorm", x)
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        seen = _dense(weights, f"{name}.attention.output.dense", _attend(weights, name, x, mask))
        x = _norm(weights, f"{name}.attention.output.LayerNorm", x + seen)
        wide = _dense(weights, f"{name}.intermediate.dense", x)
        thought = _dense(weights, f"{name}.output.dense", wide * 0.5 * (1 + _erf(wide / math.sqrt(2))))
        x = _norm(weights, f"{name}.output.LayerNorm", x + thought)
    return x


def _attend(weights: Weights, name: str, x: Array, mask: NDArray[np.int64]) -> Array:
    query, key, value = (_dense(weights, f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
    heads: list[Array] = []
    for start in range(0, 384, 32):
        head = slice(start, start + 32)
        scores = query[:, head] @ key[:, head].T / math.sqrt(32)
        scores[:, mask == 0] = -np.inf
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(shares / shares.sum(axis=1, keepdims=True) @ value[:, head])
    return np.concatenate(heads, axis=1)


def _dense(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].astype(np.float64).T + weights[f"{name}.bias"]


def _norm(weights: Weights, name: str, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]
