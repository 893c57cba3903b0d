"""Vault, spoken to by hvac: logging in, reading, renewing; and that nothing secret comes out sideways."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from infra.secrets.book import VaultAway, VaultRefuses
from infra.secrets.vault import Vault
from infra.settings import Settings
from tests.mocks.vault import JWT, ROLE_ID, SECRET_ID, MockVault, dynamic, kv


@pytest.fixture
def mock() -> Iterator[MockVault]:
    with MockVault({"secret/data/openai": kv(api_key="sk-CANARY"), "aws/creds/r": dynamic(60, access_key="AK-CANARY")}) as mock:
        yield mock


def vault(mock: MockVault, **changes: Any) -> Vault:
    given: dict[str, Any] = {"vault": mock.url, "vault_role": ROLE_ID, "vault_secret_id": SecretStr(SECRET_ID)}
    return Vault(Settings(**(given | changes)))


async def test_an_approle_reads_a_key(mock: MockVault) -> None:
    leased = await vault(mock).read("secret/data/openai")
    assert (dict(leased.fields), leased.lease_id) == ({"api_key": "sk-CANARY"}, "")


async def test_a_pod_logs_in_by_its_service_account(mock: MockVault, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{JWT}\n")
    opened = vault(mock, vault_auth="kubernetes", vault_jwt_file=str(tmp_path / "token"))
    assert (await opened.read("secret/data/openai")).fields["api_key"] == "sk-CANARY"


async def test_made_credentials_have_a_lease_that_is_renewed(mock: MockVault) -> None:
    opened = vault(mock)
    leased = await opened.read("aws/creds/r")
    assert (dict(leased.fields), leased.lease_s, leased.renewable) == ({"access_key": "AK-CANARY"}, 60, True)
    mock.lease_s = 45
    assert await opened.renew(leased.lease_id) == 45


async def test_our_own_token_ends_and_we_log_in_again(mock: MockVault) -> None:
    opened = vault(mock)
    await opened.read("secret/data/openai")
    mock.tokens.clear()
    assert (await opened.read("secret/data/openai")).fields["api_key"] == "sk-CANARY"
    assert mock.asked.count("POST auth/approle/login") == 2


async def test_who_leaves_gives_its_token_back_but_not_one_that_was_given(mock: MockVault) -> None:
    opened = vault(mock)
    await opened.read("secret/data/openai")
    [token] = mock.tokens
    given = vault(mock, vault_auth="token", vault_token=SecretStr(token))
    await given.read("secret/data/openai")
    await given.leave()
    assert mock.tokens == {token}
    await opened.leave()
    await opened.leave()
    assert not mock.tokens
    assert mock.asked.count("POST auth/token/revoke-self") == 1


async def test_what_is_not_ours_is_refused_once(mock: MockVault) -> None:
    with pytest.raises(VaultRefuses):
        await vault(mock).read("secret/data/other")
    with pytest.raises(VaultRefuses):
        await vault(mock, vault_secret_id=SecretStr("wrong")).read("secret/data/openai")


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1"])
async def test_vault_is_away(mock: MockVault, url: str | None) -> None:
    mock.down = True
    opened = vault(mock) if url is None else vault(mock, vault=url)
    with pytest.raises(VaultAway) as raised:
        await opened.read("secret/data/openai")
    assert not isinstance(raised.value, VaultRefuses)


async def test_nothing_secret_comes_out(mock: MockVault, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    opened = vault(mock)
    leased = await opened.read("aws/creds/r")
    told = [repr(leased), str(leased), repr(opened), repr(vars(opened).get("_settings"))]
    mock.tokens.clear()
    mock.down = True
    with pytest.raises(VaultAway) as raised:
        await opened.read("secret/data/openai")
    told += [repr(raised.value), repr(raised.value.__cause__), str(raised.value.__suppress_context__), caplog.text]
    assert not any("CANARY" in text for text in told)


async def test_our_own_token_is_renewed_before_it_ends_and_replaced_when_it_may_not_go_on(mock: MockVault) -> None:
    now_s = [0.0]
    settings = Settings(vault=mock.url, vault_role=ROLE_ID, vault_secret_id=SecretStr(SECRET_ID))
    opened = Vault(settings, lambda: now_s[0])
    await opened.read("secret/data/openai")
    for now_s[0] in (2000.0, 2500.0, 4500.0):
        await opened.read("secret/data/openai")
    # Due at 2,400 s, and 2,400 s after it was renewed at 2,500.
    assert mock.asked.count("PUT auth/token/renew-self") + mock.asked.count("POST auth/token/renew-self") == 1
    mock.token_s = 100
    now_s[0] = 5000.0
    await opened.read("secret/data/openai")
    assert mock.asked.count("POST auth/approle/login") == 2
