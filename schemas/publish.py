"""Writes the JSON Schema of every message to `schemas/published/<type>.json`: `python -m schemas.publish`.

The files are committed, so that a change of what is said shows in the change; a test compares them with the models.
"""

import json
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

from schemas.alert import Alert
from schemas.audit import AuditRecord
from schemas.base import JsonObject
from schemas.batch import BatchLine, BatchOrder, BatchResult
from schemas.cancel import Cancel
from schemas.completion import Completion
from schemas.control import RESOURCE, Organization
from schemas.event import AdminEvent
from schemas.feedback import Feedback
from schemas.job import Job
from schemas.kept import Kept
from schemas.reply import Reply
from schemas.ticket import Ended, Ticket
from schemas.webhook import WebhookDelivery

FOLDER = Path(__file__).parent / "published"

MESSAGES = (
    *(Job, Reply, Completion, Cancel, BatchLine, BatchResult, BatchOrder, Kept, Ticket, Ended, WebhookDelivery),
    *(Alert, AdminEvent, Feedback, AuditRecord),
)
_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


def schemas() -> dict[str, JsonObject]:
    """The JSON Schema (draft 2020-12) of each message by its type, as its readers check it."""
    own = {message.TYPE: _OBJECT.validate_python(message.model_json_schema()) for message in MESSAGES}
    return own | {Organization.TYPE: _OBJECT.validate_python(RESOURCE.json_schema())}


def text_of(schema: JsonValue) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def publish(folder: Path = FOLDER) -> None:
    """Writes all schemas into `folder`; nothing else stays there."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for name, schema in schemas().items():
        (folder / f"{name}.json").write_text(text_of(schema))


if __name__ == "__main__":
    publish()
