"""G32: what is refused before anything is promised, and what the caller is told."""

import socket
from collections.abc import Sequence

import pytest

from schemas.errors import InvalidRequest, Unavailable
from schemas.policy import WebhookPolicy
from services.ingress.webhooks.setup import SetUp
from tests.fakes.clock import FakeClock

ANY = WebhookPolicy()
NAMES = {
    "hooks.example": ["93.184.215.14", "2606:2800:21f::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "inside.example": ["93.184.215.14", "10.0.0.1"],
    "hooks.internal": ["10.0.0.1"],
    "localhost": ["::1", "127.0.0.1"],
}


class Bench:
    def __init__(self) -> None:
        self.clock, self.names = FakeClock(), dict(NAMES)
        self.asked: list[str] = []
        self.set_up = SetUp(self.clock, self._look_up)

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host == "silent.example":
            raise socket.gaierror(socket.EAI_AGAIN, "x")
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "x")
        return self.names[host]

    async def refusal(self, url: str, policy: WebhookPolicy = ANY) -> str:
        """What the caller is told; empty if nothing is refused."""
        try:
            await self.set_up.check_target(url, policy)
        except InvalidRequest as refused:
            fault = refused.fault()
            assert (fault.status, fault.param, fault.code) == (400, "x-sluice-webhook", "webhook_refused")
            return fault.message
        return ""


REFUSED = {
    "http://hooks.example/": "https",
    "https://user:pw@hooks.example/": "user name",
    "https://hooks.example:6379/": "port 6379",
    "https://127.1/": "odd form",
    "https://0x7f000001/": "odd form",
    "https://2130706433/": "odd form",
    "https://0177.0.0.1/": "odd form",
    "https://127.0.0.1/": "loopback",
    "https://[::1]/": "loopback",
    "https://[::ffff:10.0.0.1]/": "private",
    "https://169.254.169.254/latest/meta-data/": "metadata",
    "https://metadata.google.internal/": "metadata",
    "https://inside.example/": "private",
    "https://localhost/": "loopback",
    "https://nowhere.example/": "no address",
    "nonsense": "https://",
}


@pytest.mark.parametrize("url", REFUSED)
async def test_g32_the_caller_is_told_what_is_refused_and_why(url: str) -> None:
    assert REFUSED[url] in await Bench().refusal(url)


async def test_what_may_be_reached_is_not_refused() -> None:
    bench = Bench()
    assert await bench.refusal("https://hooks.example/path?token=x") == ""
    assert await bench.refusal("http://hooks.internal/", WebhookPolicy(internal=("hooks.internal",))) == ""
    assert "webhooks.only" in await bench.refusal("https://hooks.example/", WebhookPolicy(only=("other.example",)))


async def test_a_name_server_that_is_away_is_not_the_callers_fault() -> None:
    with pytest.raises(Unavailable) as raised:
        await Bench().set_up.check_target("https://silent.example/", ANY)
    assert raised.value.fault().status == 503


async def test_many_requests_for_one_host_ask_the_name_server_once() -> None:
    bench = Bench()
    for n in range(5):
        assert await bench.refusal(f"https://hooks.example/{n}") == ""
        assert "private" in await bench.refusal(f"https://inside.example/{n}")
    assert bench.asked == ["hooks.example", "inside.example"]


async def test_g32_what_was_found_counts_for_half_a_minute_only() -> None:
    bench = Bench()
    assert await bench.refusal("https://hooks.example/") == ""
    bench.names["hooks.example"] = ["10.0.0.1"]
    bench.clock.move(30_000)
    assert "private" in await bench.refusal("https://hooks.example/")


async def test_g32_what_one_team_may_is_not_remembered_for_another() -> None:
    bench = Bench()
    assert await bench.refusal("https://hooks.internal/", WebhookPolicy(internal=("hooks.internal",))) == ""
    assert "private" in await bench.refusal("https://hooks.internal/")
    assert await bench.refusal("https://hooks.internal/", WebhookPolicy(internal=("hooks.internal",))) == ""


async def test_an_unknown_name_may_be_known_a_moment_later() -> None:
    bench = Bench()
    assert "no address" in await bench.refusal("https://new.example/")
    bench.names["new.example"] = ["93.184.215.14"]
    assert await bench.refusal("https://new.example/") == ""


async def test_what_is_remembered_is_bounded() -> None:
    bench = Bench()
    bench.names |= {f"h{n}.example": ["93.184.215.14"] for n in range(5000)}
    for n in range(5000):
        await bench.refusal(f"https://h{n}.example/")
    await bench.refusal("https://h4999.example/")
    assert len(bench.asked) == 5000
    await bench.refusal("https://h0.example/")
    assert len(bench.asked) == 5001
