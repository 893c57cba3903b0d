"""From what Gemini answers to OpenAI's chat completion, whole or in chunks. Pure.

Both are made by one `Translation`, so that a stream says what the whole answer would have said.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError
from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.google.answers import (
    Candidate,
    ErrorBody,
    FunctionCall,
    GenerateContentResponse,
    LogprobsResult,
    ModalityCount,
    Part,
    UsageMetadata,
)
from services.router.providers.base import DONE, ProviderFailure, ProviderRequest
from services.router.providers.failures import content_refused, refused, unavailable
from services.router.providers.google.words import google_words

_TIERS = {
    "ON_DEMAND": "default",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "provisioned",
}
_FINISHED = {
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
"""The reasons to end that are neither well nor a failure."""

_FAILED = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "OTHER",
    }
)
"""With these nothing of use has come, and another try may do better."""


@dataclass(slots=True)
class _Choice:
    """What came of one candidate so far."""

    began: bool = False
    calls: int = 0
    finish: str | None = None


class Translation:
    """One answer. Fills in `request.told.usage`; raises ProviderFailure for what is no answer, or was refused."""

    def __init__(self, request: ProviderRequest, created: int, secrets: Sequence[str] = ()) -> None:
        self._request = request
        self._created = created
        self._secrets = secrets
        self._model = request.deployment.model
        self._one_call = request.body.get("parallel_tool_calls") is False
        self._choices: dict[int, _Choice] = {}

    def whole(self, body: bytes) -> str:
        """The chat completion."""
        answer = self._read(body)
        if not answer.candidates:
            raise self._failed("sent an answer that says nothing")
        choices = [self._whole_choice(candidate) for candidate in answer.candidates]
        return self._json("chat.completion", choices, self._usage())

    def chunks(self, data: str) -> list[str]:
        """The chunks that say what an event says."""
        answer = self._read(data)
        deltas = (choice for candidate in answer.candidates for choice in self._deltas(candidate))
        return [self._json("chat.completion.chunk", [choice], {"usage": None}) for choice in deltas]

    def end(self) -> list[str]:
        """What follows on the last event: usage and DONE. Nothing, if the answer has not come to its end."""
        if not self._choices or any(choice.finish is None for choice in self._choices.values()):
            return []
        usage = self._usage()
        return [*([self._json("chat.completion.chunk", [], usage)] if usage else []), DONE]

    def _read(self, data: bytes | str) -> GenerateContentResponse:
        try:
            answer = GenerateContentResponse.model_validate_json(data)
        except ValidationError:
            # From None: the error repeats what the model said.
            raise self._failed("sent what is no answer") from None
        if answer.prompt_feedback and answer.prompt_feedback.block_reason:
            raise content_refused(self._request.deployment.id)
        if not answer.candidates and (status := _error(data)):
            raise self._broken(status, data)
        self._model = answer.model_version or self._model
        self._request.told.usage = answer.usage_metadata or self._request.told.usage
        return answer

    def _whole_choice(self, candidate: Candidate) -> JsonObject:
        choice, said = self._said(candidate)
        if choice.finish is None:
            raise self._failed("sent an answer that has no end")
        message: JsonObject = {"role": "assistant", "content": None, "refusal": None, **said}
        return _choice(candidate, "message", message, choice.finish)

    def _deltas(self, candidate: Candidate) -> Iterator[JsonObject]:
        finished = candidate.finish_reason is not None
        choice, said = self._said(candidate)
        if not choice.began:
            said = {"role": "assistant", "content": "", **said}
            choice.began = True
        if said:
            yield _choice(candidate, "delta", _indexed(said, choice), None)
        if finished:
            yield {"index": candidate.index, "delta": {}, "logprobs": None, "finish_reason": choice.finish}

    def _said(self, candidate: Candidate) -> tuple[_Choice, JsonObject]:
        """What came of the candidate so far, and the members of a message that say what this piece of it says."""
        choice = self._choices.setdefault(candidate.index, _Choice())
        said = _words(candidate.content.parts)
        if calls := list(self._calls(candidate, choice)):
            said["tool_calls"] = [*calls]
            choice.calls += len(calls)
        if candidate.finish_reason in _FAILED:
            raise self._failed(f"could not finish its answer ({candidate.finish_reason})")
        if candidate.finish_reason is not None:
            choice.finish = _FINISHED.get(candidate.finish_reason) or ("tool_calls" if choice.calls else "stop")
        return choice, said

    def _calls(self, candidate: Candidate, choice: _Choice) -> Iterator[JsonObject]:
        """The calls in a piece. Google can't be told to make one at most, so those that follow on it are left out."""
        n = choice.calls
        for part in candidate.content.parts:
            if part.function_call is not None and not (self._one_call and n):
                yield _call(part.function_call, part.thought_signature, self._call_id(candidate.index, n))
                n += 1

    def _call_id(self, index: int, n: int) -> str:
        """Of a call that Google gave none; OpenAI takes 40 characters."""
        return "call_" + hashlib.blake2s(f"{self._request.id} {index} {n}".encode(), digest_size=12).hexdigest()

    def _usage(self) -> JsonObject:
        """Nothing, if Google didn't count, or not in numbers: then we do."""
        told = self._request.told.usage
        try:
            return {"usage": chat_usage(told)} if told is not None else {}
        except ValidationError:
            return {}

    def _tier(self) -> JsonObject:
        """Vertex AI tells how it was served."""
        told = (self._request.told.usage or {}).get("trafficType")
        tier = _TIERS.get(told) if isinstance(told, str) else None
        return {"service_tier": tier} if tier else {}

    def _json(self, kind: str, choices: Sequence[JsonObject], usage: JsonObject) -> str:
        answer = {
            "id": f"chatcmpl-{self._request.id.removeprefix('att_')}",
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
            **usage,
            **self._tier(),
        }
        return to_json(answer).decode()

    def _broken(self, status: int, data: bytes | str) -> ProviderFailure:
        """The failure that an error in the middle of a stream is: as if it had come with its status, but that it may cost."""
        body = data.encode() if isinstance(data, str) else data
        deployment = self._request.deployment.id
        failure = refused(status, {}, body, deployment, self._secrets, datetime.now(UTC), google_words)
        failure.billable = True
        return failure

    def _failed(self, what: str) -> ProviderFailure:
        return unavailable(self._request.deployment.id, what, http_status=200, billable=True)


def chat_usage(raw: JsonObject) -> JsonObject:
    """OpenAI's usage object. Google's prompt includes what was cached, but not what tools gave; its answer not the thoughts."""
    told = UsageMetadata.model_validate(raw)
    given = told.prompt_token_count + told.tool_use_prompt_token_count
    made = told.candidates_token_count + told.thoughts_token_count
    prompt: JsonObject = {"cached_tokens": told.cached_content_token_count}
    prompt |= _modalities((*(told.prompt_tokens_details or ()), *(told.tool_use_prompt_tokens_details or ())))
    if cached := _of(told.cache_tokens_details, "AUDIO"):
        prompt["cached_tokens_details"] = {"audio_tokens": cached}
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {
            "reasoning_tokens": told.thoughts_token_count,
            **_modalities(told.candidates_tokens_details or ()),
        },
    }


def _modalities(counts: Sequence[ModalityCount]) -> JsonObject:
    """Audio and pictures, where there are any: they have prices of their own."""
    found = {"audio_tokens": _of(counts, "AUDIO"), "image_tokens": _of(counts, "IMAGE")}
    return {name: tokens for name, tokens in found.items() if tokens}


def _of(counts: Sequence[ModalityCount] | None, modality: str) -> int:
    return sum(count.token_count for count in counts or () if count.modality == modality)


def _error(data: bytes | str) -> int:
    """The status of an error that came instead of an answer; 0 if none did."""
    try:
        return ErrorBody.model_validate_json(data).error.code or 500
    except ValidationError:
        return 0


def _words(parts: Sequence[Part]) -> JsonObject:
    """Reasoning, text and pictures, each only if there is some, and the signature that belongs to them."""
    said: JsonObject = {}
    if thoughts := "".join(part.text for part in parts if part.text and part.thought):
        said["reasoning_content"] = thoughts
    if text := "".join(part.text for part in parts if part.text and not part.thought):
        said["content"] = text
    if images := [part.inline_data for part in parts if part.inline_data is not None]:
        said["images"] = [
            {"type": "image_url", "image_url": {"url": f"data:{image.mime_type};base64,{image.data}"}} for image in images
        ]
    for part in parts:
        if part.thought_signature and part.function_call is None:
            said |= _signed(part.thought_signature)
    return said


def _call(call: FunctionCall, signature: str | None, made_id: str) -> JsonObject:
    function: JsonObject = {"name": call.name, "arguments": to_json(call.args or {}).decode()}
    said: JsonObject = {"id": call.id or made_id, "type": "function", "function": function}
    return said | _signed(signature) if signature else said


def _signed(signature: str) -> JsonObject:
    return {"extra_content": {"google": {"thought_signature": signature}}}


def _indexed(said: JsonObject, choice: _Choice) -> JsonObject:
    """The same, with the place of each call among all calls, as deltas have it."""
    calls = said.get("tool_calls")
    if not isinstance(calls, list):
        return said
    first = choice.calls - len(calls)
    numbered = [{"index": first + n, **call} for n, call in enumerate(calls) if isinstance(call, dict)]
    return {**said, "tool_calls": [*numbered]}


def _choice(candidate: Candidate, member: str, said: JsonObject, finish: str | None) -> JsonObject:
    logprobs = _logprobs(candidate.logprobs_result) if candidate.logprobs_result else None
    return {"index": candidate.index, member: said, "logprobs": logprobs, "finish_reason": finish}


def _logprobs(result: LogprobsResult) -> JsonObject:
    content: list[JsonObject] = []
    for step, chosen in enumerate(result.chosen_candidates):
        top = result.top_candidates[step].candidates if step < len(result.top_candidates) else ()
        content.append(
            {
                **_logprob(chosen.token, chosen.log_probability),
                "top_logprobs": [_logprob(one.token, one.log_probability) for one in top],
            }
        )
    return {"content": [*content], "refusal": None}


def _logprob(token: str, value: float) -> JsonObject:
    return {"token": token, "logprob": value, "bytes": [*token.encode()]}
