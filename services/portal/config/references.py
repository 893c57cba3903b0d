"""References to credentials, as files have them; the router resolves them. Pure.

`os.environ/NAME` and `file/NAME` are LiteLLM's way and our older one, `env:NAME`, `file:NAME` and `vault:PATH#FIELD` say the same
and more. Whatever stands where a credential belongs and is no reference is the credential itself.
"""

import hashlib
import re
from collections.abc import Iterable

from schemas.control import Model
from schemas.errors import InvalidRequest

ENVIRONMENT, FILE = "os.environ/", "file/"

_REFERENCE = re.compile(r"(os\.environ/|file/|env:|file:)(?P<name>.*)|vault:(?P<path>[^#]*)(#(?P<field>.*))?", re.DOTALL)


def is_reference(text: str) -> bool:
    """True for what refers to a credential, well or not."""
    return _REFERENCE.fullmatch(text) is not None


def wrong_with(reference: str) -> str | None:
    """What is wrong with a reference, as the end of a sentence; None if nothing is."""
    found = _REFERENCE.fullmatch(reference)
    if found is None or found["name"]:
        return None
    if found["path"] is None:
        return "name what it refers to, such as env:OPENAI_API_KEY"
    return None if found["path"] and found["field"] else "write vault:PATH#FIELD, such as vault:secret/data/openai#key"


def check_credentials(models: Iterable[Model]) -> None:
    """Raises InvalidRequest for a credential that stands there itself: it would travel, and be kept with the books."""
    for model in models:
        for deployment in model.deployments:
            if not all(map(is_reference, deployment.references)):
                raise InvalidRequest(
                    f"Deployment {deployment.id!r} of {model.name!r} has a credential that is no reference: write env:NAME, "
                    "file:NAME or vault:PATH#FIELD.",
                    param="models",
                )


def secret_name(secret: str) -> str:
    """The same name for the same secret, from which nobody learns it."""
    return f"key-{hashlib.sha256(b'sluice credential ' + secret.encode()).hexdigest()[:16]}"
