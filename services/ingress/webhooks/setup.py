"""Asked before anything is promised: may a webhook go there?"""

from collections import OrderedDict

from infra.clock import Clock
from infra.webhooks.lookup import Resolve, Unresolved, checked_addresses, resolve
from infra.webhooks.targets import Refused, Target, parse
from schemas.errors import InvalidRequest, Unavailable
from schemas.policy import WebhookPolicy

PARAM = "x-sluice-webhook"

_REMEMBERED_MS = 30_000
_MOST_REMEMBERED = 4096


class SetUp:
    """Checks endpoints as they are named. What was found of a host's addresses counts for 30 s; each try checks them again."""

    def __init__(self, clock: Clock, look_up: Resolve = resolve) -> None:
        self._clock, self._look_up = clock, look_up
        self._found: OrderedDict[tuple[str, int, bool], tuple[int, str]] = OrderedDict()

    async def check_target(self, url: str, policy: WebhookPolicy) -> None:
        """Returns if a webhook may be sent to `url` under this policy.

        Raises InvalidRequest that says what is refused and why; Unavailable if the name can't be looked up at the moment.
        """
        try:
            target = parse(url, policy)
            refusal = await self._refusal(target)
        except Refused as error:
            refusal = str(error)
        except Unresolved as error:
            if not error.is_known:
                raise Unavailable(f"{PARAM}: {error}. Try again.", param=PARAM, code="webhook_unresolved") from None
            refusal = str(error)
        if refusal:
            raise InvalidRequest(f"{PARAM}: {refusal}.", param=PARAM, code="webhook_refused")

    async def _refusal(self, target: Target) -> str:
        """Why the target's addresses are refused; empty if they are not. Raises Unresolved, which is not remembered."""
        place = (target.host, target.port, target.internal)
        until_ms, refusal = self._found.get(place, (0, ""))
        if self._clock() < until_ms:
            return refusal
        try:
            await checked_addresses(target, self._look_up)
            refusal = ""
        except Refused as error:
            refusal = str(error)
        self._found.pop(place, None)
        self._found[place] = (self._clock() + _REMEMBERED_MS, refusal)
        while len(self._found) > _MOST_REMEMBERED:
            self._found.popitem(last=False)
        return refusal
