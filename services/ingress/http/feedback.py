"""POST /v1/feedback: what somebody thinks of an answer, beside the job in the books."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from infra.clock import Clock, new_id
from infra.kafka.post import Post
from schemas.errors import InvalidRequest
from schemas.feedback import Feedback, Thumbs
from schemas.ids import job_id_in
from services.ingress.handler import Admissions
from services.ingress.http.requests import credentials, read_body

_MAX_BYTES = 64 * 1024
_SCORES: dict[Thumbs, float] = {"up": 1.0, "down": -1.0}
Word = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class FeedbackRequest(BaseModel):
    """An opinion: `thumbs`, a `score` from -1 to 1, a `label` or a `comment`, one of them at least.

    `job_id`: the answer's `x-sluice-job`, or the id of a response or message; `author`: who thinks so, else who asked for it.
    """

    model_config = ConfigDict(extra="forbid")

    job_id: str
    name: Word = "rating"
    author: Annotated[str, StringConstraints(max_length=256)] = ""
    thumbs: Thumbs | None = None
    score: float | None = Field(default=None, ge=-1, le=1, allow_inf_nan=False)
    label: Annotated[str, StringConstraints(max_length=128)] = ""
    comment: Annotated[str, StringConstraints(max_length=8192)] = ""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.thumbs is not None and self.score is not None:
            raise ValueError("give `thumbs` or `score`, not both")
        if self.thumbs is None and self.score is None and not self.label and not self.comment:
            raise ValueError("give `thumbs`, `score`, `label` or `comment`")
        return self


class FeedbackDoor:
    """Takes opinions from holders of a key."""

    def __init__(self, admissions: Admissions, post: Post, clock: Clock) -> None:
        self._admissions, self._post, self._clock = admissions, post, clock

    async def give(self, http: HttpRequest) -> Response:
        """Answers 201 when it is sure to be kept. Whether the job is the team's own is seen when both are joined."""
        identity = await self._admissions.identify(credentials(http))
        asked = _read(await read_body(http, _MAX_BYTES))
        job_id, now_ms = job_id_in(asked.job_id), self._clock()
        if job_id is None:
            raise InvalidRequest(
                "job_id must be the x-sluice-job of an answer, or the id of a response or message", param="job_id"
            )
        given = Feedback(
            id=new_id("fb", now_ms),
            at_ms=now_ms,
            job_id=job_id,
            caller=identity.caller,
            name=asked.name,
            author=asked.author or identity.caller.identity or identity.caller.user,
            score=_SCORES[asked.thumbs] if asked.thumbs else asked.score,
            label=asked.label,
            comment=asked.comment,
        )
        await self._post.feedback(given)
        told = {"id": given.id, "object": "feedback", "created_at": now_ms // 1000, "job_id": job_id, "name": given.name}
        return JSONResponse(told | {"score": given.score, "label": given.label}, 201)


def _read(body: bytes) -> FeedbackRequest:
    try:
        return FeedbackRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        raise InvalidRequest(f"{param or 'The body'}: {first['msg'].removeprefix('Value error, ')}", param=param) from None
