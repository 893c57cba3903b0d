"""Analysts over the admin API: a password that is shown once, and whose rows they see."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.portal import OWN, House


@pytest.fixture
def there(tmp_path: Path) -> House:
    return House(tmp_path)


async def ask(there: House, method: str, path: str, status: int, body: Any = None) -> Any:
    async with there.client() as client:
        answer = await client.request(method, f"/admin/v1/analysts{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_password_is_shown_once_and_kept_as_its_hash(there: House) -> None:
    made = await ask(there, "POST", "", 201, {"name": "tom", "teams": [OWN]})
    kept = there.control.table.analysts["tom"]
    assert (made["user"], made["organization"], made["teams"]) == ("tom", "default", [OWN])
    assert kept.sha256 == hashlib.sha256(made["password"].encode()).hexdigest()
    shown = await ask(there, "GET", "/tom", 200)
    assert "sha256" not in shown
    assert made["password"] not in str(shown)


async def test_rotation_and_revocation_are_versions_and_a_revoked_name_is_free_again(there: House) -> None:
    before = there.control.table.analysts["ann"].sha256
    made = await ask(there, "POST", "/ann/rotate", 200)
    assert made["version"] == 2
    assert there.control.table.analysts["ann"].sha256 != before
    assert (await ask(there, "DELETE", "/ann", 200))["revoked"] is True
    await ask(there, "POST", "/ann/rotate", 400)
    assert (await ask(there, "POST", "", 201, {"name": "ann"}))["version"] == 4


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "ann"}, 400),
        ({"name": "default"}, 400),
        ({"name": "sluice"}, 400),
        ({"name": "a b"}, 400),
        ({"name": "x`; DROP"}, 400),
        ({"name": "x", "organization": "elsewhere"}, 404),
        ({"name": "x", "teams": ["nowhere"]}, 404),
        ({"name": "x", "team": "fraud"}, 400),
    ],
)
async def test_what_makes_no_analyst(there: House, body: Any, status: int) -> None:
    await ask(there, "POST", "", status, body)
    assert set(there.control.table.analysts) == {"ann"}
