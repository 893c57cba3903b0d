"""What `sluice doctor` looks at. Each check says what it found and, where something is wrong, what to do."""

import asyncio
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import Literal
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from infra.kafka.broker import Kafka
from infra.redis.client import Redis
from infra.secrets.book import VAULT, VaultAway, VaultRefuses
from infra.settings import Settings
from schemas.control import Model
from schemas.topics import TOPICS
from services.cli import endpoints
from services.cli.client import Api, System, describe, open_http
from services.cli.config import standing
from services.cli.output import Failed
from services.cli.pricing import unpriced

MIN_FREE_BYTES, LOW_FREE_BYTES = 200 * 2**20, 2 * 2**30
MAX_SKEW_S = 5.0
TIMEOUT_S = 5.0
START = "Start it with `sluice up`, or name it by {}."
LOGS = "See the logs in {}; `sluice up` starts again what ends."

_LOCAL = re.compile(r"(os\.environ/|env:|file/|file:)(.+)")


class _Ready(BaseModel):
    """What /readyz answers."""

    reasons: list[str] = []


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    advice: str = ""


def folder(system: System) -> Iterator[Check]:
    """The data folder: there, ours alone, with room."""
    path = system.data_dir
    if not path.is_dir():
        state = "warning" if system.http else "failed"
        yield Check("data folder", state, f"{path} is not there", START.format("--data-dir"))
        return
    readable = os.access(path, os.R_OK | os.W_OK | os.X_OK)
    if not readable:
        detail = f"{path} can't be written by this user"
        yield Check("data folder", "failed", detail, "Run as its owner, or give another --data-dir.")
        return
    yield Check("data folder", "ok", str(path.resolve()))
    for name in ("admin.key", "signing.key"):
        key = path / name
        if key.exists() and stat.S_IMODE(key.stat().st_mode) & 0o077:
            yield Check(name, "failed", "others may read it", f"chmod 600 {key}")
    yield _disk(system)


def _disk(system: System) -> Check:
    free = shutil.disk_usage(system.data_dir).free
    detail = f"{free / 2**30:.1f} GiB free"
    if free < MIN_FREE_BYTES:
        return Check("disk", "failed", detail, "Kafka and ClickHouse stop on a full disk: make room now.")
    if free < LOW_FREE_BYTES:
        return Check("disk", "warning", detail, "Make room: topics keep a week of batch work.")
    return Check("disk", "ok", detail)


def processes(system: System) -> Iterator[Check]:
    """The processes that endpoints.json names."""
    dead = [f"{name} ({pid})" for name, pid in system.pids.items() if not endpoints.is_alive(pid)]
    if dead:
        yield Check("processes", "failed", f"not alive: {', '.join(dead)}", LOGS.format(system.data_dir / "logs"))
    elif system.pids:
        yield Check("processes", "ok", f"{len(system.pids)} alive")


def gateway(system: System, now_s: Callable[[], float] = time.time) -> Iterator[Check]:
    """The HTTP door: answers, is ready, and its clock is ours."""
    if not system.http:
        yield Check("gateway", "failed", f"no running Sluice found in {system.data_dir}", START.format("SLUICE_URL"))
        return
    try:
        with open_http(system.http, {}) as http:
            response = http.get("/readyz", timeout=TIMEOUT_S)
            answer = _Ready.model_validate_json(response.content)
    except (httpx.TransportError, ValidationError) as error:
        yield Check("gateway", "failed", f"{system.http} doesn't answer ({describe(error)})", START.format("SLUICE_URL"))
        return
    if response.is_success:
        yield Check("gateway", "ok", f"{system.http} is ready")
    else:
        yield Check(
            "gateway", "failed", f"not ready: {'; '.join(answer.reasons)}", "Wait a few seconds; then see the checks below."
        )
    yield from _clock(response, now_s())


def _clock(response: httpx.Response, now_s: float) -> Iterator[Check]:
    try:
        there_s = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        return
    skew_s = abs(now_s - there_s)
    if skew_s > MAX_SKEW_S:
        detail = f"{skew_s:.0f} s away from the gateway's"
        yield Check("clock", "failed", detail, "Set both by NTP: tokens and deadlines depend on it.")
    else:
        yield Check("clock", "ok", "as the gateway's")


async def kafka(system: System) -> list[Check]:
    """The brokers answer, and have all topics."""
    if not system.kafka:
        return [Check("kafka", "failed", "no address is known", START.format("SLUICE_KAFKA"))]
    client = Kafka(system.kafka)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await client.start()
            there = await client.topics()
    except (ConnectionError, TimeoutError) as error:
        advice = LOGS.format(system.data_dir / "logs") if system.is_local else START.format("SLUICE_KAFKA")
        return [Check("kafka", "failed", f"{system.kafka} doesn't answer ({describe(error)})", advice)]
    finally:
        await client.stop()
    missing = sorted({name for topic in TOPICS for name in topic.names()} - there)
    if missing:
        return [Check("kafka", "failed", f"topics are missing: {', '.join(missing)}", "Any service makes them when it starts.")]
    return [Check("kafka", "ok", f"{system.kafka} has all topics")]


async def redis(system: System) -> list[Check]:
    """Redis answers."""
    if not system.redis:
        return [Check("redis", "failed", "no address is known", START.format("SLUICE_REDIS"))]
    url = system.redis if "://" in system.redis else f"redis://{system.redis}"
    where = urlsplit(url).netloc.rpartition("@")[2]
    client = Redis(url, TIMEOUT_S)
    try:
        answers = await client.ping()
    finally:
        await client.close()
    if not answers:
        return [Check("redis", "failed", f"{where} doesn't answer", START.format("SLUICE_REDIS"))]
    return [Check("redis", "ok", f"{where} answers")]


def clickhouse(system: System) -> Iterator[Check]:
    """ClickHouse answers, and has the tables."""
    if not system.clickhouse:
        yield Check("clickhouse", "failed", "no address is known", START.format("SLUICE_CLICKHOUSE"))
        return
    url = system.clickhouse if "://" in system.clickhouse else f"http://{system.clickhouse}"
    where = urlsplit(url).netloc.rpartition("@")[2]
    try:
        with open_http(url, {}) as http:
            response = http.post("/", content=b"EXISTS TABLE sluice.usage", timeout=TIMEOUT_S)
    except httpx.TransportError as error:
        yield Check("clickhouse", "failed", f"{where} doesn't answer ({describe(error)})", START.format("SLUICE_CLICKHOUSE"))
        return
    if response.is_error:
        yield Check("clickhouse", "failed", response.text.strip()[:300], "Check the user and the password in SLUICE_CLICKHOUSE.")
    elif response.text.strip() != "1":
        advice = "Start accounting: `sluice serve accounting` makes the tables."
        yield Check("clickhouse", "failed", "sluice.usage is missing", advice)
    else:
        yield Check("clickhouse", "ok", f"{where} has the tables")


def configuration(system: System) -> Iterator[Check]:
    """Models have a price, and their credentials are there."""
    if not system.http:
        return
    try:
        configuration = standing(Api.admin(system))
    except Failed as error:
        yield Check("configuration", "failed", str(error), "Check SLUICE_ADMIN_KEY, or DATA_DIR/admin.key.")
        return
    models = configuration.models
    if not models:
        yield Check("models", "warning", "there are none", "Write them into sluice.yaml, and run `sluice config apply`.")
        return
    yield Check("models", "ok", f"{len(models)} models, {sum(len(m.deployments) for m in models)} deployments")
    for alias, deployment in unpriced(models, configuration.prices):
        detail = f"{alias}: {deployment} has none, so its cost is booked as 0"
        yield Check("price", "warning", detail, "Give input_cost_per_token and output_cost_per_token in its model_info.")
    yield from _credentials(system, models)


def _credentials(system: System, models: list[Model]) -> Iterator[Check]:
    references = sorted({one for model in models for deployment in model.deployments for one in deployment.references})
    in_vault = [one for one in references if one.startswith(VAULT)]
    told = [check for one in references if one not in in_vault and (check := _credential(system, one))]
    told += asyncio.run(_in_vault(system.settings, in_vault)) if in_vault else []
    yield from told
    if references and not told:
        yield Check("credentials", "ok", f"{len(references)} are there")


def _credential(system: System, reference: str) -> Check | None:
    """What is wrong with a credential that lies on this machine. The word of what is no reference may be the credential."""
    if system.settings.secret(reference):
        return None
    found = _LOCAL.fullmatch(reference)
    match found.groups() if found else ():
        case ("os.environ/" | "env:", str(name)):
            detail, advice = f"{name} is not set in this shell", "Set it where Sluice is started, unless it is there."
            return Check("credential", "warning", detail, advice)
        case ("file/" | "file:" as kind, str(name)):
            detail = f"{system.settings.secrets_dir / name} is not there, or can't be read"
            again = "Run `sluice config apply` again on this machine."
            advice = again if kind == "file/" else "Put it there, readable for Sluice alone."
            return Check("credential", "failed" if system.is_local else "warning", detail, advice)
        case _:
            advice = "Write env:NAME, file:NAME or vault:PATH#FIELD, and run `sluice config apply`."
            return Check("credential", "failed", "one is written as no reference, so that nobody finds it", advice)


async def _in_vault(settings: Settings, references: list[str]) -> list[Check]:
    """What is wrong with credentials in Vault. What is made for whoever reads it is given back at once."""
    if not settings.vault:
        detail = f"{len(references)} lie in Vault, which nobody asked: SLUICE_VAULT is not set in this shell"
        return [Check("vault", "warning", detail, "Set it, and what belongs to it, as where Sluice is started.")]
    # Who has no Vault needn't carry its client.
    from infra.secrets.vault import Vault

    vault = Vault(settings)
    where = urlsplit(settings.vault).netloc.rpartition("@")[2]
    found: list[Check] = []
    try:
        for path, names in groupby(references, lambda one: one.removeprefix(VAULT).partition("#")[0]):
            try:
                fields = (await vault.read(path)).fields
            except VaultRefuses as error:
                found.append(
                    Check("credential", "failed", f"{path}: {error}", "Check the path, and the policy of Sluice's role.")
                )
                continue
            missing = [name for one in names if not fields.get(name := one.partition("#")[2] or "value")]
            found += [Check("credential", "failed", f"{path} has no field {name}", "Check its spelling.") for name in missing]
    except VaultAway as error:
        found.append(Check("vault", "failed", f"{where}: {error}", "Check SLUICE_VAULT, and what it takes to log in there."))
    finally:
        await vault.leave()
    return found
