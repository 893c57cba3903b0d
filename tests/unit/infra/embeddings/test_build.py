"""The cache of built models: whole or not there, whoever builds at the same time."""

import asyncio
from importlib.metadata import version
from pathlib import Path

import pytest

from infra.embeddings import build
from infra.embeddings.errors import EmbeddingsUnavailable
from infra.embeddings.minilm import Embedder


def write(folder: Path, text: str = "ours") -> None:
    folder.mkdir(parents=True)
    (folder / build.MODEL_FILE).write_text(text)


def test_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []

    def counted(folder: Path) -> None:
        built.append(folder)
        write(folder)

    monkeypatch.setattr(build, "build_in_process", counted)
    cache = tmp_path / "not" / "there yet"
    first = build.model_folder(cache)
    assert build.model_folder(cache) == first
    assert len(built) == 1
    assert list(cache.iterdir()) == [first]


def test_who_comes_second_takes_the_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(folder: Path) -> None:
        write(folder)
        write(tmp_path / name, "theirs")

    name = f"{build.PACKAGE}-{version(build.PACKAGE)}-{build.BUILDER_VERSION}"
    monkeypatch.setattr(build, "build_in_process", overtaken)
    folder = build.model_folder(tmp_path)
    assert (folder / build.MODEL_FILE).read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [folder]


def test_another_version_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "build_in_process", write)
    first = build.model_folder(tmp_path)
    monkeypatch.setattr(build, "BUILDER_VERSION", build.BUILDER_VERSION + 1)
    assert build.model_folder(tmp_path) != first


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise OSError("No space left on device")

    monkeypatch.setattr(build, "build_in_process", fail)
    with pytest.raises(EmbeddingsUnavailable, match="No space left"):
        build.model_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_builders_own_words_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "model")
    with pytest.raises(EmbeddingsUnavailable, match="File exists"):
        build.build_in_process(tmp_path / "model")


async def test_a_load_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    def fail(folder: Path) -> None:
        nonlocal tried
        tried += 1
        raise OSError("No space left on device")

    monkeypatch.setattr(build, "build_in_process", fail)
    embedder = Embedder(tmp_path)
    for _ in range(2):
        with pytest.raises(EmbeddingsUnavailable):
            await embedder.embed(["a text"])
    assert tried == 2
    await embedder.close()


async def test_closing_without_use_and_twice(tmp_path: Path) -> None:
    embedder = Embedder(tmp_path)
    await asyncio.gather(embedder.close(), embedder.close())
    with pytest.raises(EmbeddingsUnavailable):
        await embedder.embed(["a text"])
    with pytest.raises(EmbeddingsUnavailable):
        await embedder.load()
