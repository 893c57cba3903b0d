"""Public keys as an issuer publishes them (RFC 7517), and signatures that are checked with them.

Pure. A key is taken in with the algorithms that it may be used for; one that is none of ours is left out: a set may hold keys for
encryption, secrets, curves and types of tomorrow.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import DictKey, JWKRegistry, Key
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from schemas.control import Algorithm

MAX_KID = 256
MAX_KEYS = 100

_LEAST_RSA_BITS, _MOST_RSA_BITS = 2048, 8192
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_FITS: Mapping[tuple[str, str], frozenset[Algorithm]] = {
    ("RSA", ""): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    ("OKP", "Ed448"): frozenset({"EdDSA"}),
}
"""Which algorithms a type of key and its curve are for: an elliptic curve for one (RFC 7518, 3.4), RSA for all of its own."""

_Number = Annotated[str, Field(max_length=1400)]
"""In base64url; 8192 bits have 1366 characters."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key of an issuer. Two are equal if they are the same key for the same use, however often they were fetched."""

    kid: str
    thumbprint: str
    algorithms: frozenset[Algorithm]
    key: Key = field(compare=False, repr=False)


Keys = Mapping[str, tuple[PublicKey, ...]]
"""What an issuer publishes, by key id. An id should be there once; keys of different types may share one (RFC 7517, 4.5)."""


class _Jwk(BaseModel):
    """The members that count. `d`: an issuer that publishes it has given its secret away."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    kty: Literal["RSA", "EC", "OKP"]
    kid: str = Field(min_length=1, max_length=MAX_KID)
    use: str = "sig"
    alg: str | None = None
    key_ops: list[str] | None = None
    crv: str = ""
    n: _Number | None = None
    e: _Number | None = None
    x: _Number | None = None
    y: _Number | None = None
    d: JsonValue = None


class _JwkSet(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    keys: list[JsonValue] = Field(max_length=MAX_KEYS)


def read_keys(document: bytes) -> Keys:
    """The usable keys of a JWK set; there may be none. Raises ValueError if the document is no JWK set."""
    try:
        published = _JwkSet.model_validate_json(document).keys
    except ValidationError as error:
        raise ValueError(f"it is no JWK set of at most {MAX_KEYS} keys ({error.error_count()} errors)") from None
    found: dict[str, tuple[PublicKey, ...]] = {}
    for key in filter(None, map(_read, published)):
        found[key.kid] = (*found.get(key.kid, ()), key)
    return found


def find(keys: Keys, kid: str, algorithm: Algorithm) -> PublicKey | None:
    """The key with this id, if it is for this algorithm."""
    return next((key for key in keys.get(kid, ()) if algorithm in key.algorithms), None)


def is_signed(signing_input: bytes, signature: str, key: PublicKey, algorithm: Algorithm) -> bool:
    """True if the key made the signature (base64url). The algorithm must be one of the key's."""
    # The algorithm's own object: jws.validate_compact would read the header again, and warn of EdDSA each time.
    verifier = JWSRegistry.algorithms[algorithm]
    try:
        verifier.check_key(key.key)
        return verifier.verify(signing_input, urlsafe_b64decode(signature.encode()), key.key)
    except (JoseError, ValueError):
        return False


def _read(published: JsonValue) -> PublicKey | None:
    try:
        jwk = _Jwk.model_validate(published)
        algorithms = _algorithms(jwk)
        if not algorithms or not _is_of_good_size(jwk):
            return None
        numbers = jwk.model_dump(include={"kty", *_MEMBERS[jwk.kty]}, exclude_none=True)
        key = JWKRegistry.import_key(DictKey(numbers))
        return PublicKey(jwk.kid, key.thumbprint(), algorithms, key)
    except (JoseError, UnsupportedAlgorithm, ValueError, KeyError):
        return None


def _algorithms(jwk: _Jwk) -> frozenset[Algorithm]:
    """What the key is for, as far as its type, its curve and its issuer say so."""
    if jwk.d is not None or jwk.use != "sig" or "verify" not in _or(jwk.key_ops, ["verify"]):
        return frozenset()
    fitting = _FITS.get((jwk.kty, jwk.crv), frozenset[Algorithm]())
    return frozenset(name for name in fitting if jwk.alg in (None, name))


def _or(given: Iterable[str] | None, default: Iterable[str]) -> Iterable[str]:
    return default if given is None else given


def _is_of_good_size(jwk: _Jwk) -> bool:
    if jwk.kty != "RSA":
        return True
    modulus = int.from_bytes(urlsafe_b64decode((jwk.n or "").encode()), "big")
    return _LEAST_RSA_BITS <= modulus.bit_length() <= _MOST_RSA_BITS
