"""Google's access tokens: got with a service account's key, or found as Google's own tools find them. In memory only.

google-auth asks for them on a thread. They last an hour; the next one is got while the one before still serves.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, cast

from schemas.base import JsonObject
from services.router.providers.base import SecretOf

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.auth.exceptions import GoogleAuthError

log = logging.getLogger(__name__)

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_EARLY_S = 300.0
_LEAST_S = 10.0
_AGAIN_S = 10.0
_TIMEOUT_S = 10


class NoCredentials(Exception):
    """There is no token to be had. Its words, which end a sentence, hold nothing secret; `denied`: Google won't take ours."""

    def __init__(self, why: str, *, denied: bool = False) -> None:
        super().__init__(why)
        self.denied = denied


@dataclass(frozen=True, slots=True)
class Access:
    """A token, and the project of the account that it stands for, if that has one. Times in unix seconds."""

    token: str = field(repr=False)
    project: str | None
    ends_s: float


Ask = Callable[[], Access]
"""Asks for a new token, on a thread. Raises NoCredentials."""


class GoogleCredentials:
    """`secret` resolves the reference to a service account's JSON; a changed one is used at once."""

    def __init__(
        self, secret: SecretOf, now_s: Callable[[], float] = time.time, asks: "Callable[[str | None], Ask] | None" = None
    ) -> None:
        self._secret = secret
        self._now_s = now_s
        self._asks = asks or _Account
        self._held: dict[str | None, tuple[str | None, _Held]] = {}
        # At DEBUG google-auth logs what it sends, signed assertions included.
        logging.getLogger("google.auth").setLevel(logging.INFO)

    async def access(self, reference: str | None) -> Access:
        """A token that lasts a while yet. Without a reference: of the application's default credentials. Raises NoCredentials."""
        text = await self._secret(reference) if reference else None
        if reference and not text:
            raise NoCredentials("the credential that the deployment refers to is not set")
        known = self._held.get(reference)
        if known is None or known[0] != text:
            known = self._held[reference] = (text, _Held(self._asks(text), self._now_s))
        return await known[1].access()


class _Held:
    """The token of one account, and whoever is getting the next one."""

    def __init__(self, ask: Ask, now_s: Callable[[], float]) -> None:
        self._ask = ask
        self._now_s = now_s
        self._access: Access | None = None
        self._asking: asyncio.Task[NoCredentials | None] | None = None
        self._not_before_s = 0.0

    async def access(self) -> Access:
        if (access := self._lasting(_EARLY_S)) is not None:
            return access
        good = self._lasting(_LEAST_S)
        if self._asking is None and (good is None or self._now_s() >= self._not_before_s):
            self._asking = asyncio.create_task(self._renew())
        if good is not None:
            return good
        assert self._asking is not None, "somebody asks"
        # Shielded: others wait for it too.
        if (failed := await asyncio.shield(self._asking)) is not None:
            raise NoCredentials(str(failed), denied=failed.denied)
        assert self._access is not None, "it has come"
        return self._access

    def _lasting(self, seconds: float) -> Access | None:
        """The token, if it lasts so long."""
        access = self._access
        return access if access is not None and access.ends_s - self._now_s() > seconds else None

    async def _renew(self) -> NoCredentials | None:
        try:
            self._access = await asyncio.to_thread(self._ask)
        except NoCredentials as error:
            log.warning("no new access token of Google's: %s", error)
            self._not_before_s = self._now_s() + _AGAIN_S
            return error
        finally:
            self._asking = None
        return None


class _Account:
    """Asks Google, as a service account or as whoever this machine is. Only one thread at a time calls it."""

    def __init__(self, text: str | None) -> None:
        self._text = text
        self._credentials: Credentials | None = None
        self._project: str | None = None

    def __call__(self) -> Access:
        # Here, because the imports are slow and most routers never ask Google.
        from google.auth.exceptions import GoogleAuthError, RefreshError
        from google.auth.transport.requests import Request

        credentials = self._credentials = self._credentials or self._loaded()
        try:
            credentials.refresh(partial(Request(), timeout=_TIMEOUT_S))  # pyright: ignore[reportUnknownMemberType]
        except RefreshError as error:
            # From None, here and below: Google's words may repeat what was sent.
            raise NoCredentials("Google gives no access token for its credential", denied=not _may_work(error)) from None
        except (GoogleAuthError, OSError):
            raise NoCredentials("Google, which gives access tokens, is out of reach") from None
        return _access(credentials, self._project)

    def _loaded(self) -> "Credentials":
        from google.auth.exceptions import GoogleAuthError

        try:
            credentials, self._project = _found() if self._text is None else _of_account(self._text)
        except (GoogleAuthError, OSError, ValueError, KeyError, TypeError, AttributeError):
            why = "its credential is no service account's JSON" if self._text else "no default credentials of Google's were found"
            raise NoCredentials(why) from None
        return credentials


def _may_work(error: "GoogleAuthError") -> bool:
    """Whether it may work next time."""
    return cast("bool", error.retryable)  # pyright: ignore[reportUnknownMemberType]


def _found() -> "tuple[Credentials, str | None]":
    import google.auth

    default = cast("Callable[..., tuple[Credentials, str | None]]", google.auth.default)  # pyright: ignore[reportUnknownMemberType]
    return default(scopes=_SCOPES)


def _of_account(text: str) -> "tuple[Credentials, str | None]":
    from google.oauth2.service_account import Credentials as ServiceAccount

    info = cast("JsonObject", json.loads(text))
    project = info.get("project_id")
    account = ServiceAccount.from_service_account_info(info, scopes=_SCOPES)  # pyright: ignore[reportUnknownMemberType]
    return account, project if isinstance(project, str) else None


def _access(credentials: "Credentials", project: str | None) -> Access:
    """google-auth's times have no zone, and are UTC."""
    expiry = credentials.expiry
    ends_s = expiry.replace(tzinfo=UTC).timestamp() if expiry is not None else time.time()
    return Access(str(credentials.token), project, ends_s)
