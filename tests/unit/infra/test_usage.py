"""OpenAI's usage to ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.usage import canonical
from schemas.base import JsonObject
from schemas.usage import Usage


def usage(*counts: int, source: str = "provider") -> Usage:
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    return Usage.model_validate({**dict(zip(names, counts, strict=False)), "source": source})


CASES: list[tuple[str, JsonObject | None, Usage | None]] = [
    ("plain", {"prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15}, usage(3, 12)),
    ("embeddings have no completion", {"prompt_tokens": 3, "total_tokens": 3}, usage(3)),
    (
        "all subsets",
        {
            "prompt_tokens": 4814,
            "completion_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 4736, "cache_write_tokens": 20, "audio_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 4, "rejected_prediction_tokens": 2},
        },
        usage(4814, 10, 4736, 20, 4).model_copy(update={"input_audio_tokens": 1, "rejected_prediction_tokens": 2}),
    ),
    (
        "pictures, audio of a cache, and searches",
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "prompt_tokens_details": {
                "cached_tokens": 30,
                "cached_tokens_details": {"audio_tokens": 10},
                "audio_tokens": 40,
                "image_tokens": 20,
            },
            "completion_tokens_details": {"audio_tokens": 5, "image_tokens": 6},
            "server_tool_use": {"web_search_requests": 2, "code_execution_requests": 1},
        },
        Usage(
            input_tokens=100,
            cache_read_tokens=30,
            cache_read_audio_tokens=10,
            input_audio_tokens=40,
            input_image_tokens=20,
            output_tokens=50,
            output_audio_tokens=5,
            output_image_tokens=6,
            web_searches=2,
            code_executions=1,
            source="provider",
        ),
    ),
    ("audio by its length", {"type": "duration", "seconds": 1.5}, Usage(audio_ms=1500, source="provider")),
    ("no length", {"type": "duration", "seconds": "long"}, Usage(source="estimated")),
    ("DeepSeek", {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}, usage(9, 1, 8)),
    ("a stated zero stays", {"prompt_tokens": 0, "completion_tokens": 0}, usage(0, 0)),
    ("details may be null", {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": None}, usage(1, 1)),
    ("floats that are whole", {"prompt_tokens": 3.0, "completion_tokens": 2}, usage(3, 2)),
    ("negative", {"prompt_tokens": -4, "completion_tokens": 2}, usage(0, 2, source="estimated")),
    (
        "a part above its whole",
        {"prompt_tokens": 4, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 3}},
        usage(4, 2, 0, 0, 2, source="estimated"),
    ),
    (
        "parts that together exceed the whole",
        {"prompt_tokens": 4, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 3}},
        usage(4, 0, 3, 1, source="estimated"),
    ),
    ("text", {"prompt_tokens": "many", "completion_tokens": 2}, usage(0, 2, source="estimated")),
    ("truth is no number", {"prompt_tokens": True, "completion_tokens": 2}, usage(0, 2, source="estimated")),
    ("absurd", {"prompt_tokens": 10**18, "completion_tokens": 2}, usage(1_000_000_000, 2, source="estimated")),
    ("empty", {}, None),
    ("nulls", {"prompt_tokens": None, "completion_tokens": None}, None),
    ("none", None, None),
]


@pytest.mark.parametrize(("raw", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_cases(raw: JsonObject | None, expected: Usage | None) -> None:
    assert canonical(raw) == expected


NUMBERS = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.booleans())
PARTS = st.one_of(
    NUMBERS,
    st.dictionaries(
        st.sampled_from(
            ["cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens", "image_tokens", "web_search_requests"]
        ),
        NUMBERS,
    ),
)
RAW = st.dictionaries(
    st.sampled_from(
        ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details", "server_tool_use", "seconds"]
    ),
    PARTS,
)


@given(RAW)
def test_whatever_a_provider_says_is_bent_into_range(raw: JsonObject) -> None:
    canonical(raw)
