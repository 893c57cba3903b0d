"""The graph computes BERT: random weights, compared with the encoder in numpy."""

import numpy as np
import onnx
import pytest

from infra.embeddings.graph import DIMENSIONS, LAYERS, Weights, build_graph
from infra.embeddings.minilm import Embedder
from tests.unit.infra.embeddings import reference

WORDS = 50


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Random, of the model's own shapes but for the vocabulary; large enough that attention isn't even."""
    random = np.random.default_rng(seed=7)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (WORDS, 384),
        "embeddings.position_embeddings.weight": (512, 384),
        "embeddings.token_type_embeddings.weight": (2, 384),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        for part, out, into in (
            ("attention.self.query", 384, 384),
            ("attention.self.key", 384, 384),
            ("attention.self.value", 384, 384),
            ("attention.output.dense", 384, 384),
            ("intermediate.dense", 1536, 384),
            ("output.dense", 384, 1536),
        ):
            shapes |= {f"{name}.{part}.weight": (out, into), f"{name}.{part}.bias": (out,)}
    shapes |= {f"{norm}.{part}": (384,) for norm in norms for part in ("weight", "bias")}
    drawn = {name: random.normal(0, 0.08, shape).astype(np.float32) for name, shape in shapes.items()}
    return drawn | {f"{norm}.weight": drawn[f"{norm}.weight"] + 1 for norm in norms}


@pytest.fixture(scope="module")
def graph(weights: Weights) -> onnx.ModelProto:
    return build_graph(weights)


@pytest.mark.parametrize("tokens", [1, 2, 17, 512])
def test_is_bert(graph: onnx.ModelProto, weights: Weights, tokens: int) -> None:
    ids = np.random.default_rng(tokens).integers(0, WORDS, (1, tokens))
    mask = np.ones_like(ids)
    assert np.abs(reference.run(graph, ids, mask) - reference.encode(weights, ids, mask)).max() < 1e-4


def test_padding_is_not_read(graph: onnx.ModelProto, weights: Weights) -> None:
    ids = np.random.default_rng(1).integers(0, WORDS, (3, 12))
    mask = (np.arange(12) < np.array([[12], [7], [1]])).astype(np.int64)
    present = mask.astype(bool)
    batch = reference.run(graph, ids, mask)
    assert np.abs(batch - reference.encode(weights, ids, mask))[present].max() < 1e-4
    alone = reference.run(graph, ids[1:2, :7], mask[1:2, :7])
    assert np.abs(alone[0] - batch[1, :7]).max() < 1e-5


def test_a_missing_tensor_is_named(weights: Weights) -> None:
    name = "encoder.layer.3.output.dense.bias"
    with pytest.raises(KeyError, match=name):
        build_graph({key: value for key, value in weights.items() if key != name})


def test_dimensions_are_those_of_the_graph() -> None:
    assert Embedder.dimensions == DIMENSIONS
