"""The events of a response on the wire: `event:` and `data:` lines, numbered, without `[DONE]`."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from pydantic_core import to_json

from schemas.base import JsonObject
from schemas.errors import SluiceError
from schemas.reply import Event, Failed
from services.ingress.http.streams import KEEP_ALIVE
from services.ingress.responses.telling import Telling

FROM_THE_FIRST = -1


def wire(events: Iterable[JsonObject], after: int = FROM_THE_FIRST) -> bytes:
    """The bytes of these events; those with a number up to `after` are left out."""
    return b"".join(_part(event) for event in events if _number(event) > after)


async def stream(telling: Telling, events: AsyncGenerator[Event | None], after: int = FROM_THE_FIRST) -> AsyncGenerator[bytes]:
    """A response's events from behind `after` on, as those of its job come. Raises CallerGone."""
    heard = False
    async with aclosing(events):
        yield wire(telling.begin(), after) or KEEP_ALIVE
        try:
            async for event in events:
                if isinstance(event, Failed) and not heard:
                    # What was told before it broke off is not known any more.
                    telling.go_on_from(after)
                heard = heard or event is not None
                yield KEEP_ALIVE if event is None else wire(telling.take(event), after)
        except SluiceError as error:
            telling.go_on_from(after)
            yield wire(telling.interrupted(error.fault()))


async def preceded(first: Event | None, events: AsyncGenerator[Event | None]) -> AsyncGenerator[Event | None]:
    """The events, the first of which was looked at before."""
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


def _part(event: JsonObject) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), to_json(event))


def _number(event: JsonObject) -> int:
    number = event["sequence_number"]
    return number if isinstance(number, int) else 0
