"""AWS credentials for signing: a deployment's own, by reference, or those that botocore finds. Held in memory only."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

import botocore.session
from botocore.credentials import AssumeRoleCredentialFetcher, Credentials, DeferredRefreshableCredentials, RefreshableCredentials

from schemas.control import AwsSettings
from services.router.providers.base import SecretOf

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 300.0
"""After so long keys that never expire are looked up again: somebody may have replaced them."""
_PAUSE_S = 5.0
"""Between two look-ups, however the first one ended."""

# Below this, botocore logs what it signs and what STS answers.
logging.getLogger("botocore").setLevel(logging.WARNING)


class NoCredentials(Exception):
    """There are none, or they can't be had now; the text ends a sentence about the deployment and holds nothing secret."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What signs a request."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class Chain(Protocol):
    """Where keys come from."""

    def fresh(self) -> Keys:
        """Keys that haven't expired. Asks disks and networks, so it is called in a thread; raises whatever those do."""
        ...

    def expire(self, within_s: int | None) -> bool:
        """Whether the keys last given expire within that time; None: so soon that fresh ones are wanted. Costs nothing."""
        ...


ChainOf = Callable[[AwsSettings, str, Keys | None], Chain]
"""The chain for these settings in this region, with the deployment's own keys if it has some. Costs nothing."""


class AwsCredentials:
    """The keys of each deployment. Whatever takes time happens in a thread, once for all who wait for it."""

    def __init__(self, secret: SecretOf, chain_of: ChainOf | None = None, now_s: Callable[[], float] = time.monotonic) -> None:
        self._secret = secret
        self._chain_of = chain_of or Botocore
        self._now_s = now_s
        self._sources: dict[tuple[AwsSettings, str], _Source] = {}

    async def of(self, settings: AwsSettings, region: str) -> Keys:
        """Keys that are valid now. Raises NoCredentials."""
        own = await self._own(settings)
        if own is not None and settings.role_arn is None:
            return own
        source = self._sources.get((settings, region))
        if source is None or source.own != own:
            source = self._sources[settings, region] = _Source(self._chain_of(settings, region, own), own, self._now_s)
        return await source.keys()

    async def close(self) -> None:
        """Waits for no look-up any more."""
        for source in self._sources.values():
            await source.close()

    async def _own(self, settings: AwsSettings) -> Keys | None:
        if settings.access_key_id is None and settings.secret_access_key is None:
            return None
        access_key, secret_key = await self._given(settings.access_key_id), await self._given(settings.secret_access_key)
        return Keys(access_key, secret_key, await self._given(settings.session_token) if settings.session_token else None)

    async def _given(self, reference: str | None) -> str:
        secret = await self._secret(reference) if reference else None
        if not secret:
            raise NoCredentials("can't be asked: a credential that the deployment refers to is not set")
        return secret


class _Source:
    """The keys of one chain: while fresh ones are looked up, and as long as none can be had, those that are there serve."""

    def __init__(self, chain: Chain, own: Keys | None, now_s: Callable[[], float]) -> None:
        self.own = own
        self._chain = chain
        self._now_s = now_s
        self._keys: Keys | None = None
        self._expired = False
        self._not_before_s = self._again_s = now_s()
        self._looking: asyncio.Task[None] | None = None

    async def keys(self) -> Keys:
        # Remembered: the chain has the fresh ones a moment before they are here.
        self._expired |= self._chain.expire(0)
        if self._looking is None and self._due():
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None and (self._keys is None or self._expired):
            await asyncio.shield(self._looking)
        if self._keys is None or self._expired:
            raise NoCredentials("can't be asked: no AWS credentials were found for it")
        return self._keys

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    def _due(self) -> bool:
        now_s = self._now_s()
        return now_s >= self._again_s or (now_s >= self._not_before_s and self._chain.expire(None))

    async def _look(self) -> None:
        wait_s = _PAUSE_S
        try:
            self._keys = await asyncio.to_thread(self._chain.fresh)
            self._expired, wait_s = False, _LOOK_AGAIN_S
        except Exception as error:
            # Its words are left out: those of a credential process may hold anything.
            log.warning("AWS credentials could not be looked up (%s)", type(error).__name__)
        finally:
            self._looking = None
            self._again_s = self._now_s() + wait_s
            self._not_before_s = self._now_s() + _PAUSE_S


class _Session(Protocol):
    """What botocore's Session is."""

    def get_credentials(self) -> Credentials | None: ...
    def create_client(self, service_name: str, *, region_name: str) -> object: ...


class _Frozen(Protocol):
    """What botocore's ReadOnlyCredentials are."""

    access_key: str
    secret_key: str
    token: str | None


class _Refreshed(Protocol):
    """What botocore's RefreshableCredentials are."""

    def refresh_needed(self, refresh_in: int | None) -> bool: ...


class Botocore:
    """AWS's own chain: environment, profiles, SSO, web identity, container and instance metadata; then the role, if one is given.

    It keeps what expires fresh by itself; what doesn't is read anew.
    """

    def __init__(self, settings: AwsSettings, region: str, own: Keys | None) -> None:
        self._settings, self._region, self._own = settings, region, own
        self._credentials: Credentials | None = None

    def fresh(self) -> Keys:
        if not isinstance(self._credentials, RefreshableCredentials):
            self._credentials = self._found()
        frozen = cast("_Frozen", self._credentials.get_frozen_credentials())
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)

    def expire(self, within_s: int | None) -> bool:
        credentials = self._credentials
        return isinstance(credentials, RefreshableCredentials) and cast("_Refreshed", credentials).refresh_needed(within_s)

    def _found(self) -> Credentials:
        session = cast("_Session", botocore.session.Session(profile=self._settings.profile))
        own = self._own
        credentials = Credentials(own.access_key, own.secret_key, own.token) if own else session.get_credentials()
        if credentials is None:
            raise NoCredentials("can't be asked: no AWS credentials were found for it")
        if self._settings.role_arn is None:
            return credentials

        client = partial(session.create_client, region_name=self._region)
        fetcher = AssumeRoleCredentialFetcher(
            client, credentials, self._settings.role_arn, extra_args={"RoleSessionName": "sluice"}
        )
        return DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")


__all__ = ["AwsCredentials", "Botocore", "Chain", "ChainOf", "Keys", "NoCredentials"]
