"""Audit records of policies that want them redacted: without what the guard finds, whatever it does about it in requests."""

import asyncio
import json
import logging

from pydantic import JsonValue, TypeAdapter, ValidationError

from infra.files import FileStore
from infra.kafka.carriage import fetched
from infra.kafka.envelope import H_TRACEPARENT, Poison, decode, header
from infra.kafka.log import Incoming
from infra.kafka.post import Post
from schemas.audit import AuditRecord
from schemas.base import JsonObject
from schemas.policy import GuardAction
from services.guard.handler import look

log = logging.getLogger(__name__)

_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


class Redaction:
    """Takes drafts, sends records."""

    def __init__(self, post: Post, files: FileStore) -> None:
        self._post = post
        self._files = files

    async def work(self, record: Incoming, _: bool) -> None:
        """Redacts one draft and sends it on; what is none goes to the dead letters."""
        resolved = await fetched(record, self._files)
        draft = resolved if isinstance(resolved, Poison) else decode(resolved, AuditRecord)
        if isinstance(draft, Poison):
            log.warning("audit: %s at %s/%d@%d", draft.reason, record.topic, record.partition, record.offset)
            await self._post.dead(record, draft)
            return
        redacted = await asyncio.to_thread(redact, draft)
        await (await self._post.begin_audit(redacted, header(record.headers, H_TRACEPARENT)))


def redact(draft: AuditRecord) -> AuditRecord:
    """The record without what is to be found in it."""
    actions = dict.fromkeys(draft.kinds, GuardAction.REDACT)

    def without(text: str) -> str:
        try:
            value = _JSON.validate_json(text)
        except ValidationError:
            value = text
        body: JsonObject = {"text": value}
        clean = look(body, actions)[1]["text"]
        return clean if isinstance(value, str) and isinstance(clean, str) else json.dumps(clean, ensure_ascii=False)

    texts = {name: without(getattr(draft, name)) for name in ("prompt", "context", "completion")}
    return draft.model_copy(update={**texts, "kinds": ()})
