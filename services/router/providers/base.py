"""What a provider is to the router: two methods, as httpx has it with its transports."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.errors import Fault
from schemas.job import Api

DONE = "[DONE]"
"""The data of the event with which a stream ends well."""

Kind = Literal["final", "throttled", "unavailable", "denied"]
"""Why a call failed: the same request would fail anywhere; for now too many; the deployment, so try another; it won't take our
credential, so try another and leave this one alone until somebody has looked after it."""

SecretOf = Callable[[str], Awaitable[str | None]]
"""Resolves a credential reference, from memory but for the first time; None if there is no such secret."""


@dataclass(slots=True)
class Told:
    """What a provider says of a call beside the answer, in its own words: its usage object, if that isn't OpenAI's."""

    usage: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One call of a deployment. `body` is the caller's, as OpenAI's API has it; `id` names the attempt.

    `told` is filled in by the provider while it answers.
    """

    id: str
    api: Api
    body: JsonObject
    deployment: Deployment
    traceparent: str = ""
    told: Told = field(default_factory=Told)


class ProviderFailure(Exception):
    """A call failed; `fault` is what the caller is told, and nothing in it is secret.

    `billable`: the provider may have worked, and bill, all the same; `usage`: what of it, if the refusal itself says so.
    """

    def __init__(
        self,
        kind: Kind,
        fault: Fault,
        *,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        billable: bool = False,
        usage: JsonObject | None = None,
    ) -> None:
        super().__init__(fault.message)
        self.kind: Kind = kind
        self.fault = fault
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.billable = billable
        self.usage = usage


class Provider(Protocol):
    """Both methods raise ProviderFailure and nothing else; cancelled, they close their connection at once."""

    async def call(self, request: ProviderRequest) -> str:
        """The body of the answer in OpenAI's form: JSON text, as the provider wrote it or as it was translated."""
        ...

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """The data of the events, in batches of those that arrived together; DONE is the last one of a stream that ended well.
        An empty batch says that the model is still at it.

        Each is a chunk of OpenAI's; the last but DONE holds the usage, with no choices.
        """
        ...
