"""Every route and every door there is, as data: what each is, and so what has to hold there (test_every_door.py).

A route is named by its method and path, a door by `KAFKA` and its topic. Whoever adds one has to say here what it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class MakesJobs:
    """Somebody asks here for what a provider is called for: admitted, limited, billed. How it is asked stands in ways.py."""


@dataclass(frozen=True, slots=True)
class OwnThings:
    """Of the caller's team alone; of another's there is nothing. `sent`: the path with things of the one team filled in.

    `shows`: a `thing` of that team, a `list` in which its things stand, or nothing of anybody's (`self`).
    """

    sent: str
    shows: Literal["thing", "list", "self"] = "thing"
    body: object = None


@dataclass(frozen=True, slots=True)
class Administers:
    """Needs a role: which one, and about whose things, is the matrix in tests/unit/services/portal/test_rights.py."""


@dataclass(frozen=True, slots=True)
class Open:
    """Answers everybody, for a reason."""

    why: str
    names_teams: bool = False


@dataclass(frozen=True, slots=True)
class Signed:
    """A hook: who has its secret signs what he sends, and no key is good for anything there."""


Entry = MakesJobs | OwnThings | Administers | Open | Signed

_PROBED = "asked by load balancers and orchestrators, which have no key; says nothing of anybody's jobs"
_DOCUMENT = "the same for everybody, and public with the code"

HTTP: Mapping[str, Entry] = {
    "GET /healthz": Open(_PROBED),
    "GET /readyz": Open(_PROBED),
    "GET /metrics": Open(
        "scraped by Prometheus; teams and models, no keys or words; SLUICE_METRICS_KEY closes it", names_teams=True
    ),
    "GET /openapi.json": Open(_DOCUMENT),
    "GET /asyncapi.json": Open(_DOCUMENT),
    "GET /admin/v1/openapi.json": Open(_DOCUMENT),
    "POST /v1/chat/completions": MakesJobs(),
    "POST /v1/completions": MakesJobs(),
    "POST /v1/embeddings": MakesJobs(),
    "POST /v1/moderations": MakesJobs(),
    "POST /v1/responses": MakesJobs(),
    "POST /v1/messages": MakesJobs(),
    "POST /v1/batches": MakesJobs(),
    "POST /admin/v1/dead/replay": MakesJobs(),
    "POST /v1/messages/count_tokens": OwnThings(
        "/v1/messages/count_tokens", "self", {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
    ),
    "GET /v1/models": OwnThings("/v1/models", "list"),
    "GET /v1/models/{model}": OwnThings("/v1/models/{model}"),
    "GET /v1/jobs": OwnThings("/v1/jobs", "list"),
    "GET /v1/jobs/{id}": OwnThings("/v1/jobs/{job}"),
    "DELETE /v1/jobs/{id}": OwnThings("/v1/jobs/{job}"),
    "GET /v1/jobs/{id}/events": OwnThings("/v1/jobs/{job}/events"),
    "POST /v1/job_tokens": OwnThings("/v1/job_tokens", "self", {}),
    "POST /v1/feedback": OwnThings("/v1/feedback", "self", {"job_id": "job_0199a1b2c3d47e5f8a9b0c1d2e3f4a5b", "thumbs": "up"}),
    "POST /v1/files": OwnThings("/v1/files", "self"),
    "GET /v1/files": OwnThings("/v1/files", "list"),
    "GET /v1/files/{file_id}": OwnThings("/v1/files/{file}"),
    "DELETE /v1/files/{file_id}": OwnThings("/v1/files/{file}"),
    "GET /v1/files/{file_id}/content": OwnThings("/v1/files/{file}/content"),
    "GET /v1/batches": OwnThings("/v1/batches", "list"),
    "GET /v1/batches/{batch_id}": OwnThings("/v1/batches/{batch}"),
    "POST /v1/batches/{batch_id}/cancel": OwnThings("/v1/batches/{batch}/cancel"),
    "GET /v1/responses/{id}": OwnThings("/v1/responses/{response}"),
    "DELETE /v1/responses/{id}": OwnThings("/v1/responses/{response}"),
    "POST /v1/responses/{id}/cancel": OwnThings("/v1/responses/{response}/cancel"),
    "GET /v1/responses/{id}/input_items": OwnThings("/v1/responses/{response}/input_items"),
    "GET /admin/v1/organization": Administers(),
    "PATCH /admin/v1/organization": Administers(),
    "POST /admin/v1/teams": Administers(),
    "GET /admin/v1/teams": Administers(),
    "GET /admin/v1/teams/{name}": Administers(),
    "PATCH /admin/v1/teams/{name}": Administers(),
    "DELETE /admin/v1/teams/{name}": Administers(),
    "GET /admin/v1/teams/{name}/webhook_secret": Administers(),
    "POST /admin/v1/teams/{name}/webhook_secret/rotate": Administers(),
    "POST /admin/v1/teams/{name}/webhooks/test": Administers(),
    "POST /admin/v1/projects": Administers(),
    "GET /admin/v1/projects": Administers(),
    "GET /admin/v1/projects/{ref}": Administers(),
    "PATCH /admin/v1/projects/{ref}": Administers(),
    "DELETE /admin/v1/projects/{ref}": Administers(),
    "POST /admin/v1/environments": Administers(),
    "GET /admin/v1/environments": Administers(),
    "GET /admin/v1/environments/{ref}": Administers(),
    "PATCH /admin/v1/environments/{ref}": Administers(),
    "DELETE /admin/v1/environments/{ref}": Administers(),
    "POST /admin/v1/users": Administers(),
    "GET /admin/v1/users": Administers(),
    "GET /admin/v1/users/{ref}": Administers(),
    "PATCH /admin/v1/users/{ref}": Administers(),
    "DELETE /admin/v1/users/{ref}": Administers(),
    "POST /admin/v1/identity_providers": Administers(),
    "GET /admin/v1/identity_providers": Administers(),
    "GET /admin/v1/identity_providers/{name}": Administers(),
    "PATCH /admin/v1/identity_providers/{name}": Administers(),
    "DELETE /admin/v1/identity_providers/{name}": Administers(),
    "POST /admin/v1/keys": Administers(),
    "GET /admin/v1/keys": Administers(),
    "GET /admin/v1/keys/{id}": Administers(),
    "PATCH /admin/v1/keys/{id}": Administers(),
    "DELETE /admin/v1/keys/{id}": Administers(),
    "POST /admin/v1/keys/{id}/rotate": Administers(),
    "POST /admin/v1/keys/{id}/revoke": Administers(),
    "POST /admin/v1/keys/{id}/resume": Administers(),
    "POST /admin/v1/job_tokens": Administers(),
    "POST /admin/v1/operators": Administers(),
    "GET /admin/v1/operators": Administers(),
    "GET /admin/v1/operators/{id}": Administers(),
    "PATCH /admin/v1/operators/{id}": Administers(),
    "DELETE /admin/v1/operators/{id}": Administers(),
    "GET /admin/v1/whoami": Administers(),
    "PUT /admin/v1/budgets": Administers(),
    "GET /admin/v1/budgets": Administers(),
    "DELETE /admin/v1/budgets": Administers(),
    "GET /admin/v1/budgets/explain": Administers(),
    "PUT /admin/v1/limits": Administers(),
    "GET /admin/v1/limits": Administers(),
    "GET /admin/v1/live": Administers(),
    "POST /admin/v1/analysts": Administers(),
    "GET /admin/v1/analysts": Administers(),
    "GET /admin/v1/analysts/{name}": Administers(),
    "DELETE /admin/v1/analysts/{name}": Administers(),
    "POST /admin/v1/analysts/{name}/rotate": Administers(),
    "GET /admin/v1/audit": Administers(),
    "GET /admin/v1/audit/heads": Administers(),
    "GET /admin/v1/audit/erasures": Administers(),
    "POST /admin/v1/audit/erasures": Administers(),
    "GET /admin/v1/audit/erasures/{id}": Administers(),
    "POST /admin/v1/prices/reprice": Administers(),
    "GET /admin/v1/reports/chargeback": Administers(),
    "GET /admin/v1/reports/invoices": Administers(),
    "GET /admin/v1/reports/focus": Administers(),
    "GET /admin/v1/reports/forecast": Administers(),
    "GET /admin/v1/reports/savings": Administers(),
    "GET /admin/v1/reports/calls": Administers(),
    "GET /admin/v1/models": Administers(),
    "GET /admin/v1/models/{name}": Administers(),
    "GET /admin/v1/config": Administers(),
    "PUT /admin/v1/config": Administers(),
    "GET /admin/v1/jobs": Administers(),
    "GET /admin/v1/jobs/{id}": Administers(),
    "DELETE /admin/v1/jobs/{id}": Administers(),
    "GET /admin/v1/dead": Administers(),
    "GET /admin/v1/dead/{id}": Administers(),
    "POST /admin/v1/approvals": Administers(),
    "GET /admin/v1/approvals": Administers(),
    "GET /admin/v1/approvals/{id}": Administers(),
    "POST /admin/v1/approvals/{id}/grant": Administers(),
    "POST /admin/v1/approvals/{id}/refuse": Administers(),
    "POST /admin/v1/approvals/{id}/collect": Administers(),
    "GET /admin/v1/policy/explain": Administers(),
    "GET /admin/v1/events": Administers(),
    "GET /admin/v1/alerts": Administers(),
    "GET /admin/v1/alerts/{name}": Administers(),
    "GET /admin/v1/alert_channels": Administers(),
    "POST /admin/v1/alert_channels/{name}/test": Administers(),
    "GET /admin/v1/deployments": Administers(),
    "POST /admin/v1/deployments/{id}/drain": Administers(),
    "POST /admin/v1/deployments/{id}/resume": Administers(),
    "POST /hooks/itsm": Signed(),
}

TOPICS: Mapping[str, Entry] = {
    "KAFKA sluice.jobs.interactive": MakesJobs(),
    "KAFKA sluice.jobs.batch": MakesJobs(),
}
"""Topics that somebody besides our own services may write to."""

DOORS: Mapping[str, Entry] = {**HTTP, **TOPICS}
