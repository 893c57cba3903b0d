"""`sluice events`: who changed what, when and why."""

from typing import Annotated

import typer
from pydantic import JsonValue

from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, listed, moment, note, table, text


def events(
    resource: Annotated[str | None, typer.Option(help="only of this one, such as team/fraud or key/key_…")] = None,
    team: Annotated[str | None, typer.Option(help="only of this team's things")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="how many")] = 100,
    after: Annotated[str | None, typer.Option(help="only those before this one: the last of the page before")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List who changed what and who did what, the latest first. `--json` has what stood before and after, in full."""
    given = {"resource": resource, "team": team, "after": after}
    params = {name: value for name, value in given.items() if value is not None}
    answer = Api.admin(find(data_dir)).get("/admin/v1/events", limit=str(limit), **params)
    found = listed(answer)
    if as_json:
        emit(list[JsonValue](found))
    else:
        columns = ["action", "resource", "version", "reason", "id"]
        table(
            ["at", "who", *columns],
            [
                [moment(one.get("at_ms")), text(one, "actor") or "unknown", *(text(one, name) for name in columns)]
                for one in found
            ],
            right=[4],
        )
    if answer.get("has_more"):
        note(f"There may be more: --after {text(answer, 'last_id')}")
