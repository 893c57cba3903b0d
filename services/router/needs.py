"""What a request needs of a deployment: its lane, what the model behind it can do, and room for the prompt. Pure.

A deployment that says nothing of itself is taken to serve everything: then nothing of a request is looked at.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import cast

from pydantic_core import to_json

from infra import tokens
from schemas.base import JsonObject
from schemas.control import Capability, Deployment, Model
from schemas.errors import ContextTooLong, InvalidRequest, ModelNotFound, SluiceError
from schemas.job import Api, Job

_PARAMS: Mapping[Capability, str] = {
    "audio": "messages",
    "images": "messages",
    "json_schema": "response_format",
    "reasoning": "reasoning_effort",
    "streaming": "stream",
    "tools": "tools",
}
"""Where a request asks for it."""

_BYTES_A_CHARACTER = 4
_FRAMING = 16


@dataclass(frozen=True)
class Needs:
    """What `job` needs of whoever is asked at `now_ms`. `prompt_tokens` 0: no limit comes near (`may_exceed`)."""

    job: Job
    now_ms: int
    prompt_tokens: int = 0

    def met_by(self, deployment: Deployment) -> bool:
        """True if it may be asked, as far as the request goes: it is not about the caller, nor about how the deployment is."""
        return self._fits(deployment) and self._but_for_length(deployment)

    def too_long(self, deployments: Iterable[Deployment]) -> bool:
        """True if nothing but the prompt's length keeps one of these from being asked."""
        return any(self._but_for_length(d) and not self._fits(d) for d in deployments)

    def unmet(self, model: str, deployments: Sequence[Deployment]) -> SluiceError:
        """The error of a request that none of these, the deployments of `model`, can serve."""
        there = [d for d in deployments if not self._gone(d)]
        in_lane = [d for d in there if self._in_lane(d)]
        if not there:
            return ModelNotFound(f"The model `{model}` has been shut down by its provider; ask for another one.", param="model")
        if not in_lane:
            said = f"The model `{model}` serves no {self.job.lane} requests; ask for another one."
            return InvalidRequest(said, param="model", code="lane_not_served")
        able = [d for d in in_lane if self._able(d)]
        if not able:
            lacking = sorted(min((self._asked.difference(d.capabilities or ()) for d in in_lane), key=len))
            return InvalidRequest(
                f"The model `{model}` can't do what the request needs: {', '.join(lacking)}. Do without, or ask for another one.",
                param=_PARAMS[lacking[0]],
                code="unsupported_capability",
            )
        most = max(d.max_input_tokens or 0 for d in able)
        return ContextTooLong(
            f"The model `{model}` takes prompts of {most} tokens at most, and this one has about {self.prompt_tokens}. "
            "Shorten it, or ask for a model with a larger context.",
            param="messages",
        )

    def _but_for_length(self, d: Deployment) -> bool:
        return self._able(d) and self._in_lane(d) and not self._gone(d)

    def _fits(self, d: Deployment) -> bool:
        return d.max_input_tokens is None or self.prompt_tokens <= d.max_input_tokens

    def _able(self, d: Deployment) -> bool:
        return d.capabilities is None or self._asked.issubset(d.capabilities)

    def _in_lane(self, d: Deployment) -> bool:
        return d.lanes is None or self.job.lane in d.lanes

    def _gone(self, d: Deployment) -> bool:
        return d.shutdown_date is not None and d.shutdown_date < self._today

    @cached_property
    def _asked(self) -> frozenset[Capability]:
        return capabilities(self.job)

    @cached_property
    def _today(self) -> date:
        return datetime.fromtimestamp(self.now_ms / 1000, UTC).date()


def capabilities(job: Job) -> frozenset[Capability]:
    """What the model behind a deployment has to be able to do."""
    return frozenset(_of_chat(job.body, job.stream)) if job.api is Api.CHAT else frozenset()


def may_exceed(job: Job, models: Iterable[Model]) -> bool:
    """True if a deployment of these takes so short prompts that this one has to be counted.

    Of a chat alone: a list of texts to embed is not one prompt.
    """
    limits = [most for model in models for d in model.deployments if (most := d.max_input_tokens)]
    return bool(limits) and job.api is Api.CHAT and _at_most(job) > min(limits)


def _at_most(job: Job) -> int:
    """Tokens of the prompt, more than it has, without counting them: as admission estimated, else one for each byte."""
    if job.estimate is not None:
        return job.estimate.input_tokens
    messages, tools = job.body.get("messages"), job.body.get("tools")
    framing = _FRAMING * (1 + len(messages)) if isinstance(messages, list) else 0
    return framing + _BYTES_A_CHARACTER * tokens.length(job.body) + (len(to_json(tools)) if tools else 0)


def _of_chat(body: JsonObject, stream: bool) -> Iterator[Capability]:
    if stream:
        yield "streaming"
    if body.get("tools") or body.get("functions"):
        yield "tools"
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        yield "json_schema"
    if _reasons(body):
        yield "reasoning"
    modalities, kinds = body.get("modalities"), set(_part_types(body.get("messages")))
    if "input_audio" in kinds or (isinstance(modalities, list) and "audio" in modalities):
        yield "audio"
    if "image_url" in kinds:
        yield "images"


def _reasons(body: JsonObject) -> bool:
    thinking = body.get("thinking")
    asked = isinstance(thinking, dict) and thinking.get("type") != "disabled"
    return asked or body.get("reasoning_effort") not in (None, "none")


def _part_types(messages: object) -> Iterator[object]:
    for message in cast("list[object]", messages) if isinstance(messages, list) else ():
        content = cast("JsonObject", message).get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            yield part.get("type") if isinstance(part, dict) else None
