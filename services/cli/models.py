"""`sluice models`: what applications may ask for. They are set by `sluice config apply`."""

import typer

from schemas.base import JsonObject
from services.cli.output import text
from services.cli.resources import add_list_of_all, add_show

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Models and their deployments, as `sluice config apply` has set them."
)


def _row(model: JsonObject) -> list[str]:
    given = model.get("deployments")
    deployments = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    named = ", ".join(f"{text(one, 'provider')}/{text(one, 'model')}" for one in deployments)
    return [text(model, "name"), named, text(model, "strategy"), text(model, "version")]


add_list_of_all(app, "models", "List the models.", ["name", "deployments", "strategy", "version"], _row)
add_show(app, "models", "a model", "NAME")
