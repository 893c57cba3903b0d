"""Acts of people who administrate that change no resource, such as a secret shown or a job cancelled, told to `sluice.events`.

What does change a resource is told by the change itself (infra/kafka/table.py).
"""

from pydantic import JsonValue

from infra.clock import Clock, new_id
from infra.kafka.envelope import encode
from infra.kafka.log import Sink
from schemas.event import AdminEvent, Author
from schemas.topics import EVENTS

_SOURCE = "portal"


class Acts:
    """Tells of acts, with nothing secret in them."""

    def __init__(self, kafka: Sink, clock: Clock) -> None:
        self._kafka = kafka
        self._clock = clock

    async def tell(
        self,
        actor: Author | str,
        action: str,
        resource: str,
        reason: str = "",
        before: JsonValue = None,
        after: JsonValue = None,
    ) -> None:
        """Publishes an act; returns when the brokers have it. Raises what the producer raises.

        `resource` as record keys are, such as `job/job_…`. A member `team` of `after` or `before` says who may read the event
        besides those who see all teams; of `team/<name>` that is known.
        """
        author = actor if isinstance(actor, Author) else Author(actor=actor)
        now_ms = self._clock()
        event = AdminEvent(
            id=author.event or new_id("evt", now_ms),
            at_ms=now_ms,
            actor=author.actor,
            action=action,
            resource=resource,
            reason=reason or author.reason,
            before=before,
            after=after,
        )
        record = encode(event, topic=EVENTS.name, key=resource, event_id=event.id, source=_SOURCE, now_ms=now_ms)
        await (await self._kafka.send(record))
