"""Virtual keys and job tokens.

A virtual key is `sk-sl-`, 32 random base62 characters, `_`, and 6 of CRC32, so that scanners find leaked ones and typing
errors are refused before any look-up. Stored and looked up by SHA-256: a random key needs no slow hash (RELIABILITY.md 5.11).

A job token is a JWT (RFC 7519) signed with EdDSA, good for hours, minted from a virtual key: what a batch team puts into a
record's header, so that no lasting secret lies in the log.
"""

import hashlib
import secrets
import string
import zlib
from collections import OrderedDict
from dataclasses import dataclass

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

PREFIX = "sk-sl-"
_BASE62 = string.digits + string.ascii_letters
_RANDOM = 32
_CHECK = 6
_ISSUER = "sluice"
_AUDIENCE = "sluice-jobs"
_TYPE = "sluice-job+jwt"
_MAX_TOKEN = 4096
_MAX_VERIFIED = 10_000
MAX_LIFE_S = 24 * 3600


def new_key() -> str:
    """A fresh virtual key."""
    body = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM))
    return f"{PREFIX}{body}_{_checksum(body)}"


def well_formed(key: str) -> bool:
    """True if the key has our form and its checksum fits; says nothing about whether it was ever issued."""
    body, _, check = key.removeprefix(PREFIX).partition("_")
    return key.startswith(PREFIX) and len(body) == _RANDOM and body.isascii() and body.isalnum() and check == _checksum(body)


def key_hash(key: str) -> str:
    """SHA-256 in hex: how a key is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        value, rest = divmod(value, 62)
        digits = _BASE62[rest] + digits
    return digits


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """Whose token it is (`key_id`), and until when, in unix seconds."""

    key_id: str
    expires_s: int


class JobTokens:
    """Mints and verifies job tokens. `secret`: 32 bytes that all services share."""

    def __init__(self, secret: bytes) -> None:
        seed = hashlib.sha256(b"job tokens" + secret).digest()
        self._key = _ed25519(seed)
        self._verified: OrderedDict[bytes, TokenClaims] = OrderedDict()

    def mint(self, key_id: str, now_s: int, life_s: int) -> str:
        """A token for `life_s` seconds, at most 24 hours."""
        expires = now_s + min(life_s, MAX_LIFE_S)
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": key_id,
            "iat": now_s,
            "exp": expires,
            "jti": secrets.token_hex(8),
        }
        return jwt.encode({"alg": "EdDSA", "typ": _TYPE}, claims, self._key, algorithms=["EdDSA"])

    def verify(self, token: str, now_s: int) -> TokenClaims | None:
        """Whose token it is; None if it is none of ours, or its time is over. Verified ones are remembered (bounded)."""
        if len(token) > _MAX_TOKEN:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._verified.get(digest) or self._check(token, digest)
        return claims if claims is not None and claims.expires_s > now_s else None

    def _check(self, token: str, digest: bytes) -> TokenClaims | None:
        try:
            decoded = jwt.decode(token, self._key, algorithms=["EdDSA"])
        except (JoseError, ValueError):
            return None
        claims, subject, expires = decoded.claims, decoded.claims.get("sub"), decoded.claims.get("exp")
        ours = claims.get("iss") == _ISSUER and claims.get("aud") == _AUDIENCE and decoded.header.get("typ") == _TYPE
        if not ours or not isinstance(subject, str) or not isinstance(expires, int):
            return None
        self._verified[digest] = found = TokenClaims(subject, expires)
        while len(self._verified) > _MAX_VERIFIED:
            self._verified.popitem(last=False)
        return found


def _ed25519(seed: bytes) -> OKPKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = Ed25519PrivateKey.from_private_bytes(seed)
    return OKPKey.import_key(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
