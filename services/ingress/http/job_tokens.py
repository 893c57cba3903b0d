"""POST /v1/job_tokens: a virtual key is exchanged for a token that may stand in a Kafka record."""

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from infra.clock import Clock
from infra.credentials import MAX_LIFE_S, JobTokens
from schemas.errors import InvalidKey, InvalidRequest
from services.ingress.handler import Admissions
from services.ingress.http.requests import credentials, read_body

_MAX_BYTES = 4096


class TokenRequest(BaseModel):
    """How long the token is to last, in seconds."""

    expires_in: int = Field(default=12 * 3600, ge=60, le=MAX_LIFE_S)


class Tokens:
    """Mints job tokens for holders of a virtual key."""

    def __init__(self, admissions: Admissions, tokens: JobTokens, clock: Clock) -> None:
        self._admissions = admissions
        self._tokens = tokens
        self._clock = clock

    async def mint(self, http: HttpRequest) -> Response:
        identity = await self._admissions.identify(credentials(http))
        body = await read_body(http, _MAX_BYTES)
        try:
            wanted = TokenRequest.model_validate_json(body) if body else TokenRequest()
        except ValidationError:
            raise InvalidRequest(f"expires_in must be 60 to {MAX_LIFE_S} seconds", param="expires_in") from None
        now_s = self._clock() // 1000
        if identity.key is None:
            raise InvalidKey("A job token is minted from a virtual key: send one as `Authorization: Bearer sk-sl-…`.")
        token = self._tokens.mint(identity.key.id, now_s, wanted.expires_in)
        return JSONResponse({"token": token, "expires_at": now_s + wanted.expires_in, "team": identity.team.name}, 201)
