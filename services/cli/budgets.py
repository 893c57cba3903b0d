"""`sluice budgets`: what may be spent, at any level."""

from typing import Annotated

import typer
from pydantic import JsonValue

from schemas.base import JsonObject
from schemas.budget import Period
from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, members, note, table, text
from services.cli.resources import PREFIX, IfVersion, given, show_list
from services.cli.scopes import Environment, Key, Organization, Project, Team, User, level, query_of, scope_of

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Budgets: what a team, a project, an environment, a key, a user or the organization may spend.",
)

PATH = f"{PREFIX}/budgets"
OfPeriod = Annotated[Period, typer.Option("--period", help="by the clock of the organization")]


@app.command("set")
def set_(
    team: Team = None,
    project: Project = None,
    environment: Environment = None,
    key: Key = None,
    user: User = None,
    organization: Organization = False,
    usd: Annotated[str | None, typer.Option(metavar="AMOUNT", help="US dollars, such as 5.00")] = None,
    tokens: Annotated[int | None, typer.Option(min=0, help="tokens, prompts and answers together")] = None,
    period: OfPeriod = Period.MONTH,
    soft: Annotated[
        bool, typer.Option("--soft", help="only tell when it is used up  [default: refuse what doesn't fit]")
    ] = False,
    alerts: Annotated[
        list[float] | None, typer.Option("--alert", help="a share at which that is told (again for more)  [default: 0.8]")
    ] = None,
    if_version: IfVersion = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Set the budget of a period at a level, instead of the one that is there. Budgets of other periods stay."""
    scope = scope_of(team, project, environment, key, user, organization=organization)
    body: JsonObject = {"scope": scope, "period": period.value, "hard": not soft}
    if usd is not None:
        body["usd"] = usd
    if tokens is not None:
        body["tokens"] = tokens
    if alerts:
        body["alerts"] = list[JsonValue](alerts)
    answer = Api.admin(find(data_dir)).put(PATH, body, if_version)
    if as_json:
        emit(answer)
    else:
        note(f"{level(answer)} may spend {_amount(answer)} {_by(period)}; {_when(answer)}.")


@app.command("list")
def list_(
    team: Team = None,
    project: Project = None,
    environment: Environment = None,
    key: Key = None,
    user: User = None,
    organization: Organization = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List budgets: all, or those of a level; of a team also what its projects, environments and keys have."""
    named = given(team=team, project=project, environment=environment, key=key, user=user)
    if organization:
        named["organization"] = "true"
    found = Api.admin(find(data_dir)).all(PATH, **named)
    show_list(found, ["level", "period", "USD", "tokens", "kind", "alerts at"], _row, as_json=as_json, right=[2, 3])


@app.command()
def remove(
    team: Team = None,
    project: Project = None,
    environment: Environment = None,
    key: Key = None,
    user: User = None,
    organization: Organization = False,
    period: OfPeriod = Period.MONTH,
    if_version: IfVersion = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Remove the budget of a period at a level: nothing holds there any more but what other levels say."""
    scope = scope_of(team, project, environment, key, user, organization=organization)
    answer = Api.admin(find(data_dir)).delete(PATH, if_version, **query_of(scope), period=period.value)
    if as_json:
        emit(answer)
    else:
        note(f"{level(answer)} has no budget {_by(period)} any more.")


@app.command()
def explain(
    team: Team = None,
    project: Project = None,
    environment: Environment = None,
    key: Key = None,
    user: User = None,
    organization: Organization = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """What is spent of each budget, what is held for jobs that run, and for which jobs."""
    named = given(team=team, project=project, environment=environment, key=key, user=user)
    if organization:
        named["organization"] = "true"
    answer = Api.admin(find(data_dir)).get(f"{PATH}/explain", **named)
    if as_json:
        emit(answer)
        return
    if not answer.get("ledger_open"):
        note("The ledger is closed: what was spent is being counted anew, and hard budgets refuse until then.")
    budgets, reservations = members(answer, "budgets"), members(answer, "reservations")
    columns = ["level", "period", "budget", "spent", "held", "left", "resets"]
    table(columns, [_spending(budget) for budget in budgets], right=[2, 3, 4, 5])
    if reservations:
        table(["job", "USD", "tokens", "held until"], [_reservation(one) for one in reservations], right=[1, 2])
    else:
        note("Nothing is held: no job runs that counts there.")


def _spending(budget: JsonObject) -> list[str]:
    usd = budget.get("usd") is not None
    unit = "usd" if usd else "tokens"
    amounts = [text(budget, unit), *(text(budget, f"{part}_{unit}") for part in ("spent", "held", "left"))]
    period = f"{text(budget, 'span')}{'' if budget.get('hard') else ' (soft)'}"
    return [level(budget), period, *(f"{amount} {'USD' if usd else 'tokens'}" for amount in amounts), text(budget, "resets_at")]


def _reservation(hold: JsonObject) -> list[str]:
    return [text(hold, "job"), text(hold, "usd"), text(hold, "tokens"), text(hold, "ends_at")]


def _by(period: Period) -> str:
    return "in all" if period is Period.TOTAL else f"a {period.value}"


def _amount(budget: JsonObject) -> str:
    usd, tokens = text(budget, "usd"), text(budget, "tokens")
    return " and ".join(filter(None, (f"{usd} USD" if usd else "", f"{tokens} tokens" if tokens else "")))


def _when(budget: JsonObject) -> str:
    return "what doesn't fit is refused" if budget.get("hard") else "more than that is told, and let through"


def _row(budget: JsonObject) -> list[str]:
    alerts = budget.get("alerts")
    shares = ", ".join(f"{share:.0%}" for share in alerts if isinstance(share, int | float)) if isinstance(alerts, list) else ""
    kind = "hard" if budget.get("hard") else "soft"
    return [level(budget), text(budget, "period"), text(budget, "usd"), text(budget, "tokens"), kind, shares]
