"""How commands name a level: the organization, a team, a project, an environment, a key or a user."""

from typing import Annotated

import typer

from schemas.base import JsonObject
from services.cli.output import Failed, text

Team = Annotated[str | None, typer.Option("--team", help="a team; with --project and --environment what is in it")]
Project = Annotated[str | None, typer.Option("--project", help="a project of the team")]
Environment = Annotated[str | None, typer.Option("--environment", help="an environment of the team or of the project")]
Key = Annotated[str | None, typer.Option("--key", metavar="ID", help="a virtual key")]
User = Annotated[str | None, typer.Option("--user", help="a person, whatever key pays")]
Organization = Annotated[bool, typer.Option("--organization", help="everybody together")]


def scope_of(
    team: str | None, project: str | None, environment: str | None, key: str | None, user: str | None, *, organization: bool
) -> JsonObject:
    """A level as the API names it. Raises Failed."""
    if sum(map(bool, (team, key, user, organization))) != 1:
        raise Failed("Say which level: one of --team (with --project, --environment), --key, --user, --organization.", status=2)
    if (project or environment) and not team:
        raise Failed("A project and an environment are a team's: add --team.", status=2)
    given = {"team": team, "project": project, "environment": environment, "key": key, "user": user}
    scope: JsonObject = {name: value for name, value in given.items() if value}
    return scope | {"organization": True} if organization else scope


def query_of(scope: JsonObject) -> dict[str, str]:
    """The same as parameters of a query."""
    return {name: "true" if value is True else str(value) for name, value in scope.items()}


def level(shown: JsonObject) -> str:
    """A level for people: `fraud/screening/dev`, `key key_…`."""
    scope = shown.get("scope")
    if not isinstance(scope, dict):
        return ""
    if scope.get("organization"):
        return "the organization"
    if "team" in scope:
        names = [text(scope, part) for part in ("team", "project", "environment")]
        return "/".join(names).rstrip("/")
    return " ".join(f"{name} {value}" for name, value in scope.items())
