"""AWS credentials: whose they are, that they are fresh, that looking for them holds nobody up, and that they show nowhere."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from schemas.control import AwsSettings
from services.router.providers.aws_credentials import AwsCredentials, Botocore, Keys, NoCredentials

ID, KEY, TOKEN = "AKIDEXAMPLE", "secret-CANARY", "token-CANARY"
OWN = AwsSettings(access_key_id="env/ID", secret_access_key="env/KEY", session_token="env/TOKEN")
SECRETS = {"env/ID": ID, "env/KEY": KEY, "env/TOKEN": TOKEN}


async def _secret(reference: str) -> str | None:
    return SECRETS.get(reference)


@dataclass
class Metadata:
    """A chain that gives one key after the other, when it is let; or fails."""

    looks: int = 0
    fails: bool = False
    left_s: float = 3600
    open: threading.Event = field(default_factory=threading.Event)
    threads: set[int] = field(default_factory=set[int])

    def __post_init__(self) -> None:
        self.open.set()

    def fresh(self) -> Keys:
        assert self.open.wait(5)
        self.threads.add(threading.get_ident())
        self.looks += 1
        if self.fails:
            raise RuntimeError(KEY)
        self.left_s = 3600
        return Keys(f"{ID}{self.looks}", KEY)

    def expire(self, within_s: int | None) -> bool:
        return self.left_s <= (900 if within_s is None else within_s)


@dataclass
class Clock:
    now_s: float = 0

    def __call__(self) -> float:
        return self.now_s


def looked_up(metadata: Metadata) -> tuple[AwsCredentials, Clock]:
    clock = Clock()
    return AwsCredentials(_secret, lambda settings, region, own: metadata, clock), clock


async def settled(credentials: AwsCredentials, metadata: Metadata, looks: int) -> None:
    """Returns when so many look-ups have been made, and the last one is known."""

    def looks_still() -> bool:
        return any(source._looking for source in credentials._sources.values())  # pyright: ignore[reportPrivateUsage]

    while metadata.looks < looks or looks_still():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


async def test_a_deployments_own_keys_are_its_own() -> None:
    metadata = Metadata()
    credentials, _ = looked_up(metadata)
    assert await credentials.of(OWN, "eu-west-1") == Keys(ID, KEY, TOKEN)
    assert metadata.looks == 0


async def test_a_reference_to_nothing_says_so() -> None:
    credentials, _ = looked_up(Metadata())
    with pytest.raises(NoCredentials, match="is not set"):
        await credentials.of(OWN.model_copy(update={"session_token": "env/NONE"}), "eu-west-1")


def test_keys_show_nowhere() -> None:
    assert repr(Keys(ID, KEY, TOKEN)) == "Keys()"


async def test_all_who_wait_wait_for_one_look_up_which_holds_nobody_up() -> None:
    metadata = Metadata()
    metadata.open.clear()
    credentials, _ = looked_up(metadata)
    waiting = [asyncio.create_task(credentials.of(AwsSettings(), "eu-west-1")) for _ in range(20)]
    # The loop goes on while the metadata service doesn't answer.
    await asyncio.sleep(0)
    waiting.pop().cancel()
    metadata.open.set()
    assert {keys.access_key for keys in await asyncio.gather(*waiting)} == {f"{ID}1"}
    assert (metadata.looks, threading.get_ident() in metadata.threads) == (1, False)


async def test_regions_and_profiles_have_their_own() -> None:
    metadata = Metadata()
    credentials, _ = looked_up(metadata)
    asked = [(AwsSettings(), "eu-west-1"), (AwsSettings(), "us-east-1"), (AwsSettings(profile="p"), "us-east-1")]
    assert len({(await credentials.of(*one)).access_key for one in asked * 2}) == 3
    assert metadata.looks == 3


async def test_keys_that_are_about_to_expire_serve_while_fresh_ones_are_fetched() -> None:
    metadata = Metadata()
    credentials, clock = looked_up(metadata)
    await credentials.of(AwsSettings(), "eu-west-1")
    metadata.left_s, clock.now_s = 600, 10
    metadata.open.clear()
    assert (await credentials.of(AwsSettings(), "eu-west-1")).access_key == f"{ID}1"
    metadata.open.set()
    await settled(credentials, metadata, 2)
    assert (await credentials.of(AwsSettings(), "eu-west-1")).access_key == f"{ID}2"


async def test_keys_serve_until_they_expire_though_the_metadata_service_is_away(caplog: pytest.LogCaptureFixture) -> None:
    metadata = Metadata()
    credentials, clock = looked_up(metadata)
    await credentials.of(AwsSettings(), "eu-west-1")
    metadata.fails, metadata.left_s, clock.now_s = True, 600, 10
    for look in range(2, 5):
        clock.now_s += 10
        assert (await credentials.of(AwsSettings(), "eu-west-1")).access_key == f"{ID}1"
        await settled(credentials, metadata, look)
    metadata.left_s, clock.now_s = 0, 100
    with pytest.raises(NoCredentials):
        await credentials.of(AwsSettings(), "eu-west-1")
    with pytest.raises(NoCredentials):
        await credentials.of(AwsSettings(), "eu-west-1")
    # Not asked at each call while it is away.
    assert metadata.looks == 5
    metadata.fails, clock.now_s = False, 110
    assert (await credentials.of(AwsSettings(), "eu-west-1")).access_key == f"{ID}6"
    assert KEY not in caplog.text
    assert "RuntimeError" in caplog.text


async def test_own_keys_that_were_rotated_assume_the_role_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = Metadata()
    credentials, _ = looked_up(metadata)
    settings = OWN.model_copy(update={"role_arn": "arn:aws:iam::123456789012:role/sluice"})
    assert (await credentials.of(settings, "eu-west-1")).access_key == f"{ID}1"
    monkeypatch.setitem(SECRETS, "env/KEY", "rotated")
    assert (await credentials.of(settings, "eu-west-1")).access_key == f"{ID}2"


async def test_closing_waits_for_nobody() -> None:
    metadata = Metadata()
    metadata.open.clear()
    credentials, _ = looked_up(metadata)
    waiting = asyncio.create_task(credentials.of(AwsSettings(), "eu-west-1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await credentials.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    metadata.open.set()


# What botocore finds


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No credentials but those in these files."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def profile(name: str, key: str) -> str:
    return f"[{name}]\naws_access_key_id = {ID}\naws_secret_access_key = {key}\n"


def test_the_environment_comes_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "credentials").write_text(profile("default", "of-file"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-environment")
    assert Botocore(AwsSettings(), "eu-west-1", None).fresh().secret_key == "of-environment"


def test_a_profile_is_read_anew(home: Path) -> None:
    (home / "credentials").write_text(profile("team", "old"))
    chain = Botocore(AwsSettings(profile="team"), "eu-west-1", None)
    assert chain.fresh() == Keys(ID, "old")
    (home / "credentials").write_text(profile("team", "new"))
    assert (chain.fresh(), chain.expire(0)) == (Keys(ID, "new"), False)


async def test_where_there_is_nothing_there_are_no_credentials(home: Path) -> None:
    with pytest.raises(NoCredentials):
        await AwsCredentials(_secret).of(AwsSettings(), "eu-west-1")
    with pytest.raises(NoCredentials):
        await AwsCredentials(_secret).of(AwsSettings(profile="not-there"), "eu-west-1")


@pytest.fixture
async def sts(home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """AssumeRole of AWS's STS, on loopback: gives the keys of a role for an hour, and remembers how it was asked."""
    asked: list[str] = []

    async def assumed(request: web.Request) -> web.Response:
        asked.append((await request.text()) + request.headers["authorization"])
        until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = (
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
            f"<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>{KEY}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken>"
            f"<Expiration>{until}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )
        return web.Response(text=body, content_type="text/xml")

    app = web.Application()
    app.router.add_post("/", assumed)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield asked
    await runner.cleanup()


async def test_a_role_is_assumed_once_and_nothing_is_logged(sts: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    credentials = AwsCredentials(_secret)
    settings = OWN.model_copy(update={"role_arn": "arn:aws:iam::123456789012:role/sluice"})
    for _ in range(3):
        assert await credentials.of(settings, "eu-west-1") == Keys("ASIAROLE", KEY, TOKEN)
    assert len(sts) == 1
    assert "Action=AssumeRole" in sts[0]
    assert "role%2Fsluice" in sts[0]
    assert f"Credential={ID}/" in sts[0]
    assert not any(secret in caplog.text for secret in (KEY, TOKEN))
