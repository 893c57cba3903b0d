"""`sluice`: the command line. A command is imported only to be run, so that `sluice --help` comes at once."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

COMMANDS: dict[str, str] = {
    "up": "Start everything on this machine.",
    "serve": "Run one service against servers named by settings.",
    "doctor": "Check everything, and say what to do.",
    "config": "Policy as code: check, plan, apply, drift, import-litellm.",
    "organization": "The organization: show, set.",
    "teams": "Teams: create, list, show, set, delete.",
    "projects": "Projects of teams: create, list, show, set, delete.",
    "environments": "Environments of projects: create, list, show, set, delete.",
    "users": "Users and their roles: create, list, show, set, delete.",
    "keys": "Virtual keys and job tokens: create, list, show, set, rotate, revoke, resume, job-token.",
    "budgets": "Budgets of any level: set, list, explain, remove.",
    "limits": "Limits of any level: set, list.",
    "operators": "Credentials for administration, with a role: create, list, show, set, revoke.",
    "analysts": "Users of ClickHouse who read one organization's rows: create, list, rotate, revoke.",
    "identity-providers": "OIDC issuers whose tokens say who asks: create, list, show, set, delete.",
    "models": "Models and their deployments: list, show.",
    "deployments": "Deployments as they are now: list, drain, resume.",
    "whoami": "As whom these commands administrate.",
    "policy": "Explain a policy: of a key or a team, of a job then and now.",
    "events": "Who changed what, when and why.",
    "approvals": "Ask for a key, more budget or a model: ask, list, show, grant, refuse, collect.",
    "alerts": "Alerts: budgets that burn, keys that run away; and who is told.",
    "webhooks": "Webhooks: secrets, and a test event.",
    "submit": "Send a file of batch lines straight to Kafka, and wait for the results.",
    "top": "Live traffic, spend, lanes and deployments.",
    "trace": "The way of a job: every stage, every provider call, with times and cost.",
    "jobs": "Asynchronous jobs of all teams: list, show, cancel.",
    "dead": "Dead letters: list, show, replay.",
    "prices": "Prices: list, show, check, diff, reprice.",
    "report": "Who used what, and who pays: chargeback, invoice, focus, forecast, savings.",
    "reconcile": "Compare a provider's invoice or usage export with our books.",
    "audit": "Prompts and answers as they were kept: show, export, verify, erase, erasures.",
    "sql": "Ask ClickHouse: usage, attempts, chargeback.",
}


def load(name: str) -> TyperCommand | TyperGroup:
    """The command `name`, one of COMMANDS."""
    command = get_command(_app_of(name))
    assert isinstance(command, TyperCommand | TyperGroup)
    return command


def _app_of(name: str) -> typer.Typer:
    match name:
        case "up":
            from services.cli.up import up

            return _alone(up)
        case "serve":
            from services.cli.serve import serve

            return _alone(serve)
        case "doctor":
            from services.cli.doctor import doctor

            return _alone(doctor)
        case "config":
            from services.cli import config

            return config.app
        case "teams":
            from services.cli import teams

            return teams.app
        case "keys":
            from services.cli import keys

            return keys.app
        case (
            "organization"
            | "projects"
            | "environments"
            | "users"
            | "operators"
            | "budgets"
            | "limits"
            | "models"
            | "deployments"
            | "analysts"
        ):
            return import_module(f"services.cli.{name}").app
        case "identity-providers":
            from services.cli import identity_providers

            return identity_providers.app
        case "whoami":
            from services.cli.whoami import whoami

            return _alone(whoami)
        case "policy":
            from services.cli import policy

            return policy.app
        case "approvals":
            from services.cli import approvals

            return approvals.app
        case "events":
            from services.cli.events import events

            return _alone(events)
        case "alerts":
            from services.cli import alerts

            return alerts.app
        case "webhooks":
            from services.cli import webhooks

            return webhooks.app
        case "submit":
            from services.cli.submit import submit

            return _alone(submit)
        case "trace":
            from services.cli.trace import trace

            return _alone(trace)
        case "top":
            from services.cli.top import top

            return _alone(top)
        case "jobs":
            from services.cli import jobs

            return jobs.app
        case "prices":
            from services.cli import prices

            return prices.app
        case "report":
            from services.cli import report

            return report.app
        case "reconcile":
            from services.cli.reconcile import reconcile

            return _alone(reconcile)
        case "audit":
            from services.cli import audit

            return audit.app
        case "dead":
            from services.cli import dead

            return dead.app
        case _:
            from services.cli.sql import sql

            return _alone(sql)


def _alone(command: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return app


def _defaults(command: object, defaults: dict[str, object]) -> dict[str, object]:
    """The defaults of a command; of a group, its own and those of each command in it."""
    if isinstance(command, TyperGroup):
        return defaults | {name: _defaults(sub, defaults) for name, sub in command.commands.items()}
    return defaults


class Commands(TyperGroup):
    """All commands: their names and what they do are known before they're imported."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in COMMANDS:
            command = load(name)
            self.add_command(command, name)
            # `--data-dir` may stand before the command too.
            ctx.default_map = {name: _defaults(command, {"data_dir": ctx.params.get("data_dir")})}
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; a failure becomes a sentence on stderr and an exit status."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Rich and JSON are not worth their time to a command that only shows its help.
            from services.cli.output import Failed, note

            if not isinstance(error, Failed):
                raise
            note(f"Error: {error}")
            raise typer.Exit(error.status) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("sluice"))
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction]
    data_dir: Annotated[Path | None, typer.Option(help="folder of the running system", envvar=None)] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    """Sluice: an event-driven LLM gateway. `sluice up` starts everything on this machine.

    Commands find the running system in the folder --data-dir (.sluice), or by SLUICE_URL and SLUICE_ADMIN_KEY.
    Data goes to stdout, progress and errors to stderr; exit status 0: done, 1: failed, 2: used wrongly.
    """


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(lambda: None)


def main() -> None:
    """The entry point."""
    app(prog_name="sluice")
