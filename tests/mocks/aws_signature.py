"""SigV4, checked as AWS's documentation says ("Create a signed AWS API request"), with nothing of botocore's."""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

SKEW = timedelta(minutes=5)


class Refusal(Exception):
    """An error answer of AWS's."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status, self.name, self.message = status, name, message


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it came over the wire; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""


_CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


def signature_of(sent: Sent, names: Sequence[str], secret: str, when: str, region: str, service: str) -> str:
    """The signature over these headers of a request, made at `when` (20150830T123600Z)."""
    path = "/".join(quote(segment, safe="-._~") for segment in sent.path.split("/"))
    lines = [f"{name}:{' '.join(sent.headers[name].split())}\n" for name in names]
    hashed = hashlib.sha256(sent.body).hexdigest()
    canonical = f"{sent.method}\n{path}\n{sent.query}\n{''.join(lines)}\n{';'.join(names)}\n{hashed}"
    scope = f"{when[:8]}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (when[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, to_sign.encode(), "sha256").hexdigest()


def verify(sent: Sent, secrets: Mapping[str, str], token: str | None, region: str, now: datetime) -> None:
    """Raises Refusal unless the request was signed, just now, by who has one of these keys and the token."""
    found = _CREDENTIAL.fullmatch(sent.headers.get("authorization", ""))
    if found is None:
        raise Refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    names, when = found["headers"].split(";"), sent.headers.get("x-amz-date", "")
    _check_scope(found, sent, names, when, region)
    made = datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs(now - made) > SKEW:
        raise Refusal(403, "InvalidSignatureException", f"Signature expired: {when} is now earlier than it may be.")
    secret = secrets.get(found["key"])
    if secret is None or sent.headers.get("x-amz-security-token") != token:
        raise Refusal(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if not hmac.compare_digest(signature_of(sent, names, secret, when, region, "bedrock"), found["signature"]):
        raise Refusal(403, "InvalidSignatureException", "The request signature we calculated does not match the signature.")


def _check_scope(found: re.Match[str], sent: Sent, names: Sequence[str], when: str, region: str) -> None:
    must = {"host", "x-amz-date", *(name for name in sent.headers if name.startswith("x-amz-"))}
    if not must <= set(names) or list(names) != sorted(names) or not set(names) <= set(sent.headers):
        raise Refusal(403, "InvalidSignatureException", "'Host' and every 'x-amz-' header must be signed.")
    if (found["region"], found["service"], found["day"]) != (region, "bedrock", when[:8]):
        raise Refusal(403, "InvalidSignatureException", f"Credential should be scoped to {region}, bedrock, {when[:8]}.")
