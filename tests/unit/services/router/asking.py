"""Jobs that say something, and what a classifier says of them."""

from typing import Any

from schemas.base import JsonObject
from schemas.job import Caller, Job, Labels
from services.router.auto.base import Judged
from tests.unit.services.router.doubles import job

_PICTURE: JsonObject = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def asking(text: str = "hello", **told: Any) -> Job:
    """A chat of one message; what else is `told` is a member of the caller, the labels, the body or the job."""
    parts: list[Any] = [{"type": "text", "text": text}, *([_PICTURE] if told.pop("image", False) else [])]
    system = [{"role": "system", "content": told.pop("system")}] if "system" in told else []
    body: JsonObject = {"model": "a", "messages": [*system, {"role": "user", "content": parts if len(parts) > 1 else text}]}
    if told.pop("tools", 0):
        body["tools"] = [{"type": "function", "function": {"name": "f"}}]
    caller = {"organization": "org", "team": "team", "key_id": "key_1", **_taken(told, Caller.model_fields)}
    labels = _taken(told, Labels.model_fields)
    return job(body=body, model="a", caller=Caller.model_validate(caller), labels=Labels.model_validate(labels), **told)


def _taken(told: dict[str, Any], names: object) -> dict[str, Any]:
    return {name: told.pop(name) for name in list(told) if name in names}  # pyright: ignore[reportOperatorIssue]


def judged(tier: str = "simple", task: str = "chat") -> Judged:
    """With one chance in two, because of nothing but its length."""
    return Judged(tier, 0.5, task, 0.5, ("2 tokens",))  # pyright: ignore[reportArgumentType]
