"""An embedder that is made when a text comes."""

from pathlib import Path

from infra.embeddings.lazy import LazyEmbedder


async def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    embedder = LazyEmbedder(tmp_path / "models")
    await embedder.close()
    assert embedder.count_tokens("hello world") == 4
    assert not (tmp_path / "models").exists(), "counting needs no model"
    await embedder.close()
