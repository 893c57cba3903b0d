"""`sluice whoami`: as whom commands administrate."""

from services.cli.client import Api, DataDir, Json, find
from services.cli.output import emit, line, note, text
from services.cli.resources import PREFIX


def whoami(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Say whose credential commands use, and what may be done with it."""
    answer = Api.admin(find(data_dir)).get(f"{PREFIX}/whoami")
    if as_json:
        emit(answer)
        return
    line(text(answer, "actor"))
    roles = answer.get("roles")
    for held in roles if isinstance(roles, list) else []:
        if isinstance(held, dict):
            rights, team = held.get("rights"), text(held, "team")
            may = ", ".join(map(str, rights)) if isinstance(rights, list) else ""
            note(f"{text(held, 'role')}{f' of team {team}' if team else ''}: {may}")
