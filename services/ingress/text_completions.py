"""Text completions, OpenAI's API before chats: the prompt is what a user says, the text is what the model answers. Pure.

A member that chats have too is passed on as it is, and so is what nobody here knows.
"""

from typing import cast

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from infra import tokens
from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from schemas.openai.requests import CompletionRequest

COMPLETIONS = "/v1/completions"

_USUAL_TOKENS = 16
"""What OpenAI takes where nobody says how long the text may be."""

_NOT_OF_CHATS = frozenset({"prompt", "max_tokens", "suffix", "echo", "logprobs", "best_of"})


def chat_body(asked: CompletionRequest, given: JsonObject) -> JsonObject:
    """The body of the chat that goes on with the prompt. Raises InvalidRequest for what no chat can do.

    `given`: the whole request.
    """
    if asked.suffix:
        raise InvalidRequest("A chat can't write what stands before a `suffix`: say it in the prompt.", param="suffix")
    if asked.echo:
        raise InvalidRequest("The prompt isn't repeated: leave `echo` out, and put it before the text.", param="echo")
    if asked.logprobs is not None:
        raise InvalidRequest("Leave `logprobs` out, or ask /v1/chat/completions for them.", param="logprobs")
    if asked.best_of is not None and asked.best_of > 1:
        raise InvalidRequest("Leave `best_of` out, and ask for several texts with `n`.", param="best_of")
    shared = {name: value for name, value in given.items() if name not in _NOT_OF_CHATS}
    messages: list[JsonValue] = [{"role": "user", "content": _prompt(asked)}]
    return {**shared, "messages": messages, "max_completion_tokens": asked.max_tokens or _USUAL_TOKENS}


def _prompt(asked: CompletionRequest) -> str:
    match asked.prompt:
        case str(text) | [str(text)]:
            return text
        case [str(), *_]:
            raise InvalidRequest("Send one prompt a request, and several requests at once for several.", param="prompt")
        case _:
            raise InvalidRequest("Send the prompt as text: token numbers mean something else to each model.", param="prompt")


def text_completion(job_id: str, said: JsonObject) -> JsonObject:
    """The text completion, or the part of one, that says what a chat completion or a chunk of one says."""
    choices = said.get("choices")
    texts: list[JsonValue] = [_text(one) for one in (choices if isinstance(choices, list) else ()) if isinstance(one, dict)]
    return {**said, "id": f"cmpl-{job_id.removeprefix('job_')}", "object": "text_completion", "choices": texts}


def told_text(job_id: str, data: str) -> str:
    """The same, from JSON to JSON."""
    return to_json(text_completion(job_id, cast("JsonObject", from_json(data)))).decode()


def _text(choice: JsonObject) -> JsonObject:
    """What the model says, or why it won't; not what it thinks."""
    given = choice.get("message") or choice.get("delta")
    message = given if isinstance(given, dict) else {}
    finish = choice.get("finish_reason")
    return {
        "text": tokens.content_text(message.get("content")) or message.get("refusal") or "",
        "index": choice.get("index", 0),
        "logprobs": None,
        "finish_reason": finish if finish in (None, "length", "content_filter") else "stop",
    }
