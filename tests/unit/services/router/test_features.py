"""What a request says of itself."""

from pathlib import Path
from typing import TypedDict, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra import tokens
from schemas.base import JsonObject
from schemas.job import Api
from services.router.features import GIST_CHARACTERS, Prompt, has_code, language
from tests.unit.services.router.asking import asking


class Cases(TypedDict):
    code: list[str]
    prose: list[str]
    languages: dict[str, list[str]]


CASES = cast("Cases", yaml.safe_load((Path(__file__).parent / "feature_cases.yaml").read_text(encoding="utf-8")))


def prompt(*messages: tuple[str, object], **body: object) -> Prompt:
    written = [{"role": role, "content": content} for role, content in messages]
    return Prompt(Api.CHAT, cast("JsonObject", {"messages": written, **body}))


@pytest.mark.parametrize("text", CASES["code"])
def test_code_is_seen(text: str) -> None:
    assert has_code(text)


@pytest.mark.parametrize("text", CASES["prose"])
def test_prose_is_no_code(text: str) -> None:
    assert not has_code(text)


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in CASES["languages"].items() for text in texts])
def test_languages_are_told(code: str, text: str) -> None:
    assert language(text) == code


@given(st.text())
def test_any_text_is_judged_somehow(text: str) -> None:
    assert language(text) in CASES["languages"]
    assert isinstance(has_code(text), bool)


def test_language_is_of_the_last_message_and_code_of_any_but_the_system() -> None:
    said = prompt(
        ("system", "print('x')"), ("user", "What is this?"), ("assistant", "Who knows"), ("user", "Wie bitte, ich verstehe nicht")
    )
    assert (said.language, said.has_code) == ("de", False)
    assert prompt(("user", "How?"), ("assistant", "```\nx\n```"), ("user", "Why is that?")).has_code


def test_tokens_are_those_of_the_whole_prompt() -> None:
    body = asking("three little words", system="be kind", tools=1).body
    assert Prompt(Api.CHAT, body).tokens == tokens.prompt_tokens(Api.CHAT, body)


def test_images_and_tools_are_seen() -> None:
    plain, rich = (Prompt(Api.CHAT, asking("x", image=has, tools=has).body) for has in (False, True))
    assert (plain.has_images, plain.has_tools) == (False, False)
    assert (rich.has_images, rich.has_tools) == (True, True)
    assert prompt(("user", "x"), functions=[{"name": "f"}]).has_tools


def test_a_short_follow_up_is_read_with_what_stood_before() -> None:
    long = "Explain to me in some detail how the tides come about, and why there are two of them in a day."
    assert prompt(("user", long), ("assistant", "So."), ("user", "And in French?")).gist == f"{long}\nAnd in French?"
    assert prompt(("user", "hi"), ("assistant", "Hi!"), ("user", long)).gist == long
    assert len(prompt(("user", long * 1000)).gist) == GIST_CHARACTERS


@pytest.mark.parametrize(
    ("given", "last"), [("one", "one"), (["one", "two"], "one\ntwo"), ([1, 2], ""), ([[1], [2]], ""), (None, "")]
)
def test_of_embeddings_the_input_is_read(given: object, last: str) -> None:
    said = Prompt(Api.EMBEDDINGS, cast("JsonObject", {"input": given}))
    assert (said.last, said.gist, said.has_images) == (last, last, False)


NO_CHATS: list[object] = [None, "x", [], [None, 3], [{"role": "user"}], [{"role": "user", "content": [None, {"type": 1}, {}]}]]


@pytest.mark.parametrize("messages", NO_CHATS)
def test_a_request_that_is_no_chat_has_no_features(messages: object) -> None:
    said = Prompt(Api.CHAT, cast("JsonObject", {"messages": messages, "tools": None}))
    assert (said.last, said.gist, said.language) == ("", "", "")
    assert (said.has_code, said.has_images, said.has_tools) == (False, False, False)
