"""Names and the addresses they lead to, without a name server."""

import asyncio
import socket
from collections.abc import Sequence

import pytest

from infra.webhooks.courier import Courier
from infra.webhooks.lookup import Unreachable, Unresolved, checked_addresses
from infra.webhooks.targets import Refused, Target
from tests.fakes.clock import in_virtual_time

TARGET = Target("https", "hooks.example", 443, "/", internal=False)


class Names:
    """Answers in turn: addresses, or an error."""

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("host", ["metadata.google.internal", "localhost", "rebind.example"])
async def test_g32_a_name_counts_for_nothing_its_addresses_count(host: str) -> None:
    target = Target("https", host, 443, "/", internal=False)
    for address in ("169.254.169.254", "127.0.0.1", "::1", "10.0.0.1"):
        with pytest.raises(Refused):
            await checked_addresses(target, Names([address]))


async def test_g32_a_name_that_flips_is_checked_each_time() -> None:
    names = Names(["93.184.215.14"], ["93.184.215.14", "127.0.0.1"])
    assert await checked_addresses(TARGET, names) == ("93.184.215.14",)
    with pytest.raises(Refused):
        await checked_addresses(TARGET, names)


async def test_g32_an_address_is_checked_without_being_looked_up() -> None:
    names = Names()
    with pytest.raises(Refused):
        await checked_addresses(Target("https", "::1", 443, "/", internal=False), names)
    assert await checked_addresses(Target("https", "8.8.8.8", 443, "/", internal=False), names) == ("8.8.8.8",)
    assert names.asked == []


async def test_an_address_that_comes_twice_counts_once() -> None:
    assert await checked_addresses(TARGET, Names(["8.8.8.8", "8.8.8.8"])) == ("8.8.8.8",)


UNKNOWN: dict[str, tuple[Sequence[str] | Exception, bool]] = {
    "no such name": (socket.gaierror(socket.EAI_NONAME, "x"), True),
    "no name server": (socket.gaierror(socket.EAI_AGAIN, "x"), False),
    "no addresses": ([], True),
    "a name that can't be asked for": (UnicodeError("x"), False),
    "no network": (OSError("x"), False),
}


@pytest.mark.parametrize("what", UNKNOWN)
async def test_a_name_that_leads_nowhere_is_said_to(what: str) -> None:
    answer, is_known = UNKNOWN[what]
    with pytest.raises(Unresolved, match=r"hooks\.example") as unresolved:
        await checked_addresses(TARGET, Names(answer))
    assert unresolved.value.is_known == is_known


@in_virtual_time
async def test_a_name_server_that_never_answers_is_not_waited_for() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(10**6)
        return [host, str(port)]

    with pytest.raises(Unresolved):
        await checked_addresses(TARGET, never)
    with pytest.raises(Unreachable):
        await Courier(never).send(TARGET, {}, b"{}")


@in_virtual_time
async def test_g32_a_try_looks_up_once_and_refuses_before_it_connects() -> None:
    """This loop has no sockets: a connection would be an error."""
    names = Names(["10.0.0.1"])
    with pytest.raises(Refused):
        await Courier(names).send(TARGET, {}, b"{}")
    assert names.asked == [("hooks.example", 443)]
