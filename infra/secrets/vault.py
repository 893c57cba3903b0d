"""HashiCorp Vault, or OpenBao, by hvac: logs in, reads and renews. Everything here is asked in threads.

Logs in by AppRole (docs: "AppRole auth method") or by the Kubernetes service account of the pod ("Kubernetes auth method"); a
token that is given is for trying things out. Nothing of what is read shows in `repr` or in an exception.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import hvac
import requests
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, Unauthorized, VaultError

from infra.secrets.book import Leased, VaultAway, VaultRefuses
from infra.settings import Settings

T = TypeVar("T")
_Client = Any
"""hvac.Client, which has no types."""

_TIMEOUT_S = 5
_DUE_SHARE = 2 / 3


class Vault:
    """One Vault server. Connects at first use. Its own token is renewed when two thirds of its time are over, and with it goes
    on what was leased to it."""

    def __init__(self, settings: Settings, now_s: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._now_s = now_s
        self._client: _Client | None = None
        self._token_s = 0
        self._token_due_s = 0.0
        self._login = Lock()

    async def read(self, path: str) -> Leased:
        """What lies at an API path, such as `secret/data/openai` (KV version 2). Raises VaultAway, VaultRefuses."""
        return await asyncio.to_thread(self._asked, lambda client: _leased(client.read(path), path))

    async def renew(self, lease_id: str) -> int:
        """The seconds for which a lease holds from now on. Raises VaultAway, VaultRefuses."""
        return await asyncio.to_thread(self._asked, lambda client: _renewed(client.sys.renew_lease(lease_id)))

    async def leave(self) -> None:
        """Gives back the token for which it logged in, and with it all that was leased to it. One that was given stays good."""
        client, self._client = self._client, None
        if client is None or self._settings.vault_auth == "token":
            return
        with suppress(VaultError, requests.RequestException, OSError, ValueError):
            await asyncio.to_thread(client.auth.token.revoke_self)

    def _asked(self, ask: Callable[[_Client], T]) -> T:
        """The answer; after a new login, if our own token is over."""
        try:
            client, fresh = self._logged_in()
            try:
                return ask(client)
            except (Forbidden, Unauthorized):
                if fresh:
                    raise
            return ask(self._logged_in(but=client)[0])
        except (Forbidden, InvalidPath, InvalidRequest, Unauthorized) as error:
            # From None: the chain holds the request, and with it our token.
            raise VaultRefuses(f"Vault refuses ({type(error).__name__})") from None
        except (VaultError, requests.RequestException, OSError, ValueError) as error:
            raise VaultAway(f"Vault does not answer ({type(error).__name__})") from None

    def _logged_in(self, but: _Client | None = None) -> tuple[_Client, bool]:
        """A client with a token, and whether that is new; another one than `but`, whose token is over."""
        with self._login:
            if self._client is not None and self._client is not but and self._token_goes_on(self._client):
                return self._client, False
            self._client = self._logs_in()
            return self._client, True

    def _token_goes_on(self, client: _Client) -> bool:
        """Renews our own token if that is due. False if it can't be: near its longest life it is prolonged by less and less."""
        if not self._token_s or self._now_s() < self._token_due_s:
            return True
        try:
            token_s = _token_s(client.auth.token.renew_self())
        except (Forbidden, InvalidRequest, Unauthorized):
            return False
        if token_s * 2 < self._token_s:
            return False
        self._token_due_s = self._now_s() + token_s * _DUE_SHARE
        return True

    def _logs_in(self) -> _Client:
        settings = self._settings
        session = requests.Session()
        session.trust_env = False
        client: _Client = hvac.Client(
            settings.vault,
            token=settings.vault_token.get_secret_value() or None,
            namespace=settings.vault_namespace or None,
            timeout=_TIMEOUT_S,
            session=session,
            verify=settings.vault_ca or True,
        )
        mount, answer = settings.vault_mount or settings.vault_auth, None
        match settings.vault_auth:
            case "approle":
                secret_id = settings.vault_secret_id.get_secret_value() or None
                answer = client.auth.approle.login(settings.vault_role, secret_id, mount_point=mount)
            case "kubernetes":
                jwt = Path(settings.vault_jwt_file).read_text().strip()
                answer = client.auth.kubernetes.login(settings.vault_role, jwt, mount_point=mount)
            case "token":
                pass
        self._token_s = _token_s(answer)
        self._token_due_s = self._now_s() + self._token_s * _DUE_SHARE
        return client


def _leased(answer: object, path: str) -> Leased:
    if not isinstance(answer, dict):
        raise InvalidPath(f"nothing at {path}")
    told = cast("dict[str, Any]", answer)
    data = cast("dict[str, object]", told.get("data") or {})
    inner = data.get("data")
    if isinstance(inner, dict) and "metadata" in data:
        # KV version 2 wraps what it keeps.
        data = cast("dict[str, object]", inner)
    fields = {name: value for name, value in data.items() if isinstance(value, str)}
    return Leased(fields, str(told.get("lease_id") or ""), int(told.get("lease_duration") or 0), bool(told.get("renewable")))


def _token_s(answer: object) -> int:
    """For how long a token holds that may be renewed; 0 for any other."""
    auth = cast("dict[str, Any]", answer).get("auth") if isinstance(answer, dict) else None
    told = cast("dict[str, Any]", auth or {})
    return int(told.get("lease_duration") or 0) if told.get("renewable") else 0


def _renewed(answer: object) -> int:
    return int(cast("dict[str, Any]", answer).get("lease_duration") or 0) if isinstance(answer, dict) else 0
