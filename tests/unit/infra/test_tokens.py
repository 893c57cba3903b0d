"""Counting what nobody counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import tokens
from schemas.base import JsonObject
from schemas.job import Api

CASES: list[tuple[Api, JsonObject, int]] = [
    (Api.CHAT, {"messages": [{"role": "user", "content": "hello world"}]}, 3 + 3 + 3),
    (Api.CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello world"}, {"type": "image_url"}]}]}, 9),
    (Api.CHAT, {"messages": [{"role": "assistant", "content": None}, 7, None]}, 3 + 4 + 3 + 3),
    (Api.CHAT, {}, 0),
    (Api.EMBEDDINGS, {"input": "hello world"}, 2),
    (Api.EMBEDDINGS, {"input": ["hello", "world"]}, 2),
    (Api.EMBEDDINGS, {"input": [1, 2, 3]}, 3),
    (Api.EMBEDDINGS, {"input": [[1, 2], [3]]}, 3),
    (Api.EMBEDDINGS, {"input": None}, 0),
    (Api.MODERATIONS, {"input": ["hello", "world"]}, 2),
    (Api.MODERATIONS, {"input": [{"type": "text", "text": "hello world"}, {"type": "image_url"}]}, 2),
]


@pytest.mark.parametrize(("api", "body", "expected"), CASES)
def test_prompts(api: Api, body: JsonObject, expected: int) -> None:
    assert tokens.prompt_tokens(api, body) == expected


def test_half_a_surrogate_pair_counts_and_does_not_raise() -> None:
    assert tokens.count("\ud800 x") > 0
    assert tokens.count("") == 0


@given(st.text(max_size=60))
def test_pieces_make_the_text(text: str) -> None:
    encodable = text.encode(errors="replace").decode()
    assert "".join(tokens.pieces(text)) == encodable
