"""Files → what they declare. Pure: text in, resources out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import yaml
from pydantic import ValidationError

from schemas.alerting import Alerting
from schemas.base import JsonObject
from schemas.budget import is_time_zone
from schemas.control import IdentityProvider, Model
from schemas.gates import Gate
from schemas.policy import Policy
from schemas.prices import PriceEntry
from services.portal.config import alerts, gates
from services.portal.config.costs import price_entry
from services.portal.config.deployments import Deployments
from services.portal.config.environment import Environment, Lookup
from services.portal.config.findings import Findings
from services.portal.config.litellm import SEMANTIC_LATER, Settings, routed, understand
from services.portal.config.models import Said, said
from services.portal.config.reasons import missing
from services.portal.config.shape import SPELLING, EnvironmentEntry, File, explain, likely, load, unknown
from services.portal.declared import Configuration, EnvironmentPolicy, ProjectPolicy, TeamPolicy, UserPolicy

_LITELLM = ("router_settings", "litellm_settings", "general_settings")


class ConfigError(Exception):
    """The files can't be used. `problems` each name file, path and what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the files say. `models` and `organization_policy` None: nothing, so they stay as they are.

    `organization_members`: which members of the organization's policy are meant, None: all. `secrets` are the keys that stood
    literally in a file, by the name under which a deployment refers to them (`file/NAME`); `master_key` is a reference, or the
    key itself. `warnings`: what has no effect, or is doubtful; `notes`: what needs no doing.
    """

    models: tuple[Model, ...] | None
    organization_policy: Policy | None
    teams: tuple[TeamPolicy, ...]
    secrets: Mapping[str, str] = field(repr=False)
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    organization_members: tuple[str, ...] | None = None
    time_zone: str | None = None
    projects: tuple[ProjectPolicy, ...] = ()
    environments: tuple[EnvironmentPolicy, ...] = ()
    users: tuple[UserPolicy, ...] = ()
    identity_providers: tuple[IdentityProvider, ...] = ()
    alerts: Alerting | None = None
    prices: tuple[PriceEntry, ...] | None = None
    langfuse: bool = False
    master_key: str = field(default="", repr=False)

    def over(self, standing: Configuration) -> Configuration:
        """The configuration to be asked for, where `standing` is the one there is."""
        return Configuration(
            models=standing.models if self.models is None else list(self.models),
            owns_models=self.models is not None,
            organization_policy=self.organization_policy,
            organization_members=None if self.organization_members is None else list(self.organization_members),
            time_zone=self.time_zone,
            teams=list(self.teams),
            projects=list(self.projects),
            environments=list(self.environments),
            users=list(self.users),
            identity_providers=list(self.identity_providers),
            alerts=self.alerts,
            prices=standing.prices if self.prices is None else list(self.prices),
            owns_prices=self.prices is not None,
        )


class Reading:
    """What has been read so far."""

    def __init__(self, environment: Lookup) -> None:
        self.found = Findings()
        self.deployments = Deployments(self.found)
        self._environment = Environment(environment, self.found)
        self._has_models = False
        self._policy: Policy | None = None
        self._time_zone: str | None = None
        self._teams: dict[str, TeamPolicy] = {}
        self._projects: list[ProjectPolicy] = []
        self._environments: list[EnvironmentPolicy] = []
        self._users: dict[str, UserPolicy] = {}
        self._providers: dict[str, IdentityProvider] = {}
        self._alerts: Alerting | None = None
        self._prices: dict[str, PriceEntry] | None = None
        self._gates: dict[str, tuple[str, tuple[Gate, ...]]] = {}
        self._said: dict[str, Said] = {}
        self.sections: dict[str, tuple[str, JsonObject]] = {}

    def add(self, name: str, text: str) -> None:
        """Takes one more file in."""
        try:
            raw = self._environment.resolved(name, load(text))
            document = File.model_validate(raw)
        except yaml.YAMLError as error:
            self.found.problems.append(f"{name}: not YAML: {_flat(str(error))}")
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            self.found.problems += [explain(name, e["loc"], e["msg"]) for e in errors]
        else:
            self._check_members(name, raw, document)
            self._add_organization(name, document)
            self._add_teams(name, document)
            self._add_people(name, raw, document)
            self._add_gates(name, raw, document)
            self._add_alerts(name, document)
            self._add_prices(name, document)
            self._add_models(name, document)
            self._add_sections(name, document)
            for number, entry in enumerate(document.model_list or []):
                self.deployments.add(f"{name}: model_list[{number}]", entry)
            self._has_models |= document.model_list is not None

    def result(self) -> Parsed:
        """Raises ConfigError."""
        settings = understand(self.sections, self.found)
        models = self._models(settings)
        policy, members = self._with(settings)
        if self.found.problems or self.found.unset:
            raise ConfigError([*self.found.problems, *self.found.unset])
        return Parsed(
            models=models,
            organization_policy=policy,
            teams=tuple(self._teams.values()),
            secrets=self.deployments.secrets,
            warnings=tuple(self.found.warnings),
            notes=tuple(self.found.notes),
            organization_members=members,
            time_zone=self._time_zone,
            projects=tuple(self._projects),
            environments=tuple(self._environments),
            users=tuple(self._users.values()),
            identity_providers=tuple(self._providers.values()),
            alerts=self._alerts,
            prices=None if self._prices is None else tuple(self._prices.values()),
            langfuse=settings.langfuse,
            master_key=settings.master_key,
        )

    def _models(self, settings: Settings) -> tuple[Model, ...] | None:
        by_model = self.deployments.named()
        for model, (path, _) in self._gates.items():
            if model not in by_model:
                self.found.problems.append(f"{path}: no model of this name stands in model_list")
        if not self._has_models:
            self.found.problems += [
                f"{entry.path}: there is no model_list that it could hold for" for entry in self._said.values()
            ]
            if "router_settings" in self.sections or settings.routes():
                self.found.warnings.append(f"{settings.path}: there is no model_list that it could hold for; it has no effect")
            return None
        models = [
            Model(name=name, deployments=tuple(entries), owned_by=entries[0].provider, gates=self._gates.get(name, ("", ()))[1])
            for name, entries in by_model.items()
            if entries
        ]
        return routed(models, settings, self._said, self.found)

    def _with(self, settings: Settings) -> tuple[Policy | None, tuple[str, ...] | None]:
        """The organization's policy with what LiteLLM's sections say of it, and which of its members are meant."""
        if not settings.policy:
            return self._policy, None
        if self._policy is None:
            return Policy.model_validate(settings.policy), tuple(settings.policy)
        for member in settings.policy:
            if getattr(self._policy, member) is not None:
                self.found.problems.append(
                    f"{self.sections['litellm_settings'][0]}: litellm_settings: policy.{member} says it already; leave one out"
                )
        return self._policy.model_copy(update=dict(settings.policy)), None

    def _check_members(self, name: str, raw: JsonObject, document: File) -> None:
        for member in document.model_extra or {}:
            if reason := missing("", member):
                self.found.warnings.append(f"{name}: {member}: {reason}")
            else:
                self.found.problems.append(f"{name}: {member}: not known; {SPELLING}{likely(member, File.model_fields)}")
        if document.environment_variables:
            self.found.warnings.append(f"{name}: environment_variables: set them where Sluice is started; it has no effect")
        ours = document.model_dump(mode="json", by_alias=True, include={"policy", "organization", "teams", "users"})
        for section in ours:
            for path, guess in unknown(f"{name}: {section}", raw.get(section), ours[section]):
                of = " of a policy" if ".policy." in path or ": policy." in path else ""
                self.found.problems.append(f"{path}: no such member{of}; {SPELLING}{guess}")
        for path, policy in _policies(document):
            if policy.cache is not None and policy.cache.similarity_threshold is not None:
                self.found.warnings.append(f"{name}: {path}.cache.similarity_threshold: {SEMANTIC_LATER}")

    def _add_organization(self, name: str, document: File) -> None:
        house = document.organization
        if house is not None and house.time_zone is not None:
            path = f"{name}: organization.time_zone"
            if not is_time_zone(house.time_zone):
                self.found.problems.append(f"{path}: {house.time_zone!r} is no time zone; write one such as Europe/Berlin")
            if self._time_zone is not None:
                self.found.problems.append(f"{path}: another file has one already; leave one of them out")
            self._time_zone = house.time_zone
        for path, policy in (("policy", document.policy), ("organization.policy", house.policy if house else None)):
            if policy is None:
                continue
            if self._policy is not None:
                twice = "there is one already" if path != "policy" else "another file has one already"
                self.found.problems.append(f"{name}: {path}: {twice}; leave one of them out")
            self._policy = policy

    def _add_teams(self, name: str, document: File) -> None:
        for team, given in document.teams.items():
            if team in self._teams:
                self.found.problems.append(f"{name}: teams.{team}: another file has it already; leave one of them out")
            self._teams[team] = TeamPolicy(name=team, policy=given.policy)
            self._add_environments(team, "", given.environments)
            for project, entry in given.projects.items():
                self._projects.append(ProjectPolicy(team=team, name=project, policy=entry.policy))
                self._add_environments(team, project, entry.environments)

    def _add_environments(self, team: str, project: str, entries: Mapping[str, EnvironmentEntry]) -> None:
        for environment, entry in entries.items():
            self._environments.append(EnvironmentPolicy(team=team, project=project, name=environment, policy=entry.policy))

    def _add_people(self, name: str, raw: JsonObject, document: File) -> None:
        for user, given in document.users.items():
            if user in self._users:
                self.found.problems.append(f"{name}: users.{user}: another file has it already; leave one of them out")
            self._users[user] = UserPolicy(name=user, policy=given.policy, memberships=given.memberships)
        for issuer, written in document.identity_providers.items():
            path = f"{name}: identity_providers.{issuer}"
            if issuer in self._providers:
                self.found.problems.append(f"{path}: another file has it already; leave one of them out")
            if provider := self._provider(path, {"name": issuer, **written}):
                self._providers[issuer] = provider

    def _provider(self, path: str, written: JsonObject) -> IdentityProvider | None:
        try:
            provider = IdentityProvider.model_validate(written)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            self.found.problems += [explain("", e["loc"], e["msg"], f"{path}.") for e in errors]
            return None
        known: JsonObject = provider.model_dump(mode="json", exclude={"kind", "version", "created_ms"})
        self.found.problems += [f"{where}: no such member; {SPELLING}{guess}" for where, guess in unknown(path, written, known)]
        return provider

    def _add_alerts(self, name: str, document: File) -> None:
        if document.alerts is None:
            return
        path = f"{name}: alerts"
        if self._alerts is not None:
            self.found.problems.append(f"{path}: another file has them already; leave one of them out")
        self._alerts = alerts.alerting(path, document.alerts, self.found)

    def _add_prices(self, name: str, document: File) -> None:
        if document.prices is None:
            return
        self._prices = {} if self._prices is None else self._prices
        for entry, written in document.prices.items():
            path = f"{name}: prices.{entry}"
            if entry in self._prices:
                self.found.problems.append(f"{path}: another file has it already; leave one of them out")
            if price := price_entry(path, entry, written, self.found):
                self._prices[entry] = price

    def _add_gates(self, name: str, raw: JsonObject, document: File) -> None:
        for model, given in document.gates.items():
            path = f"{name}: gates.{model}"
            if model in self._gates:
                self.found.problems.append(f"{path}: another file has them already; leave one of them out")
            written = cast("dict[str, list[object]]", raw["gates"])[model]
            self.found.problems += gates.problems(path, written, given)
            self._gates[model] = path, tuple(given)

    def _add_models(self, name: str, document: File) -> None:
        for model, written in document.models.items():
            path = f"{name}: models.{model}"
            if model in self._said:
                self.found.problems.append(f"{path}: another file has it already; leave one of them out")
            self._said[model] = said(path, model, written, self.found)

    def _add_sections(self, name: str, document: File) -> None:
        for section in _LITELLM:
            written: JsonObject | None = getattr(document, section)
            if written is None:
                continue
            if section in self.sections:
                self.found.problems.append(f"{name}: {section}: another file has it already; leave one of them out")
            self.sections[section] = name, written


def _policies(document: File) -> Iterator[tuple[str, Policy]]:
    """Every policy of a file, with its path."""
    if document.policy is not None:
        yield "policy", document.policy
    if document.organization is not None and document.organization.policy is not None:
        yield "organization.policy", document.organization.policy
    for name, team in document.teams.items():
        yield f"teams.{name}.policy", team.policy
        for place, entry in team.environments.items():
            yield f"teams.{name}.environments.{place}.policy", entry.policy
        for title, project in team.projects.items():
            yield f"teams.{name}.projects.{title}.policy", project.policy
            for place, entry in project.environments.items():
                yield f"teams.{name}.projects.{title}.environments.{place}.policy", entry.policy
    for name, user in document.users.items():
        yield f"users.{name}.policy", user.policy


def _flat(text: str) -> str:
    return " ".join(text.split())
