"""`sluice prices`: what calls cost, and what they would cost now. Entries are set by `sluice config apply` (docs/prices.md)."""

from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from infra.prices.rate import UNITS
from schemas.base import JsonObject
from services.cli.client import Api, DataDir, Json, find
from services.cli.config import CHANGES, standing
from services.cli.output import Failed, cell, emit, line, note, table, text
from services.cli.pricing import book, others, unpriced
from services.portal.declared import Configuration

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Prices: what calls cost, by the list and by the entries of the house."
)

_MAP: TypeAdapter[dict[str, JsonObject]] = TypeAdapter(dict[str, JsonObject])
_LITELLMS = "model_prices_and_context_window_backup.json"
_NAMES = {"fresh": "input", "spoken": "output", "call": "request", "audio_ms": "audio_second"}


@app.command("list")
def list_(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the house's own price entries."""
    entries = _standing(data_dir).prices
    if as_json:
        emit([entry.model_dump(mode="json", exclude_none=True, exclude={"kind"}) for entry in entries])
        return
    table(
        ["name", "version", "for", "from", "until"],
        [[e.name, e.version, e.deployment or f"{e.provider or '*'}/{e.model or '*'}", e.since, e.until or ""] for e in entries],
    )


@app.command()
def show(
    provider: str,
    model: str,
    tier: Annotated[str, typer.Option(help="the service tier, as an answer says it")] = "",
    on: Annotated[str, typer.Option(help="a day, UTC, such as 2026-07-30; else now")] = "",
    input_tokens: Annotated[int, typer.Option(min=0, help="how much goes in: above a cliff all costs more")] = 1,
    deployment: Annotated[str, typer.Option(help="the id of a deployment, for entries that name it")] = "",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show what a model costs, in USD: a million tokens of each kind, and what is charged by the call."""
    configuration = _standing(data_dir)
    at = datetime.combine(_day(on), datetime.min.time(), UTC) if on else datetime.now(UTC)
    known = next((d for one in configuration.models for d in one.deployments if d.id == deployment), None)
    if deployment and known is None:
        raise Failed(f"There is no deployment {deployment[:64]!r}. `sluice deployments list` shows them.")
    own, region = (known.price, known.region) if known else (None, None)
    found = book(configuration.prices).prices(
        provider, model, input_tokens, round(at.timestamp() * 1000), own, tier, deployment=deployment, region=region
    )
    if found is None:
        raise Failed(f"{provider}/{model} has no known price. Write one into model_info, or under prices (docs/prices.md).")
    prices = {
        _NAMES.get(kind, kind): (usd, kind in UNITS) for kind, usd in found[0].items() if usd or kind in ("fresh", "spoken")
    }
    if as_json:
        emit({"price_version": found[1], "usd": {name: _plain(usd) for name, (usd, _) in prices.items()}})
        return
    table(
        ["what", "USD", "for"], [[n, _plain(usd), "one" if unit else "a million"] for n, (usd, unit) in prices.items()], right=[1]
    )
    note(f"Price version: {cell(found[1])}")


@app.command()
def check(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the deployments without a price, whose calls are booked at 0: exit status 2 if there are any."""
    configuration = _standing(data_dir)
    found = list(unpriced(configuration.models, configuration.prices))
    if as_json:
        emit([{"model": alias, "deployment": deployment} for alias, deployment in found])
    else:
        table(["model", "deployment"], found)
    if found:
        raise typer.Exit(CHANGES)


@app.command()
def diff(
    file: Annotated[Path | None, typer.Option("--map", help="LiteLLM's model_prices_and_context_window.json")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Compare the prices of all deployments with LiteLLM's public price map, a second opinion: exit status 2 if they differ.

    The map is the one of --map, or the one that the `litellm` extra has brought. Nothing is changed by it, and nothing fetched.
    """
    configuration = _standing(data_dir)
    found = list(others(configuration.models, configuration.prices, _public(file)))
    if as_json:
        emit([one.to_json() for one in found])
    else:
        shown = [[o.alias, o.deployment, _NAMES.get(o.kind, o.kind), _plain(o.ours), _plain(o.theirs)] for o in found]
        table(["model", "deployment", "tokens", "ours", "LiteLLM's"], shown, right=[3, 4])
    if found:
        raise typer.Exit(CHANGES)


@app.command()
def reprice(
    begins: Annotated[str, typer.Option("--from", help="the first day, UTC")],
    ends: Annotated[str, typer.Option("--to", help="the last day, UTC")],
    model: Annotated[str, typer.Option(help="only calls of this alias")] = "",
    reason: Annotated[str, typer.Option(help="why, for whoever reads it later")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what it would change")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Price calls of the past by the prices of now. The bill stays as it is: the new costs stand beside it, under a name."""
    api, after, pricing = Api.admin(find(data_dir)), "", ""
    span: JsonObject = {"from": _day(begins).isoformat(), "to": _day(ends).isoformat()}
    asked: JsonObject = {**span, "model": model, "reason": reason, "dry_run": dry_run}
    attempts = changed = without = 0
    old = new = Decimal(0)
    while True:
        page = api.post("/admin/v1/prices/reprice", {**asked, "pricing": pricing, "after": after})
        pricing, after = text(page, "pricing"), text(page, "after")
        attempts, changed, without = (
            total + int(text(page, name)) for total, name in ((attempts, "attempts"), (changed, "changed"), (without, "unpriced"))
        )
        old, new = old + Decimal(text(page, "old_usd")), new + Decimal(text(page, "new_usd"))
        if not page.get("after"):
            break
    if as_json:
        told: JsonObject = {"attempts": attempts, "changed": changed, "unpriced": without, "dry_run": dry_run}
        emit({"pricing": pricing, **told, "old_usd": f"{old:f}", "new_usd": f"{new:f}"})
        return
    line(f"{attempts} calls, {changed} cost something else: {old:f} USD as billed, {new:f} USD now")
    if without:
        note(f"{without} have no price now, and keep what they had. `sluice prices check` says of which deployments.")
    if not dry_run:
        note(f"Pricing {pricing}: SELECT * FROM sluice.attempts_of_pricing(pricing = '{pricing}'). The bill is as it was.")


def _standing(data_dir: Path | None) -> Configuration:
    return standing(Api.admin(find(data_dir)))


def _day(written: str) -> date:
    try:
        return date.fromisoformat(written)
    except ValueError:
        raise Failed(f"{written[:32]!r} is no day; write it as 2026-07-30") from None


def _public(file: Path | None) -> dict[str, JsonObject]:
    path = file or _litellms()
    try:
        return _MAP.validate_json(path.read_bytes())
    except OSError as error:
        raise Failed(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise Failed(f"{path} is no price map: a JSON object of objects is expected") from error


def _litellms() -> Path:
    """The map in LiteLLM's package, which isn't imported for it: that would fetch another one."""
    found = find_spec("litellm")
    if found is None or not found.submodule_search_locations:
        raise Failed("The `litellm` extra isn't installed. Give LiteLLM's price map with --map FILE.")
    return Path(found.submodule_search_locations[0]) / _LITELLMS


def _plain(usd: Decimal) -> str:
    return f"{usd.normalize():f}"
