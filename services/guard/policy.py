"""What the guard decides about what was found. Pure."""

from collections.abc import Callable, Mapping

from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.job import GuardFinding, Verdict
from schemas.policy import FindingKind, GuardAction
from services.guard.detectors.version import RULES

STERNNESS: tuple[GuardAction, ...] = tuple(GuardAction)
_NAMES: Mapping[str, str] = {
    "card": "a payment card number",
    "iban": "a bank account number (IBAN)",
    "us_ssn": "a US social security number",
    "email": "an e-mail address",
    "phone": "a phone number",
    "ip": "an IP address",
    "api_key": "a credential (API key)",
    "private_key": "a private key",
    "jwt": "a token (JWT)",
    "password": "a password",
    "connection_url": "an address with credentials in it",
}
_UNTOUCHED = frozenset({"model"})


def verdict(found: Mapping[str, int], actions: Mapping[FindingKind, GuardAction]) -> Verdict:
    """The sternest action over all findings, and what was done about each kind."""
    by_kind = {str(kind): action for kind, action in actions.items()}
    findings = tuple(
        GuardFinding(kind=kind, action=by_kind[kind].value, count=count)
        for kind, count in sorted(found.items())
        if kind in by_kind
    )
    sternest = max((by_kind[f.kind] for f in findings), key=STERNNESS.index, default=GuardAction.ALLOW)
    return Verdict(verdict=sternest.value, findings=findings, version=RULES)


def refusal(decided: Verdict) -> str:
    """What the caller of a blocked request is told: which kinds, never the text."""
    kinds = [_NAMES.get(f.kind, f.kind) for f in decided.findings if f.action == GuardAction.BLOCK]
    return f"The request was blocked by policy: it contains {', '.join(kinds)}. Remove it and send the request again."


def rewritten(body: JsonObject, look: Callable[[str], str]) -> JsonObject:
    """The body with each text replaced by what `look` gives for it. Data URLs (images, files) are no texts."""
    return {name: value if name in _UNTOUCHED else _rewritten(value, look) for name, value in body.items()}


def _rewritten(value: JsonValue, look: Callable[[str], str]) -> JsonValue:
    match value:
        case str():
            return value if value.startswith("data:") else look(value)
        case list():
            return [_rewritten(item, look) for item in value]
        case dict():
            return {name: _rewritten(item, look) for name, item in value.items()}
        case _:
            return value


def weight(value: JsonValue) -> int:
    """How many characters of text there are to look at."""
    match value:
        case str():
            return len(value)
        case list():
            return sum(weight(item) for item in value)
        case dict():
            return sum(weight(item) for item in value.values())
        case _:
            return 0
