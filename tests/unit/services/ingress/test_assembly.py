"""A stream as the answer it would have been."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.ingress.assembly import assembled


def chunk(delta: dict[str, Any] | None = None, *, index: int = 0, finish: str | None = None, **more: Any) -> str:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice], **more})


@given(st.lists(st.text(max_size=5), max_size=8))
def test_texts_are_joined(texts: list[str]) -> None:
    stream = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts), chunk(finish="stop")]
    whole: Any = assembled(stream)
    assert whole["object"] == "chat.completion"
    assert (whole["id"], whole["created"], whole["model"]) == ("c", 7, "m")
    assert whole["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "".join(texts)}, "finish_reason": "stop"}
    ]


def test_choices_calls_and_usage_find_their_places() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        return {"index": index, "id": f"call_{index}", "type": "function", "function": function}

    stream = [
        chunk({"content": "b"}, index=1),
        chunk({"tool_calls": [call(0, name="f", arguments='{"a"')]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}, call(1, name="g", arguments="{}")]}),
        chunk(finish="tool_calls"),
        json.dumps({"id": "c", "choices": [], "usage": {"prompt_tokens": 1}}),
    ]
    whole: Any = assembled(stream)
    first, second = whole["choices"]
    assert [c["function"] for c in first["message"]["tool_calls"]] == [
        {"name": "f", "arguments": '{"a": 1}'},
        {"name": "g", "arguments": "{}"},
    ]
    assert first["finish_reason"] == "tool_calls"
    assert second["message"]["content"] == "b"
    assert whole["usage"] == {"prompt_tokens": 1}
