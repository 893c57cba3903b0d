"""When access tokens are got, how often, and that nobody sees them. The clock is the test's."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

import pytest

from services.router.providers.google_credentials import Access, GoogleCredentials, NoCredentials
from tests.mocks.gemini import MockGemini


class Office:
    """Gives tokens for an hour, one after another. `shut`: what it says instead; `wait`: a thread waits for it first."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0
        self.given: list[str | None] = []
        self.shut: NoCredentials | None = None
        self.wait = threading.Event()
        self.wait.set()

    def asks(self, text: str | None) -> Callable[[], Access]:
        def ask() -> Access:
            assert self.wait.wait(10)
            self.given.append(text)
            if self.shut:
                raise self.shut
            return Access(f"ya29.CANARY-{len(self.given)}", "acme", self.now_s + 3600)

        return ask

    def credentials(self, secret: Callable[[str], Awaitable[str | None]]) -> GoogleCredentials:
        return GoogleCredentials(secret, lambda: self.now_s, self.asks)


async def account(reference: str) -> str | None:
    return f"the account of {reference}"


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def credentials(office: Office) -> GoogleCredentials:
    return office.credentials(account)


async def last(credentials: GoogleCredentials) -> str:
    return (await credentials.access("file/a")).token[-1]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a thread has no event of this loop
        await asyncio.sleep(0.002)


async def test_many_who_ask_at_once_wait_for_one_token(office: Office, credentials: GoogleCredentials) -> None:
    tokens = await asyncio.gather(*(last(credentials) for _ in range(50)))
    assert set(tokens) == {"1"}
    assert len(office.given) == 1


async def test_the_old_token_serves_while_the_next_one_is_got(office: Office, credentials: GoogleCredentials) -> None:
    await last(credentials)
    office.now_s += 3600 - 200
    office.wait.clear()
    assert [await last(credentials) for _ in range(5)] == ["1"] * 5
    office.wait.set()
    await until(lambda: len(office.given) == 2)
    office.now_s += 190
    assert await last(credentials) == "2"


async def test_a_token_that_is_over_is_waited_for(office: Office, credentials: GoogleCredentials) -> None:
    await last(credentials)
    office.now_s += 3600
    assert await last(credentials) == "2"


async def test_who_stops_waiting_does_not_stop_the_others(office: Office, credentials: GoogleCredentials) -> None:
    office.wait.clear()
    impatient, patient = asyncio.create_task(last(credentials)), asyncio.create_task(last(credentials))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    office.wait.set()
    assert await patient == "1"
    assert len(office.given) == 1


async def test_while_google_is_away_the_token_serves_to_its_end(office: Office, credentials: GoogleCredentials) -> None:
    await last(credentials)
    office.shut = NoCredentials("away")
    office.now_s += 3600 - 200
    assert await last(credentials) == "1"
    await until(lambda: len(office.given) == 2)
    office.now_s += 5
    assert await last(credentials) == "1"
    assert len(office.given) == 2, "it isn't asked again at once"
    office.now_s += 10
    assert await last(credentials) == "1"
    await until(lambda: len(office.given) == 3)
    office.now_s += 190
    with pytest.raises(NoCredentials):
        await last(credentials)
    office.shut = None
    assert await last(credentials) == "5"


async def test_a_changed_account_is_used_at_once(office: Office) -> None:
    texts = iter(["one", "one", "two"])

    async def secret(_: str) -> str | None:
        return next(texts)

    credentials = office.credentials(secret)
    assert [await last(credentials) for _ in range(3)] == ["1", "1", "2"]
    assert office.given == ["one", "two"]


async def test_each_reference_has_its_own_token_and_so_have_the_default_ones(
    office: Office, credentials: GoogleCredentials
) -> None:
    await credentials.access("file/a")
    await credentials.access("file/b")
    await credentials.access(None)
    assert office.given == ["the account of file/a", "the account of file/b", None]


async def test_a_reference_to_nothing_asks_nobody(office: Office) -> None:
    async def secret(_: str) -> str | None:
        return None

    with pytest.raises(NoCredentials, match="not set"):
        await office.credentials(secret).access("file/a")
    assert not office.given


async def test_nothing_of_it_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with MockGemini() as google:
        text = google.account()

        async def secret(_: str) -> str | None:
            return text

        credentials = GoogleCredentials(secret)
        access = await credentials.access("file/a")
    assert access.token in google.tokens
    seen = caplog.text + repr(access) + repr(credentials)
    assert "CANARY" not in seen
    assert "PRIVATE KEY" not in seen
    assert "assertion" not in seen
