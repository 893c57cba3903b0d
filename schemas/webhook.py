"""An event for a team's endpoint, on its way there (standard-webhooks; OpenAI's thin payloads)."""

from typing import ClassVar

from pydantic import Field

from schemas.base import JsonObject, Message


class WebhookDelivery(Message):
    """One event for one URL. `id` is the same over all tries; `attempt` counts those made.

    Where it may go is read from the policy of team and key at each try: nobody allows himself a host by writing a record.
    """

    TYPE: ClassVar[str] = "io.sluice.webhook.v1"

    id: str = Field(description="evt_…, the `webhook-id`")
    url: str
    team: str
    key_id: str = ""
    payload: JsonObject
    created_ms: int
    attempt: int = 0
    not_before_ms: int = 0
