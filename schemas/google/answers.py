"""What Gemini answers: `generateContent`, each event of its stream, embeddings, and errors (google.rpc.Status).

The same on generativelanguage.googleapis.com/v1beta and aiplatform.googleapis.com/v1. Enums stay text: new ones come often.
"""

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schemas.base import JsonObject


class _Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)


class FunctionCall(_Told):
    """A call the model wants made. Only newer models give it an id."""

    id: str | None = None
    name: str = ""
    args: JsonObject | None = None


class Blob(_Told):
    """Bytes in base64."""

    mime_type: str = ""
    data: str = ""


class Part(_Told):
    """One of text, a call, or bytes. `thought`: the text is a summary of reasoning; `thought_signature` goes back as it came."""

    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None


class Content(_Told):
    parts: tuple[Part, ...] = ()


class Logprob(_Told):
    token: str = ""
    log_probability: float = 0.0


class TopLogprobs(_Told):
    candidates: tuple[Logprob, ...] = ()


class LogprobsResult(_Told):
    """Step by step: the token that was chosen, and those that were likely."""

    chosen_candidates: tuple[Logprob, ...] = ()
    top_candidates: tuple[TopLogprobs, ...] = ()


class Candidate(_Told):
    """One of the answers, or a piece of it. `finish_reason` comes with its last piece."""

    index: int = 0
    content: Content = Content()
    finish_reason: str | None = None
    logprobs_result: LogprobsResult | None = None


class PromptFeedback(_Told):
    block_reason: str | None = None


class ModalityCount(_Told):
    """Tokens of a modality: TEXT, IMAGE, VIDEO, AUDIO, DOCUMENT."""

    modality: str = ""
    token_count: int = 0


class UsageMetadata(_Told):
    """Tokens. The prompt includes what was cached; thoughts and tool results are apart, and are added.

    The details say of which modality they are; `traffic_type` is Vertex AI's: ON_DEMAND, ON_DEMAND_FLEX, ON_DEMAND_PRIORITY or
    PROVISIONED_THROUGHPUT.
    """

    prompt_token_count: int = 0
    cached_content_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    prompt_tokens_details: tuple[ModalityCount, ...] | None = None
    cache_tokens_details: tuple[ModalityCount, ...] | None = None
    tool_use_prompt_tokens_details: tuple[ModalityCount, ...] | None = None
    candidates_tokens_details: tuple[ModalityCount, ...] | None = None
    traffic_type: str | None = None


class GenerateContentResponse(_Told):
    """An answer, or one event of a stream. `usage_metadata`, as it came, counts from the beginning: the last one holds."""

    candidates: tuple[Candidate, ...] = ()
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: JsonObject | None = None
    model_version: str = ""


class Statistics(_Told):
    """Vertex AI writes this one as Python would."""

    token_count: int = Field(default=0, validation_alias=AliasChoices("token_count", "tokenCount"))


class Embedding(_Told):
    """A vector; only Vertex AI counts the tokens of its text."""

    values: tuple[float, ...]
    statistics: Statistics | None = None


class BatchEmbedContentsResponse(_Told):
    """Of the Gemini API."""

    embeddings: tuple[Embedding, ...]


class Prediction(_Told):
    embeddings: Embedding


class PredictResponse(_Told):
    """Of Vertex AI."""

    predictions: tuple[Prediction, ...]


class ErrorDetail(_Told):
    """`reason` of an ErrorInfo, `retry_delay` (such as 7.5s) of a RetryInfo."""

    reason: str | None = None
    retry_delay: str | None = None


class Status(_Told):
    """google.rpc.Status. `code` is the HTTP status, `status` the name of the gRPC one."""

    code: int = 0
    message: str = ""
    status: str = ""
    details: tuple[ErrorDetail, ...] = ()


class ErrorBody(_Told):
    """What comes instead of an answer."""

    error: Status
