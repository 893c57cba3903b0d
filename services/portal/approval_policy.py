"""Requests: what can be granted, who may decide about it, and what a grant makes. Pure.

pending ──grant──► granted ──collect──► collected   (keys only)
        ──refuse─► refused
        ──time───► expired                          (nothing is written: the time says so)
"""

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from schemas.budget import Budget, Increase
from schemas.control import Approval, Environment, Organization, Project, Resource, Team, User, VirtualKey
from schemas.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from schemas.policy import ModelGrant, Policy
from services.portal.access import ADMIN, Right
from services.portal.approval_wanted import AtLevel, Ends, Wanted, WantedBudget, WantedKey, WantedModel, What

Status = Literal["pending", "granted", "refused", "expired", "collected"]
Levelled: TypeAlias = Organization | Team | Project | Environment | VirtualKey | User
"""What a policy may stand at."""

Find = Callable[[str], Resource | None]
"""The resource under a record key (`team/fraud`)."""

MOST_PENDING = 100
"""Requests of a team that may wait to be decided. All of them are in the memory of every process."""

MOST_KEPT = 1000
"""Requests of a team that are remembered; beyond, the oldest of those that are over are forgotten. Their events stay."""

MOST_AT_ONCE = 50
"""Grants on one budget, or of models at one level, that may be good at the same time."""

# Asking


def check_wanted(wanted: Wanted, team: str, requester: str, find: Find) -> None:
    """Raises InvalidRequest or NotFound unless it could be granted as things stand now."""
    match wanted:
        case WantedKey():
            for model in wanted.models or ():
                _check_model(model, "wanted.models", find)
        case WantedBudget():
            _check_budgets(level_of(wanted.level, team, requester, find), wanted)
        case WantedModel():
            _check_model(wanted.model, "wanted.model", find)
            level_of(wanted.level, team, requester, find)


def level_of(level: str, team: str, requester: str, find: Find) -> Levelled:
    """The resource at a level that a request of this team may be about. Raises NotFound."""
    found = find(level)
    match found:
        case Organization():
            return found
        case Team() if found.name == team:
            return found
        case Project() | Environment() | VirtualKey() if found.team == team:
            return found
        case User() if level == requester or any(member.team == team for member in found.memberships):
            return found
        case _:
            raise NotFound(
                f"There is no {level[:128]!r} of the team {team!r}. A level is written team/NAME, project/TEAM/NAME, "
                "environment/TEAM/PROJECT/NAME, key/ID or user/NAME.",
                param="wanted.level",
            )


def level_above(wanted: Wanted) -> str:
    """The level, if it is no single team's, where a right in one team is not enough; else empty."""
    if isinstance(wanted, AtLevel) and wanted.level.startswith(("organization/", "user/")):
        return wanted.level
    return ""


def check_room(of_the_team: Iterable[Approval], now_ms: int) -> None:
    """Raises Conflict if too many requests of a team wait already."""
    if sum(status_at(one, now_ms) == "pending" for one in of_the_team) >= MOST_PENDING:
        raise Conflict(
            f"{MOST_PENDING} requests of this team wait to be decided already. Have them decided first, or let them expire.",
            code="too_many_pending",
        )


def surplus(of_the_team: Iterable[Approval], now_ms: int) -> list[Approval]:
    """What is to be forgotten of a team's requests: the oldest that are over."""
    known = sorted(of_the_team, key=lambda one: one.id)
    over = [one for one in known if status_at(one, now_ms) != "pending" and not is_to_be_collected(one, now_ms)]
    return over[: max(0, len(known) - MOST_KEPT)]


# Deciding


def status_at(approval: Approval, now_ms: int) -> Status:
    """How a request stands."""
    if approval.status == "pending" and 0 < approval.expires_ms <= now_ms:
        return "expired"
    return approval.status


def shown(approval: Approval, now_ms: int) -> Approval:
    """The request as it stands at this moment."""
    return approval.model_copy(update={"status": status_at(approval, now_ms)})


def right_to_decide(what: What) -> Right:
    """What one must be allowed to, to decide."""
    return Right.BUDGET if what == "budget" else Right.APPROVE


def check_pending(approval: Approval, now_ms: int) -> None:
    """Raises Conflict with the state, if there is nothing left to decide."""
    status = status_at(approval, now_ms)
    if status == "pending":
        return
    by = f" by {approval.decided_by}" if approval.decided_by else ""
    raise Conflict(f"The request {approval.id} is {status}{by} already.", code=f"approval_{status}")


def check_same_team(approval: Approval, team: Team) -> None:
    """Raises Conflict if the team has been deleted since, and another has its name."""
    if team.created_ms > approval.created_ms:
        raise Conflict(f"The team {team.name!r} was made after this was asked for: it is another one.", code="another_team")


def check_four_eyes(requester: str, decider: str) -> None:
    """Raises NotAllowed if somebody decides about his own request. The holder of the admin key may."""
    if decider != ADMIN.name and _person(decider) == _person(requester):
        raise NotAllowed("Nobody decides about his own request: somebody else has to.", code="four_eyes")


def end_of(approval: Approval, grant: Ends, now_ms: int) -> int:
    """When what is granted ends, in unix milliseconds; 0: never, for keys only. Raises InvalidRequest."""
    chosen = grant.at(now_ms)
    until_ms = approval.until_ms if chosen is None else chosen
    if until_ms == 0 and approval.what != "key":
        raise InvalidRequest(
            f"A {approval.what} is granted for a time: say `for_s` or `until_ms`. What is to stay belongs into the policy.",
            param="until_ms",
        )
    if 0 < until_ms <= now_ms:
        raise InvalidRequest("The end of the grant is past: say another with `for_s` or `until_ms`.", param="until_ms")
    return until_ms


def decided(
    approval: Approval,
    status: Literal["granted", "refused"],
    by: str,
    reason: str,
    now_ms: int,
    ticket: str = "",
    result: str = "",
    until_ms: int = 0,
) -> Approval:
    """The request after a decision."""
    update: dict[str, object] = {
        "status": status,
        "decided_by": by,
        "reason": reason,
        "decided_ms": now_ms,
        "ticket": ticket or approval.ticket,
        "result": result,
        "until_ms": until_ms if status == "granted" else approval.until_ms,
        "version": approval.version + 1,
    }
    return approval.model_copy(update=update)


# What a grant makes


def key_id_of(approval: Approval) -> str:
    """The id of the key that a request asks for: always the same, so that a grant that was cut off makes no second one."""
    return f"key_{approval.id.removeprefix('apr_')}"


def key_of(approval: Approval, wanted: WantedKey, sha256: str, until_ms: int, now_ms: int, version: int = 1) -> VirtualKey:
    """The key that is to be collected: `sha256` is of a secret that nobody has, and `last4` empty until somebody does."""
    return VirtualKey(
        id=key_id_of(approval),
        sha256=sha256,
        last4="",
        team=approval.team,
        project=wanted.project,
        environment=wanted.environment,
        user=wanted.user,
        name=wanted.name,
        version=version,
        policy=Policy(models=wanted.models, budgets=(wanted.budget,) if wanted.budget else ()),
        created_ms=now_ms,
        expires_ms=until_ms,
    )


def increased(level: Levelled, wanted: WantedBudget, approval_id: str, until_ms: int, now_ms: int) -> Levelled:
    """The level with more in each of its budgets that counts this. Raises Conflict where there are too many increases."""
    budgets = tuple(
        _more(budget, wanted, approval_id, until_ms, now_ms) if _counts(budget, wanted) else budget
        for budget in level.policy.budgets
    )
    return _under(level, level.policy.model_copy(update={"budgets": budgets}))


def allowed(level: Levelled, wanted: WantedModel, approval_id: str, until_ms: int, now_ms: int) -> Levelled:
    """The level with one more model for a time. Raises Conflict where there are too many."""
    before = tuple(one for one in level.policy.granted_models if one.until_ms > now_ms and one.approval != approval_id)
    _check_grants(len(before), wanted.level)
    grants = (*before, ModelGrant(model=wanted.model, until_ms=until_ms, approval=approval_id))
    return _under(level, level.policy.model_copy(update={"granted_models": grants}))


# Collecting


def is_to_be_collected(approval: Approval, now_ms: int) -> bool:
    """True for a granted key that nobody has the secret of yet."""
    return approval.what == "key" and approval.status == "granted" and not 0 < approval.until_ms <= now_ms


def check_collectable(approval: Approval, key: VirtualKey | None, collector: str, now_ms: int) -> VirtualKey:
    """The key, if `collector` may have its secret now. Raises NotAllowed or Conflict."""
    if approval.requester != collector:
        raise NotAllowed(f"Only {approval.requester}, who asked for this key, can collect it.", code="not_requester")
    if approval.what != "key":
        raise Conflict(f"A {approval.what} was asked for: there is nothing to collect.", code="nothing_to_collect")
    status = status_at(approval, now_ms)
    if status != "granted":
        raise Conflict(f"The request {approval.id} is {status}: there is nothing to collect.", code=f"approval_{status}")
    if key is None or key.revoked or key.rotated_ms or 0 < key.expires_ms <= now_ms:
        raise Conflict("The key is revoked, rotated or over by now. Ask for another.", code="key_gone")
    return key


def collected(key: VirtualKey, sha256: str, last4: str) -> VirtualKey:
    """The key with the secret that the requester is shown."""
    return key.model_copy(update={"sha256": sha256, "last4": last4, "version": key.version + 1})


def _check_model(model: str, param: str, find: Find) -> None:
    if find(f"model/{model}") is None:
        raise NotFound(f"There is no model {model[:128]!r}.", param=param, code="model_not_found")


def _check_budgets(level: Levelled, wanted: WantedBudget) -> None:
    for unit, amount in (("usd", wanted.usd), ("tokens", wanted.tokens)):
        if amount and not any(getattr(budget, unit) is not None for budget in _of_period(level, wanted)):
            raise InvalidRequest(
                f"{wanted.level} has no budget of {unit} by {wanted.period.value}, so there is nothing to increase.",
                param="wanted.level",
                code="no_such_budget",
            )


def _of_period(level: Levelled, wanted: WantedBudget) -> list[Budget]:
    return [budget for budget in level.policy.budgets if budget.period is wanted.period]


def _counts(budget: Budget, wanted: WantedBudget) -> bool:
    """True if any of what is asked for is counted by this budget."""
    counts_usd, counts_tokens = wanted.usd and budget.usd is not None, wanted.tokens and budget.tokens is not None
    return budget.period is wanted.period and bool(counts_usd or counts_tokens)


def _more(budget: Budget, wanted: WantedBudget, approval_id: str, until_ms: int, now_ms: int) -> Budget:
    before = tuple(one for one in budget.increases if one.until_ms > now_ms and one.approval != approval_id)
    _check_grants(len(before), wanted.level)
    more = Increase(usd=wanted.usd, tokens=wanted.tokens, until_ms=until_ms, approval=approval_id)
    return budget.model_copy(update={"increases": (*before, more)})


def _check_grants(before: int, level: str) -> None:
    if before >= MOST_AT_ONCE:
        raise Conflict(
            f"{level} has {MOST_AT_ONCE} grants at work already. Change its policy instead, or wait until one ends.",
            code="too_many_grants",
        )


def _under(level: Levelled, policy: Policy) -> Levelled:
    return level.model_copy(update={"policy": policy, "version": level.version + 1})


def _person(name: str) -> str:
    """Who somebody is, whatever door he came by: `user/ada@corp.example` and `itsm/Ada@corp.example` are one."""
    return name.partition("/")[2].casefold()
