"""What Gemini takes, to the letter, and what the mock answers. A member that isn't declared here is refused, as Google does."""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from benchmarks.mock_answers import answer_words, count_tokens
from schemas.base import JsonObject
from tests.mocks.samples import sample

SIGNATURE = "c2lnbmVkIGJ5IHRoZSBtb2Nr"
DUMMY = "skip_thought_signature_validator"
"""Google's own word for a call without a signature."""


def _is_base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("Base64 decoding failed") from None
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Blob(_Strict):
    mime_type: str = Field(pattern=r"^[\w.+-]+/[\w.+-]+$")
    data: Annotated[str, AfterValidator(_is_base64)]


class FileData(_Strict):
    mime_type: str
    file_uri: str


class FunctionCall(_Strict):
    id: str | None = None
    name: str
    args: JsonObject = Field(default_factory=dict)


class FunctionResponse(_Strict):
    id: str | None = None
    name: str
    response: JsonObject


class Part(_Strict):
    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    thought: bool = False
    thought_signature: str | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        said = (self.text, self.inline_data, self.file_data, self.function_call, self.function_response)
        if sum(one is not None for one in said) != 1 or (self.text == "" and not self.thought_signature):
            raise ValueError("contents.parts must not be empty")
        return self


class Content(_Strict):
    role: Literal["user", "model"] = "user"
    parts: tuple[Part, ...] = Field(min_length=1, strict=False)


class Instruction(_Strict):
    parts: tuple[Part, ...] = Field(min_length=1, strict=False)


class ThinkingConfig(_Strict):
    include_thoughts: bool = False
    thinking_budget: int | None = Field(default=None, ge=-1, le=32_768)
    thinking_level: Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.thinking_budget is not None and self.thinking_level is not None:
            raise ValueError("You can only set only one of thinking budget and thinking level.")
        return self


class GenerationConfig(_Strict):
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = None
    top_k: int | None = None
    candidate_count: int = Field(default=1, ge=1, le=8)
    max_output_tokens: int | None = Field(default=None, ge=1)
    stop_sequences: tuple[str, ...] = Field(default=(), max_length=5, strict=False)
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)
    response_mime_type: Literal["text/plain", "application/json"] = "text/plain"
    response_json_schema: JsonObject | None = None
    thinking_config: ThinkingConfig = ThinkingConfig()


class Declaration(_Strict):
    name: str = Field(pattern=r"^[A-Za-z_][\w.:-]{0,127}$")
    description: str = ""
    parameters_json_schema: JsonObject = Field(default_factory=dict)


class Tool(_Strict):
    function_declarations: tuple[Declaration, ...] = Field(strict=False)


class CallingConfig(_Strict):
    mode: Literal["AUTO", "ANY", "NONE", "VALIDATED"] = "AUTO"
    allowed_function_names: tuple[str, ...] = Field(default=(), strict=False)


class ToolConfig(_Strict):
    function_calling_config: CallingConfig = CallingConfig()


class GenerateRequest(_Strict):
    """The body of generateContent and streamGenerateContent."""

    contents: tuple[Content, ...] = Field(min_length=1, strict=False)
    system_instruction: Instruction | None = None
    tools: tuple[Tool, ...] = Field(default=(), strict=False)
    tool_config: ToolConfig = ToolConfig()
    generation_config: GenerationConfig = GenerationConfig()

    @model_validator(mode="after")
    def _calls_are_answered(self) -> Self:
        for before, after in zip(self.contents, self.contents[1:], strict=False):
            calls = sum(part.function_call is not None for part in before.parts)
            answers = sum(part.function_response is not None for part in after.parts)
            if calls != answers:
                raise ValueError(
                    "Please ensure that the number of function response parts is equal to the number of function call parts "
                    "of the function call turn."
                )
        return self

    def functions(self) -> list[Declaration]:
        """Those that may be called."""
        allowed = self.tool_config.function_calling_config.allowed_function_names
        declared = [function for tool in self.tools for function in tool.function_declarations]
        return [function for function in declared if not allowed or function.name in allowed]

    def texts(self) -> str:
        """All text, a line each."""
        system = self.system_instruction.parts if self.system_instruction else ()
        parts = [*system, *(part for content in self.contents for part in content.parts)]
        return "\n".join(part.text for part in parts if part.text)


class EmbedContent(_Strict):
    parts: tuple[Part, ...] = Field(min_length=1, strict=False)


class EmbedRequest(_Strict):
    model: str = Field(pattern="^models/")
    content: EmbedContent
    output_dimensionality: int = Field(default=8, ge=1)


class BatchEmbedRequest(_Strict):
    requests: tuple[EmbedRequest, ...] = Field(min_length=1, max_length=100, strict=False)


class Instance(_Strict):
    content: str = Field(min_length=1)


class PredictParameters(_Strict):
    output_dimensionality: int = Field(default=8, ge=1)


class PredictRequest(_Strict):
    instances: tuple[Instance, ...] = Field(min_length=1, strict=False)
    parameters: PredictParameters = PredictParameters()


def unsigned_call(asked: GenerateRequest) -> str | None:
    """The name of a call of the current turn whose signature is missing, which newer models refuse."""
    spoken = (n for n, content in enumerate(asked.contents) if content.role == "user" and any(p.text for p in content.parts))
    last = max(spoken, default=-1)
    for content in asked.contents[last + 1 :]:
        calls = [part for part in content.parts if part.function_call]
        if calls and calls[0].function_call and calls[0].thought_signature not in (SIGNATURE, DUMMY):
            return calls[0].function_call.name
    return None


def said(asked: GenerateRequest, words: int, *, signs: bool) -> tuple[list[JsonObject], str]:
    """The parts of the answer, a word each, and why it ends. `signs`: calls have ids and signatures, as newer models' have."""
    config = asked.generation_config
    thoughts: list[JsonObject] = [{"text": "I think.", "thought": True}] if config.thinking_config.include_thoughts else []
    functions, last = asked.functions(), asked.contents[-1].parts
    results = [part.function_response.response for part in last if part.function_response]
    if results and config.response_mime_type != "application/json":
        return [*thoughts, *_words(f"The tools say {json.dumps(results)}".split())], "STOP"
    if functions and not results and asked.tool_config.function_calling_config.mode != "NONE":
        both = any("both" in (part.text or "").split() for part in last)
        return [
            *thoughts,
            *(_call(function, n, signs=signs) for n, function in enumerate(functions[: 2 if both else 1], 1)),
        ], "STOP"
    if config.response_mime_type == "application/json":
        return [*thoughts, {"text": json.dumps(sample(config.response_json_schema or {}))}], "STOP"
    if media := [part.inline_data for part in last if part.inline_data]:
        return [*thoughts, *_words([f"I see {blob.mime_type}." for blob in media])], "STOP"
    most = config.max_output_tokens or words
    return [*thoughts, *_words(answer_words(asked.texts(), min(words, most)))], "MAX_TOKENS" if most < words else "STOP"


def _call(function: Declaration, number: int, *, signs: bool) -> JsonObject:
    """Of calls that are made together, the first is signed."""
    call: JsonObject = {"name": function.name, "args": sample(function.parameters_json_schema)}
    if not signs:
        return {"functionCall": call}
    signature: JsonObject = {"thoughtSignature": SIGNATURE} if number == 1 else {}
    return {"functionCall": {"id": f"fc-{number}", **call}, **signature}


def usage(asked: GenerateRequest, parts: Sequence[JsonObject]) -> JsonObject:
    """Words are tokens; thoughts are counted apart, and the total is the sum."""
    given = count_tokens(asked.texts())
    thoughts = sum(count_tokens(str(part["text"])) for part in parts if part.get("thought"))
    made = sum(1 for part in parts if not part.get("thought"))
    counted: JsonObject = {"promptTokenCount": given, "candidatesTokenCount": made, "totalTokenCount": given + made + thoughts}
    return counted | ({"thoughtsTokenCount": thoughts} if thoughts else {})


def events(asked: GenerateRequest, parts: Sequence[JsonObject], finish: str, model: str) -> Iterator[JsonObject]:
    """The events of a stream, a part each, with usage so far in each of them."""
    for n, part in enumerate(parts, 1):
        yield answer(asked, [part], finish if n == len(parts) else None, model, usage(asked, parts[:n]))


def answer(
    asked: GenerateRequest, parts: Sequence[JsonObject], finish: str | None, model: str, counted: JsonObject
) -> JsonObject:
    """An answer, or an event of one."""
    candidate: JsonObject = {"content": {"role": "model", "parts": [*parts]}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    candidates = [{**candidate, "index": n} for n in range(asked.generation_config.candidate_count)]
    return {"candidates": [*candidates], "usageMetadata": counted, "modelVersion": model, "responseId": "mock-response"}


def joined(parts: Sequence[JsonObject]) -> list[JsonObject]:
    """The parts of a whole answer: texts that follow on each other are one."""
    whole: list[JsonObject] = []
    for part in parts:
        if whole and "text" in part and "text" in whole[-1] and part.get("thought") == whole[-1].get("thought"):
            whole[-1] = {**whole[-1], "text": f"{whole[-1]['text']}{part['text']}"}
        else:
            whole.append(part)
    return whole


def complaint(error: ValidationError) -> str:
    """Google's words for what doesn't fit."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f'Invalid JSON payload received. Unknown name "{place}": Cannot find field.'
    return f"Invalid value at '{place}': {first['msg']}"


def _words(words: Sequence[str]) -> list[JsonObject]:
    return [{"text": f" {word}" if n else word} for n, word in enumerate(words)]
