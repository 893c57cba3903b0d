"""What a ticket of an ITSM system says, in ServiceNow's shape. Pure.

A ticket names the request that it decides about (`u_sluice_request`), or says in its variables what is to be granted.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.base import JsonObject
from schemas.errors import InvalidRequest
from schemas.roles import Role
from services.portal.access import Actor

Verdict = Literal["approved", "rejected"]

_TEXT = r"^[^\x00-\x1f\x7f]*$"
_MEMBERS = {
    "key": ("project", "environment", "user", "name", "models", "budget"),
    "budget": ("level", "period", "usd", "tokens"),
    "model": ("model", "level"),
}
_MOST_REASON = 2000


class Ticket(BaseModel):
    """POST /hooks/itsm: a requested item (RITM) or an approval of ServiceNow's, as its Business Rule sends it."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    number: str = Field(pattern=r"^[!-~]{1,64}$")
    sys_id: str = ""
    state: str = ""
    approval: str = ""
    approver: str = Field(default="", max_length=256, pattern=_TEXT)
    sys_updated_by: str = Field(default="", max_length=256, pattern=_TEXT)
    comments: str = ""
    requested_for: str = Field(default="", max_length=256, pattern=_TEXT)
    u_sluice_request: str = Field(default="", max_length=64)
    variables: JsonObject = Field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why, for the events: the ticket, and what was said there."""
        return f"{self.number}: {self.comments.strip()}"[:_MOST_REASON].rstrip(": ")


def verdict(ticket: Ticket) -> Verdict | None:
    """What was decided; None: nothing yet. Raises InvalidRequest where `state` and `approval` contradict each other."""
    said = {value for value in (ticket.state.lower(), ticket.approval.lower()) if value in ("approved", "rejected")}
    if len(said) > 1:
        raise InvalidRequest("`state` and `approval` contradict each other.", param="state")
    return "approved" if "approved" in said else "rejected" if said else None


def decider(ticket: Ticket) -> Actor:
    """Who decided over there, which counts as much as an organization admin here. Raises InvalidRequest if nobody is named."""
    name = (ticket.approver or ticket.sys_updated_by).strip()
    if not name:
        raise InvalidRequest("Say who decided: `approver`, or `sys_updated_by`.", param="approver")
    return Actor(f"itsm/{name}", ((Role.ORGANIZATION_ADMIN, ""),))


def requester(ticket: Ticket) -> str:
    """Who asked over there, and is to collect a key. Raises InvalidRequest if nobody is named."""
    name = (ticket.requested_for or _text(ticket.variables.get("requested_for"))).strip()
    if not name:
        raise InvalidRequest("Say for whom it is: `requested_for`, as the identity provider names them.", param="requested_for")
    return name if name.startswith(("user/", "operator/")) else f"user/{name}"


def asked(ticket: Ticket) -> JsonObject:
    """What the variables ask for, as `POST /admin/v1/approvals` takes it. Raises InvalidRequest."""
    given = {name: value for name, value in ticket.variables.items() if value not in (None, "")}
    what = _text(given.get("what"))
    if what not in _MEMBERS:
        raise InvalidRequest(f"Say what is to be granted: one of {', '.join(_MEMBERS)}.", param="variables.what")
    if what != "key" and "for_s" not in given:
        raise InvalidRequest(f"A {what} is granted for a time: say for how many seconds.", param="variables.for_s")
    wanted = {name: _listed(value) if name == "models" else value for name in _MEMBERS[what] if (value := given.get(name))}
    why = _text(given.get("why")) or f"asked for in {ticket.number}"
    return {
        "what": what,
        "team": given.get("team"),
        "wanted": wanted,
        "why": why,
        **({"for_s": given["for_s"]} if "for_s" in given else {}),
    }


def _listed(value: JsonValue) -> JsonValue:
    """Variables of ServiceNow are texts: a list is one with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""
