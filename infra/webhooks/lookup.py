"""Names to addresses, all of which were checked."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from infra.webhooks.targets import Target, judge

TIMEOUT_S = 4.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a host. Raises OSError."""

# Of its own: a name server that doesn't answer holds a thread for as long as it likes, and files need threads too.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="webhook-dns")


class Unreachable(Exception):
    """No answer, which may be otherwise later. A sentence; of the URL it names host and port at most."""


class Unresolved(Unreachable):
    """The name leads nowhere. `is_known`: its name server says so, and was not merely silent."""

    def __init__(self, message: str, *, is_known: bool) -> None:
        super().__init__(message)
        self.is_known = is_known


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host as this machine finds them."""
    found = await asyncio.get_running_loop().run_in_executor(
        _THREADS, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    return [str(address[0]) for *_, address in found]


async def checked_addresses(target: Target, look_up: Resolve = resolve) -> tuple[str, ...]:
    """The addresses that a target leads to now. Raises Refused if a webhook may not go to one of them, Unresolved."""
    addresses = (target.host,) if _is_address(target.host) else await _found(target, look_up)
    judge(target, addresses)
    return addresses


async def _found(target: Target, look_up: Resolve) -> tuple[str, ...]:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            found = await look_up(target.host, target.port)
    except TimeoutError:
        raise Unresolved(f"the address of {target.host} was not found within {TIMEOUT_S:g} s", is_known=False) from None
    except socket.gaierror as error:
        is_known = error.errno != socket.EAI_AGAIN
        why = "has no address" if is_known else "can't be looked up at the moment"
        raise Unresolved(f"{target.host} {why}", is_known=is_known) from None
    except (OSError, UnicodeError):
        raise Unresolved(f"{target.host} can't be looked up", is_known=False) from None
    if not found:
        raise Unresolved(f"{target.host} has no address", is_known=True)
    return tuple(dict.fromkeys(found))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
