"""The real weights, built, quantised, loaded and run."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]
from tokenizers import Tokenizer

from infra.embeddings import build
from infra.embeddings.graph import Weights, build_graph
from infra.embeddings.minilm import MAX_CHARACTERS, Embedder
from tests.unit.infra.embeddings import reference

# The example on the front page of sentence-transformers' documentation, with the similarities printed there for this
# very model (sbert.net, quickstart).
PUBLISHED_TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
PUBLISHED = np.array([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])

TEXTS = [
    *PUBLISHED_TEXTS,
    "How do I reset my password?",
    "What is the way to change forgotten login credentials?",
    "Quarterly revenue of the cloud division grew by 12 %.",
    "In the last three months the cloud business earned twelve percent more.",
    "def sort(rows): return sorted(rows, key=lambda row: row['name'])",
    "Überweisung nach Österreich: was kostet das?",
    "Summarise this contract. " + "The supplier shall deliver the goods within thirty days of the order. " * 12,
    "hi",
]
PARAPHRASES = [(3, 4), (5, 6)]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_file(build.package_files() / "model.safetensors")


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def embedder(cache_dir: Path) -> AsyncIterator[Embedder]:
    opened = Embedder(cache_dir)
    yield opened
    await opened.close()


def tokens(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    tokenizer = Tokenizer.from_file(str(build.package_files() / build.TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = np.array([tokenizer.encode(text).ids])
    assert ids.size <= build.MAX_TOKENS
    return ids, np.ones_like(ids)


def pooled(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = hidden[0].mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.fixture(scope="module")
def exact(weights: Weights) -> NDArray[np.float32]:
    """TEXTS by our graph in float32; the graph is checked against numpy on the way."""
    graph = build_graph(weights)
    rows: list[NDArray[np.float32]] = []
    for text in TEXTS:
        ids, mask = tokens(text)
        hidden = reference.run(graph, ids, mask)
        assert np.abs(hidden - reference.encode(weights, ids, mask)).max() < 1e-4
        rows.append(pooled(hidden))
    return np.stack(rows)


def test_the_graph_gives_the_published_similarities(exact: NDArray[np.float32]) -> None:
    published = exact[: len(PUBLISHED_TEXTS)]
    assert np.abs(published @ published.T - PUBLISHED).max() < 1e-4


async def test_int8_is_near_float32(embedder: Embedder, exact: NDArray[np.float32]) -> None:
    vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    cosines = (vectors * exact).sum(axis=1)
    assert cosines.min() > 0.97
    assert cosines.mean() > 0.985
    assert np.abs(vectors @ vectors.T - exact @ exact.T).max() < 0.06


async def test_paraphrases_are_each_others_nearest(embedder: Embedder) -> None:
    vectors = await embedder.embed(TEXTS)
    likeness = vectors @ vectors.T - 2 * np.eye(len(TEXTS))
    for one, other in PARAPHRASES:
        assert likeness[one].argmax() == other
        assert likeness[other].argmax() == one
        assert likeness[one, other] > 0.55


async def test_neighbours_have_no_influence(embedder: Embedder) -> None:
    together = await embedder.embed(TEXTS)
    for index in (0, len(TEXTS) - 1):
        assert (await embedder.embed([TEXTS[index]]) == together[index]).all()


async def test_a_long_text_is_read_to_its_limit(embedder: Embedder) -> None:
    full = "order " * (embedder.max_tokens - 2)
    longer, shorter, endless = await embedder.embed(
        [full + "something else entirely", full + "nothing", full + "more " * MAX_CHARACTERS]
    )
    assert (longer == shorter).all()
    assert (longer == endless).all()
    assert (longer != (await embedder.embed([full.removesuffix("order ") + "something else"]))[0]).any()


async def test_texts_of_every_kind(embedder: Embedder) -> None:
    assert (await embedder.embed([])).shape == (0, embedder.dimensions)
    odd = await embedder.embed(["", "\ud800", "\x00", "🙂" * 300, " \n"])
    assert np.isfinite(odd).all()


async def test_tokens_are_counted_whole(embedder: Embedder) -> None:
    assert embedder.count_tokens("") == 2
    assert embedder.count_tokens("hello world") == 4
    assert embedder.count_tokens("half a pair: \ud800") == embedder.count_tokens("half a pair: ?")
    assert embedder.count_tokens("order " * 1000) == 1002


async def test_first_callers_share_one_load_and_leave_the_loop_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []
    real = build.build_in_process

    def counted(folder: Path) -> None:
        built.append(folder)
        real(folder)

    monkeypatch.setattr(build, "build_in_process", counted)
    embedder = Embedder(tmp_path, threads=2)
    first = asyncio.gather(*(embedder.embed([text]) for text in TEXTS[:4]))
    turns = 0
    while not first.done():
        await asyncio.sleep(0.01)
        turns += 1
    await first
    assert len(built) == 1
    assert turns > 10
    await embedder.close()


async def test_a_cancelled_caller_harms_no_other(embedder: Embedder) -> None:
    many = asyncio.create_task(embedder.embed(["a text of some length " * 10] * 2000))
    one = asyncio.create_task(embedder.embed(["hello"]))
    await one
    assert not many.done()
    many.cancel()
    with pytest.raises(asyncio.CancelledError):
        await many
    assert (await embedder.embed(["hello"]) == await one).all()


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        folders = list(pool.map(build.model_folder, [tmp_path] * 2))
    assert folders[0] == folders[1]
    assert list(tmp_path.iterdir()) == [folders[0]]
    assert sorted(path.name for path in folders[0].iterdir()) == [
        "config.json",
        build.MODEL_FILE,
        "special_tokens_map.json",
        build.TOKENIZER_FILE,
        "tokenizer_config.json",
    ]


async def test_a_damaged_model_says_what_to_do(tmp_path: Path, cache_dir: Path, embedder: Embedder) -> None:
    await embedder.load()
    shutil.copytree(cache_dir, tmp_path, dirs_exist_ok=True)
    os.truncate(build.model_folder(tmp_path) / build.MODEL_FILE, 1000)
    broken = Embedder(tmp_path)
    with pytest.raises(build.EmbeddingsUnavailable, match="delete"):
        await broken.load()
    await broken.close()
