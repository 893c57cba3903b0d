"""Signatures of standard-webhooks (standardwebhooks.com, version 1: HMAC-SHA256), made and checked. Pure.

A team's secrets are derived from the key that all services share, so that they are stored nowhere. A rotation is the next version
number; events are signed with it and with the one before, until the version after that.
"""

import base64
import hmac
from collections.abc import Sequence

from infra.signing import Signer
from schemas.control import Team

SECRET_PREFIX = "whsec_"

TOLERANCE_S = 300
"""So far a timestamp may be from our clock, both ways: standard-webhooks' own advice."""

_SECRET_BYTES = range(24, 65)
_MOST_SIGNATURES = 16


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


def secret_in(text: str) -> bytes:
    """The bytes of a secret as people keep it. Raises ValueError, which doesn't repeat it."""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:  # not base64, or not even ASCII
        secret = b""
    if not text.startswith(SECRET_PREFIX) or len(secret) not in _SECRET_BYTES:
        raise ValueError(f"a secret is `{SECRET_PREFIX}` and base64 of {_SECRET_BYTES[0]} to {_SECRET_BYTES[-1]} bytes")
    return secret


def is_signed(secrets: Sequence[bytes], event_id: str, timestamp_s: int, body: bytes, given: str) -> bool:
    """True if `given` (`webhook-signature` as it came) has a signature by one of the secrets. Compared in constant time."""
    ours = [one.encode() for one in signature(secrets, event_id, timestamp_s, body).split()]
    theirs = [one.encode() for one in given.split(" ")[:_MOST_SIGNATURES]]
    return any([hmac.compare_digest(mine, one) for mine in ours for one in theirs])
