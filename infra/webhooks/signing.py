"""Signatures of standard-webhooks (standardwebhooks.com, version 1: HMAC-SHA256). Pure.

A team's secrets are derived from the key that all services share, so that they are stored nowhere. A rotation is the next version
number; events are signed with it and with the one before, until the version after that.
"""

import base64
import hmac
from collections.abc import Sequence

from infra.signing import Signer
from schemas.control import Team

SECRET_PREFIX = "whsec_"


def secret_of(signer: Signer, team: Team, version: int) -> bytes:
    """The 32 bytes that a team's events are signed with under a version."""
    return signer.secret("webhook", team.id, str(version))


def secrets_of(signer: Signer, team: Team) -> tuple[bytes, ...]:
    """What a team's events are signed with now: the present version first, then the one before, if there was one."""
    newest = team.webhook_secret_version
    return tuple(secret_of(signer, team, version) for version in (newest, newest - 1) if version >= 1)


def shown(secret: bytes) -> str:
    """A secret as people keep it: `whsec_` and base64."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signature(secrets: Sequence[bytes], event_id: str, timestamp_s: int, body: bytes) -> str:
    """`webhook-signature`: one for each secret, separated by spaces; a receiver accepts whichever it can check."""
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp_s, body)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(secret, signed, 'sha256')).decode()}" for secret in secrets)


def signed_headers(secrets: Sequence[bytes], event_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of one try. The id is the same over all tries, the time is that of this one."""
    return {
        "content-type": "application/json",
        "user-agent": "Sluice",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signature(secrets, event_id, timestamp_s, body),
    }
