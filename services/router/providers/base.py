"""What a provider is to the router: two methods, as httpx has it with its transports."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.errors import Fault
from schemas.job import Api

DONE = "[DONE]"
"""The data of the event with which a stream ends well."""

Kind = Literal["final", "throttled", "unavailable"]
"""Why a call failed: the same request would fail anywhere; for now too many; the deployment, so try another."""


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One call of a deployment. `body` is the caller's; `id` names the attempt."""

    id: str
    api: Api
    body: JsonObject
    deployment: Deployment
    traceparent: str = ""


class ProviderFailure(Exception):
    """A call failed; `fault` is what the caller is told, and nothing in it is secret.

    `billable`: the provider may have worked, and bill, all the same.
    """

    def __init__(
        self,
        kind: Kind,
        fault: Fault,
        *,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        billable: bool = False,
    ) -> None:
        super().__init__(fault.message)
        self.kind: Kind = kind
        self.fault = fault
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.billable = billable


class Provider(Protocol):
    """Both methods raise ProviderFailure and nothing else; cancelled, they close their connection at once."""

    async def call(self, request: ProviderRequest) -> str:
        """The body of the answer: JSON text, as the provider wrote it."""
        ...

    def stream(self, request: ProviderRequest) -> AsyncGenerator[Sequence[str]]:
        """The data of the events, in batches of those that arrived together; DONE is the last one of a stream that ended well."""
        ...
