"""What Gemini is asked for a chat."""

from typing import Any

import pytest
from pydantic_core import to_json

from schemas.base import JsonObject
from services.router.providers.base import ProviderFailure
from services.router.providers.google.embeddings import wanted
from services.router.providers.google.request import generate_request, generation
from tests.mocks.gemini_wire import GenerateRequest
from tests.unit.services.router.providers.gemini_cases import cases

HI: JsonObject = {"messages": [{"role": "user", "content": "Hi"}]}
FUNCTION: JsonObject = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize("case", cases("requests"), ids=lambda case: case["name"])
def test_a_chat_says_the_same_to_gemini(case: dict[str, Any]) -> None:
    asked = generate_request(case["body"], case["model"], tuple(case.get("fetches", ())))
    assert asked == case["expected"]
    assert GenerateRequest.model_validate_json(to_json(asked))


@pytest.mark.parametrize("case", cases("thinking"), ids=lambda case: f"{case['model']} {case['body']}")
def test_how_much_to_think(case: dict[str, Any]) -> None:
    asked = generate_request(HI | case["body"], case["model"])
    assert asked.get("generationConfig") == (case["expected"] and {"thinkingConfig": case["expected"]})


@pytest.mark.parametrize("case", cases("refused_requests"), ids=lambda case: case["param"])
def test_what_can_not_be_told_is_refused_with_its_name(case: dict[str, Any]) -> None:
    with pytest.raises(ProviderFailure) as caught:
        generate_request(case["body"], "gemini-2.5-flash", tuple(case.get("fetches", ())))
    failure = caught.value
    assert (failure.kind, failure.fault.status, failure.fault.param) == ("final", 400, case["param"])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            {"mode": "ANY", "allowedFunctionNames": ["f"]},
        ),
    ],
)
def test_which_tool_to_call(choice: Any, expected: Any) -> None:
    asked = generate_request({**HI, "tools": [FUNCTION], "tool_choice": choice}, "gemini-2.5-flash")
    assert asked["toolConfig"] == {"functionCallingConfig": expected}


@pytest.mark.parametrize(
    ("model", "expected"),
    [("gemini-2.5-pro", 2.5), ("gemini-3-flash-preview", 3.0), ("gemini-flash-latest", float("inf")), ("endpoints/42", 0)],
)
def test_a_name_tells_the_generation(model: str, expected: float) -> None:
    assert generation(model) == expected


@pytest.mark.parametrize("given", [None, [], [1, 2], [[1]], ["a", 1], {"a": "b"}])
def test_only_texts_are_embedded(given: Any) -> None:
    with pytest.raises(ProviderFailure) as caught:
        wanted({"input": given})
    assert (caught.value.fault.status, caught.value.fault.param) == (400, "input")
