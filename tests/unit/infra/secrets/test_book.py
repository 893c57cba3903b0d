"""Secrets in memory: served while Vault is away, renewed before they end, changed when they change. The clock is a test's."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.secrets.book import REFRESH_S, Leased, Secrets, VaultAway, VaultRefuses

KEY, MADE = "vault:secret/data/openai#api_key", "vault:aws/creds/r#access_key"


class FakeVault:
    """`leased` by path; what is asked is counted."""

    def __init__(self) -> None:
        self.leased: dict[str, Leased] = {
            "secret/data/openai": Leased({"api_key": "one"}),
            "aws/creds/r": Leased({"access_key": "AK1"}, "lease-1", 600, True),
        }
        self.down: VaultAway | None = None
        self.renewed_s = 600
        self.reads = self.renewals = 0

    async def read(self, path: str) -> Leased:
        self.reads += 1
        await asyncio.sleep(0)
        if self.down:
            raise self.down
        if path not in self.leased:
            raise VaultRefuses("nothing there")
        return self.leased[path]

    async def renew(self, lease_id: str) -> int:
        self.renewals += 1
        if self.down:
            raise self.down
        return self.renewed_s


class Bench:
    def __init__(self, look_up: Callable[[str], str | None] = lambda _: None, chance: float = 0.0) -> None:
        self.vault = FakeVault()
        self.now_s = 0.0
        self.told: list[str] = []
        self.secrets = Secrets(look_up, self.vault, lambda: self.now_s, lambda: chance, self._away)

    async def _away(self, what: str) -> None:
        self.told.append(what)

    async def pass_(self, s: float, step_s: float = 0.5) -> None:
        ends = self.now_s + s
        while self.now_s < ends:
            self.now_s += step_s
            await self.secrets.refresh()


async def test_a_rotated_secret_is_seen_after_a_second() -> None:
    asked: list[str] = []
    values = {"os.environ/A": " one\n"}

    def look_up(reference: str) -> str | None:
        asked.append(reference)
        return values.get(reference)

    on = Bench(look_up)
    assert await on.secrets.of("os.environ/A") == "one"
    values["os.environ/A"] = "two"
    assert await on.secrets.of("os.environ/A") == "one"
    assert len(asked) == 1
    on.now_s = 1.1
    assert await on.secrets.of("os.environ/A") == "two"
    assert await on.secrets.of("os.environ/B") is None


async def test_vault_is_asked_once_however_many_ask() -> None:
    on = Bench()
    assert set(await asyncio.gather(*(on.secrets.of(KEY) for _ in range(50)))) == {"one"}
    assert on.vault.reads == 1


async def test_ten_minutes_without_vault_interrupt_nothing() -> None:
    on = Bench()
    on.vault.leased["aws/creds/r"] = Leased({"access_key": "AK1"}, "lease-1", 3600, True)
    assert (await on.secrets.of(KEY), await on.secrets.of(MADE)) == ("one", "AK1")
    on.vault.down = VaultAway("it was killed")
    for _ in range(600):
        await on.pass_(1)
        assert (await on.secrets.of(KEY), await on.secrets.of(MADE)) == ("one", "AK1")
    assert on.told
    assert on.vault.reads < 60, "it must not be hammered either"
    on.vault.down = None
    on.vault.leased["secret/data/openai"] = Leased({"api_key": "two"})
    await on.pass_(31)
    assert await on.secrets.of(KEY) == "two"


async def test_a_lease_ends_with_its_time_and_comes_back_with_vault() -> None:
    on = Bench()
    assert await on.secrets.of(MADE) == "AK1"
    on.vault.down = VaultAway("gone")
    await on.pass_(599)
    assert await on.secrets.of(MADE) == "AK1"
    await on.pass_(2)
    assert await on.secrets.of(MADE) is None
    assert await on.secrets.of(KEY) is None
    on.vault.down = None
    on.now_s += 2
    assert await on.secrets.of(MADE) == "AK1"


async def test_a_lease_is_renewed_for_as_long_as_it_may() -> None:
    on = Bench()
    await on.secrets.of(MADE)
    await on.pass_(3600)
    assert (on.vault.reads, await on.secrets.of(MADE)) == (1, "AK1")
    assert on.vault.renewals >= 6
    # It nears its longest life: renewing gives less than half of it, so another one is read.
    on.vault.renewed_s = 100
    on.vault.leased["aws/creds/r"] = Leased({"access_key": "AK2"}, "lease-2", 600, True)
    await on.pass_(600)
    assert await on.secrets.of(MADE) == "AK2"


async def test_a_rotated_key_is_picked_up_by_the_next_renewal() -> None:
    on = Bench()
    assert await on.secrets.of(KEY) == "one"
    on.vault.leased["secret/data/openai"] = Leased({"api_key": "two"})
    await on.pass_(REFRESH_S)
    assert await on.secrets.of(KEY) == "two"


async def test_a_refused_key_is_read_again_at_once() -> None:
    on = Bench()
    assert await on.secrets.of(KEY) == "one"
    assert not await on.secrets.refused(KEY)
    on.vault.leased["secret/data/openai"] = Leased({"api_key": "two"})
    assert await on.secrets.refused(KEY)
    assert await on.secrets.of(KEY) == "two"
    on.now_s += 1
    on.vault.down = VaultAway("gone")
    assert not await on.secrets.refused(KEY)
    assert await on.secrets.of(KEY) == "two"


async def test_whoever_was_refused_with_the_key_before_the_rotation_has_another_one() -> None:
    on = Bench()
    assert await on.secrets.of(KEY) == "one"
    on.vault.leased["secret/data/openai"] = Leased({"api_key": "two"})
    on.now_s = 10
    assert await on.secrets.refused(KEY, age_s=1)
    reads, on.now_s = on.vault.reads, 12
    # A slow call that began before, with the old one.
    assert await on.secrets.refused(KEY, age_s=5)
    assert on.vault.reads == reads, "what has changed since needn't be asked for"
    # One that began after, with the new one.
    assert not await on.secrets.refused(KEY, age_s=1)
    assert on.vault.reads == reads + 1


async def test_a_file_that_changed_is_read_again_when_refused() -> None:
    values = {"file:key": "one"}
    on = Bench(values.get)
    assert await on.secrets.of("file:key") == "one"
    values["file:key"] = "two"
    on.now_s = 90
    assert await on.secrets.refused("file:key")
    on.now_s = 91
    assert not await on.secrets.refused("file:key")
    del values["file:key"]
    assert not await on.secrets.refused("file:key")


async def test_who_wants_to_know_is_told_of_another_secret_though_nobody_asks_for_it() -> None:
    values = {"file:key": "one", "env:none": ""}
    on, told = Bench(values.get), list[str]()
    on.secrets.changed = told.append
    for reference in (KEY, "vault:secret/data/none#x", *values):
        await on.secrets.of(reference)
    await on.pass_(90)
    assert not told
    values["file:key"] = "two"
    await on.pass_(2)
    assert told == ["file:key"]
    on.vault.leased["secret/data/openai"] = Leased({"api_key": "two"})
    del values["file:key"]
    await on.pass_(REFRESH_S + 2)
    assert told == ["file:key", KEY]
    assert on.vault.reads < 5, "what isn't there is asked for by who needs it"


async def test_what_is_not_there_is_asked_for_once_a_second() -> None:
    on = Bench()
    for _ in range(20):
        assert await on.secrets.of("vault:secret/data/none#x") is None
    assert on.vault.reads == 1
    assert await on.secrets.of("vault:secret/data/openai#no_such_field") is None


async def test_without_a_vault_its_references_lead_nowhere() -> None:
    secrets = Secrets(lambda _: None, None, lambda: 0.0, lambda: 0.0)
    assert await secrets.of(KEY) is None


async def test_nothing_secret_shows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    on = Bench()
    on.vault.leased["secret/data/openai"] = Leased({"api_key": "sk-CANARY"}, "lease-CANARY", 60, True)
    assert await on.secrets.of(KEY) == "sk-CANARY"
    on.vault.down = VaultAway("gone")
    await on.pass_(120)
    shown = f"{vars(on.secrets)['_kept']!r} {on.secrets!r} {on.told} {caplog.text}"
    assert "CANARY" not in shown
    await on.secrets.stop()
    assert not any(vars(on.secrets)[known] for known in ("_kept", "_known", "_given"))


@given(outages=st.lists(st.tuples(st.floats(1, 300), st.floats(1, 300)), max_size=6), chance=st.floats(0, 0.999))
def test_no_outage_shorter_than_what_is_left_of_a_lease_is_seen(outages: list[tuple[float, float]], chance: float) -> None:
    """A lease of an hour is renewed before 70 % of it are over, so 5 minutes without Vault never reach its end."""

    async def run() -> None:
        on = Bench(chance=chance)
        on.vault.renewed_s = 3600
        on.vault.leased["aws/creds/r"] = Leased({"access_key": "AK1"}, "lease-1", 3600, True)
        assert await on.secrets.of(MADE) == "AK1"
        for up_s, down_s in outages:
            on.vault.down = None
            await on.pass_(up_s, 5)
            on.vault.down = VaultAway("gone")
            await on.pass_(down_s, 5)
            assert await on.secrets.of(MADE) == "AK1"

    asyncio.run(run())
