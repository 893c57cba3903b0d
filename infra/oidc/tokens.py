"""Identity tokens: JWTs that an OIDC issuer signed (OpenID Connect Core, RFC 9068), checked by the rules of RFC 8725.

What a token says before its signature is checked chooses among what an administrator configured, and nothing more: the provider
(`iss`), the algorithm out of the provider's list, the key out of its issuer's set. No address in a token is ever asked.
"""

import hashlib
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import cast, get_args

import httpx
from joserfc.util import urlsafe_b64decode
from pydantic import JsonValue
from pydantic_core import from_json

from infra.clock import Clock
from infra.oidc.jwks import IssuerKeys
from infra.oidc.keys import MAX_KID, PublicKey, find, is_signed
from schemas.base import JsonObject
from schemas.control import Algorithm, IdentityProvider
from schemas.errors import InvalidKey

MAX_TOKEN = 16 * 1024
"""In characters: a token of Entra ID with 200 groups has about 12,000."""

MAX_SUBJECT = 256
MAX_GROUP = 256
MAX_REMEMBERED = 10_000

_SHAPE = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
"""Header, claims and signature, none of them empty."""

_SPEAKS_FOR_ITSELF = ("jku", "jwk", "x5u", "x5c", "crit", "b64")
"""Header members by which a token brings its own key, or its own rules."""

_TYPES = frozenset({"jwt", "at+jwt"})
_ALGORITHMS: frozenset[str] = frozenset(get_args(Algorithm))
_SHOWN = ("sub", "azp", "client_id", "appid", "tid", "jti")
_LATEST_S = 100_000_000_000
"""The year 5138: what is above was written in milliseconds."""


@dataclass(frozen=True, slots=True)
class Identified:
    """Who asks, by a token whose signature was checked. `claims`: the few that help to find it in the provider's logs."""

    provider: IdentityProvider
    subject: str
    groups: tuple[str, ...]
    expires_ms: int
    claims: Mapping[str, str]

    @property
    def name(self) -> str:
        """`<identity provider>:<subject>`: how it stands in traces and on the bill."""
        return f"{self.provider.name}:{self.subject}"


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A token taken apart; nothing in it is believed yet."""

    algorithm: Algorithm
    kid: str
    issuer: str
    claims: JsonObject
    signing_input: bytes
    signature: str


@dataclass(frozen=True, slots=True)
class _Remembered:
    identified: Identified
    key: PublicKey
    until_ms: int


def looks_like_token(credential: str) -> bool:
    """True for a JWT (signed or encrypted), false for a key: what tells them apart in `Authorization: Bearer`."""
    return credential.count(".") in (2, 4)


class IdentityTokens:
    """Checks tokens of the identity providers that `providers` gives: those that are configured now."""

    def __init__(
        self,
        providers: Callable[[], Collection[IdentityProvider]],
        clock: Clock,
        open_client: Callable[[], httpx.AsyncClient] | None = None,
    ) -> None:
        self._providers, self._clock = providers, clock
        self._keys = IssuerKeys(clock, open_client)
        self._verified: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def verify(self, token: str) -> Identified:
        """Who the token speaks for. Asks the issuer for its keys if they aren't known, and waits for that 3 s at most.

        Raises InvalidKey with a sentence that says what is wrong with the token; Unavailable if nothing is: the issuer
        is away, and its keys were never seen, or not for a day.
        """
        if len(token) > MAX_TOKEN:
            raise _refusal(f"is longer than {MAX_TOKEN} characters; let your identity provider put fewer groups into it")
        if not token.isascii():
            raise _refusal("is no JWT")
        digest = hashlib.sha256(token.encode()).digest()
        return self._again(digest) or await self._first(_taken_apart(token), digest)

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._keys.close()

    def _again(self, digest: bytes) -> Identified | None:
        """Who a token speaks for that was checked before, if all is still so: the time, the provider, the issuer's key."""
        known = self._verified.get(digest)
        if known is None:
            return None
        provider = known.identified.provider
        keys = self._keys.known(provider) if self._configured(provider.issuer) == [provider] else None
        if keys is None or known.key not in keys.get(known.key.kid, ()) or self._clock() >= known.until_ms:
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return known.identified

    async def _first(self, claimed: _Claimed, digest: bytes) -> Identified:
        provider = self._provider(claimed.issuer)
        if claimed.algorithm not in provider.algorithms:
            allowed = ", ".join(provider.algorithms)
            raise _refusal(f"is signed by {claimed.algorithm}; the identity provider {provider.name} is configured for {allowed}")
        key = await self._key(provider, claimed)
        if self._configured(claimed.issuer) != [provider]:
            # Somebody changed it while its keys were fetched.
            return await self._first(claimed, digest)
        if not is_signed(claimed.signing_input, claimed.signature, key, claimed.algorithm):
            raise _refusal("has a wrong signature: it was changed, or isn't from its issuer")
        identified = _identified(provider, claimed.claims, self._clock())
        until_ms = identified.expires_ms + provider.leeway_s * 1000
        self._verified[digest] = _Remembered(identified, key, until_ms)
        if len(self._verified) > MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return identified

    def _provider(self, issuer: str) -> IdentityProvider:
        found = self._configured(issuer)
        if not found:
            raise _refusal("is from an issuer that is not configured here; an administrator adds it to identity_providers")
        if len(found) > 1:
            names = ", ".join(provider.name for provider in found)
            raise _refusal(
                f"is from an issuer that is configured more than once ({names}); an administrator must remove all but one"
            )
        return found[0]

    def _configured(self, issuer: str) -> list[IdentityProvider]:
        return [provider for provider in self._providers() if provider.issuer == issuer]

    async def _key(self, provider: IdentityProvider, claimed: _Claimed) -> PublicKey:
        keys = await self._keys.keys(provider)
        key = find(keys, claimed.kid, claimed.algorithm)
        if key is None:
            key = find(await self._keys.newer(provider, keys), claimed.kid, claimed.algorithm)
        if key is None:
            raise _refusal(
                f"names a key (kid) that its issuer doesn't publish for {claimed.algorithm}; get a new token, "
                "and if that is refused too, wait half a minute: a new key of the issuer may not have been seen here yet"
            )
        return key


def _taken_apart(token: str) -> _Claimed:
    shape = _SHAPE.fullmatch(token)
    if shape is None:
        is_encrypted = token.count(".") == 4
        raise _refusal("is encrypted (JWE); send one that is only signed" if is_encrypted else "is no signed JWT")
    head, body, signature = shape.groups()
    header, claims = _json(head), _json(body)
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise _refusal("doesn't say who issued it (iss)")
    algorithm = _algorithm(header)
    return _Claimed(algorithm, _kid(header), issuer, claims, f"{head}.{body}".encode(), signature)


def _json(part: str) -> JsonObject:
    """A JSON object, read once, so that a member that comes twice has one meaning: the last. The parser bounds its depth."""
    try:
        value: JsonValue = from_json(urlsafe_b64decode(part.encode()), allow_inf_nan=False)
    except ValueError:
        raise _refusal("is no JWT: a part of it is no JSON in base64url") from None
    if not isinstance(value, dict):
        raise _refusal("is no JWT: a part of it is no JSON object")
    return value


def _algorithm(header: JsonObject) -> Algorithm:
    for member in _SPEAKS_FOR_ITSELF:
        if member in header:
            raise _refusal(f"has {member} in its header; keys and rules come from the configuration only")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise _refusal("is of another type (typ) than JWT or at+jwt; a job token, for one, doesn't say who asks")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise _refusal("is not signed by a public key algorithm (alg), such as RS256")
    return cast(Algorithm, algorithm)


def _kid(header: JsonObject) -> str:
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise _refusal(f"doesn't name its key (kid, at most {MAX_KID} characters)")
    return kid


def _identified(provider: IdentityProvider, claims: JsonObject, now_ms: int) -> Identified:
    """What claims say whose signature is good. Raises InvalidKey if they are for another time, or for somebody else."""
    now_s, leeway_s = now_ms / 1000, provider.leeway_s
    expires_s = _time(claims, "exp")
    if expires_s is None:
        raise _refusal("never expires (exp is missing)")
    if now_s >= expires_s + leeway_s:
        raise _refusal(f"has expired at {_iso(expires_s)}; get a new one")
    for claim in ("nbf", "iat"):
        begins_s = _time(claims, claim)
        if begins_s is not None and begins_s > now_s + leeway_s:
            raise _refusal(f"is not valid before {_iso(begins_s)} ({claim}); if that is now, a clock is wrong")
    if not set(_strings(claims, "aud")) & set(provider.audiences):
        raise _refusal(
            f"is for somebody else (aud); ask {provider.name} for one with the audience {' or '.join(provider.audiences)}"
        )
    return Identified(
        provider,
        _subject(provider, claims),
        _groups(provider, claims),
        int(expires_s * 1000),
        MappingProxyType(
            {name: text for name in _SHOWN if isinstance(text := claims.get(name), str) and len(text) <= MAX_SUBJECT}
        ),
    )


def _time(claims: JsonObject, name: str) -> float | None:
    """A claim in unix seconds; None if it isn't there."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST_S:
        raise _refusal(f"has a {name} that is no time in unix seconds")
    return value


def _strings(claims: JsonObject, name: str) -> list[str]:
    """A claim that is a string or a list of them, as a list; empty if it isn't there, or null."""
    value = claims.get(name)
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    strings = [text for text in values if isinstance(text, str)]
    if len(strings) < len(values):
        raise _refusal(f"has a claim {name} that is neither a string nor a list of strings")
    return strings


def _subject(provider: IdentityProvider, claims: JsonObject) -> str:
    name = provider.user_claim
    subject = claims.get(name)
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise _refusal(f"doesn't say who asks: its claim {name} is missing, or no text of at most {MAX_SUBJECT} characters")
    if name == "email" and claims.get("email_verified") in (False, "false"):
        raise _refusal("is for an e-mail address that its issuer has not verified")
    return subject


def _groups(provider: IdentityProvider, claims: JsonObject) -> tuple[str, ...]:
    """Empty if the issuer says that there are too many of them for a token (Entra ID: `_claim_names`)."""
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, dict) and provider.groups_claim in elsewhere:
        return ()
    # Interned: ten thousand remembered tokens name the same few groups.
    return tuple(sys.intern(group) for group in _strings(claims, provider.groups_claim) if len(group) <= MAX_GROUP)


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


def _refusal(what: str) -> InvalidKey:
    return InvalidKey(f"The identity token {what}.")
