"""Recorded bodies of the Gemini API, written by hand from its public documentation."""

import json
from pathlib import Path
from typing import Any

from schemas.base import JsonObject
from schemas.control import Deployment
from schemas.job import Api
from services.router.providers.base import ProviderRequest

_FOLDER = Path(__file__).parents[4] / "recorded" / "wire" / "gemini"


def cases(name: str) -> list[dict[str, Any]]:
    """The cases in a file."""
    return json.loads((_FOLDER / f"{name}.json").read_text())


def asked(body: JsonObject | None = None, api: Api = Api.CHAT, **deployment: Any) -> ProviderRequest:
    """A request of the provider `gemini`."""
    given = {"id": "d1", "provider": "gemini", "model": "gemini-2.5-flash", **deployment}
    return ProviderRequest(
        "att_018f_1", api, body or {}, Deployment.model_validate(given), "00-" + "1" * 32 + "-" + "2" * 16 + "-00"
    )
