"""/admin/v1/organization, teams, projects, environments, users and identity_providers."""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from infra.clock import new_id
from schemas.control import Environment, IdentityProvider, Organization, Project, Team, User
from services.portal import policy
from services.portal.access import Actor, visible
from services.portal.admin.wire import Endpoints, Operation, answer, body, if_match, page, patch, query
from services.portal.handler import Admin
from services.portal.resources import Listed, ListedOfTeam, R, Resources
from services.portal.wanted import (
    NewEnvironment,
    NewProject,
    NewProvider,
    NewTeam,
    NewUser,
    OrganizationSettings,
    PolicySettings,
    ProviderSettings,
    UserSettings,
)


class EnvironmentsAsked(ListedOfTeam):
    """GET /admin/v1/environments."""

    project: str | None = None


def resource_endpoints(admin: Admin) -> Endpoints:
    """The endpoints of what has no secret."""
    kinds = admin.kinds
    return [
        *_organization(kinds.organizations),
        *_teams(admin),
        *_projects(admin),
        *_environments(admin),
        *_users(admin),
        *_identity_providers(admin),
    ]


def standing(path: str, ref: str, word: str, kind: Resources[R], settings: type[BaseModel], gives: type[BaseModel]) -> Endpoints:
    """A resource looked at, patched, deleted. `ref` names the parameter of the path."""

    async def show(request: Request, actor: Actor) -> Response:
        return answer(kind.find(named(request), actor))

    async def change(request: Request, actor: Actor) -> Response:
        return answer(await kind.patch(named(request), await patch(request), if_match(request), actor))

    async def delete(request: Request, actor: Actor) -> Response:
        return answer(await kind.delete(named(request), if_match(request), actor))

    one = f"{path}/{{{ref}}}"
    return [
        Operation("GET", one, show, f"Show {word}", gives=gives),
        Operation("PATCH", one, change, f"Change {word} by a merge patch", settings, gives),
        Operation("DELETE", one, delete, f"Delete {word}", gives=gives),
    ]


def named(request: Request) -> str:
    """What the path names: the only parameter in it."""
    (name,) = request.path_params.values()
    return str(name)


def _organization(kind: Resources[Organization]) -> Endpoints:
    def the_one(actor: Actor) -> Organization:
        found, _ = kind.page(Listed(limit=1), actor)
        return found[0]

    async def show(_: Request, actor: Actor) -> Response:
        return answer(the_one(actor))

    async def change(request: Request, actor: Actor) -> Response:
        one = the_one(actor)
        return answer(await kind.patch(one.name, await patch(request), if_match(request), actor))

    return [
        Operation("GET", "/organization", show, "Show the organization", gives=Organization),
        Operation(
            "PATCH", "/organization", change, "Change the organization by a merge patch", OrganizationSettings, Organization
        ),
    ]


def _teams(admin: Admin) -> Endpoints:
    async def create(request: Request, actor: Actor) -> Response:
        return answer(await admin.create_team(await body(request, NewTeam), actor), 201)

    async def list_(request: Request, actor: Actor) -> Response:
        return page(*admin.kinds.teams.page(query(request, Listed), actor))

    return [
        Operation("POST", "/teams", create, "Create a team, and the topic of its results", NewTeam, Team, 201),
        Operation("GET", "/teams", list_, "List teams, by name", Listed, Team, many=True),
        *standing("/teams", "name", "a team", admin.kinds.teams, PolicySettings, Team),
    ]


def _projects(admin: Admin) -> Endpoints:
    kind = admin.kinds.projects

    async def create(request: Request, actor: Actor) -> Response:
        wanted = await body(request, NewProject)
        born, team = admin.store.clock(), _team(admin, wanted.team, actor)
        project = Project(id=new_id("proj", born), team=team, name=wanted.name, policy=wanted.policy, created_ms=born)
        return answer(await kind.create(project, actor), 201)

    async def list_(request: Request, actor: Actor) -> Response:
        asked = query(request, ListedOfTeam)
        return page(*kind.page(asked, actor, lambda one: asked.team in (None, one.team)))

    return [
        Operation("POST", "/projects", create, "Create a project", NewProject, Project, 201),
        Operation("GET", "/projects", list_, "List projects, by team and name", ListedOfTeam, Project, many=True),
        *standing("/projects", "ref:path", "a project (by its id, or as team/name)", kind, PolicySettings, Project),
    ]


def _environments(admin: Admin) -> Endpoints:
    kind = admin.kinds.environments

    async def create(request: Request, actor: Actor) -> Response:
        wanted = await body(request, NewEnvironment)
        born, team = admin.store.clock(), _team(admin, wanted.team, actor)
        given = {"project": wanted.project, "name": wanted.name, "policy": wanted.policy}
        environment = Environment.model_validate({"id": new_id("env", born), "team": team, "created_ms": born, **given})
        async with admin.store.writing():
            made = await kind.create_within(environment, actor)
            await admin.store.make_place(team, wanted.project, "", actor)
        return answer(made, 201)

    async def list_(request: Request, actor: Actor) -> Response:
        asked = query(request, EnvironmentsAsked)
        return page(*kind.page(asked, actor, lambda one: asked.team in (None, one.team) and asked.project in (None, one.project)))

    word = "an environment (by its id, or as team/project/name; team//name where there is no project)"
    return [
        Operation("POST", "/environments", create, "Create an environment", NewEnvironment, Environment, 201),
        Operation("GET", "/environments", list_, "List environments", EnvironmentsAsked, Environment, many=True),
        *standing("/environments", "ref:path", word, kind, PolicySettings, Environment),
    ]


def _users(admin: Admin) -> Endpoints:
    kind = admin.kinds.users

    async def create(request: Request, actor: Actor) -> Response:
        wanted, born = await body(request, NewUser), admin.store.clock()
        user = User.model_validate({"id": new_id("user", born), "created_ms": born, **_members(wanted)})
        return answer(await kind.create(user, actor), 201)

    async def list_(request: Request, actor: Actor) -> Response:
        return page(*kind.page(query(request, Listed), actor))

    return [
        Operation("POST", "/users", create, "Create a user, with roles and a policy", NewUser, User, 201),
        Operation("GET", "/users", list_, "List users, by name", Listed, User, many=True),
        *standing("/users", "ref:path", "a user (by its id, or by name)", kind, UserSettings, User),
    ]


def _identity_providers(admin: Admin) -> Endpoints:
    kind = admin.kinds.identity_providers

    async def create(request: Request, actor: Actor) -> Response:
        wanted = await body(request, NewProvider)
        provider = IdentityProvider.model_validate({"created_ms": admin.store.clock(), **_members(wanted)})
        return answer(await kind.create(provider, actor), 201)

    async def list_(request: Request, actor: Actor) -> Response:
        return page(*kind.page(query(request, Listed), actor))

    path, word = "/identity_providers", "an identity provider"
    return [
        Operation("POST", path, create, "Trust an OIDC issuer", NewProvider, IdentityProvider, 201),
        Operation("GET", path, list_, "List identity providers", Listed, IdentityProvider, many=True),
        *standing(path, "name", word, kind, ProviderSettings, IdentityProvider),
    ]


def _team(admin: Admin, name: str, actor: Actor) -> str:
    return policy.the_team(visible(actor, admin.table.teams), name).name


def _members(model: BaseModel) -> dict[str, object]:
    return {name: getattr(model, name) for name in type(model).model_fields}
