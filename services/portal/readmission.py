"""A dead job that begins anew is admitted anew: as its caller would be today, and charged to every limit as any other job."""

from infra import charging, hierarchy
from infra.charging import Account
from infra.estimates import Estimator
from infra.platform import Platform
from infra.prices import PriceBook
from infra.redis.admission import Admitted, Attached, Keeping, admit
from infra.redis.listing import list_key
from schemas.control import Model
from schemas.errors import SluiceError
from schemas.job import Estimate, Job
from schemas.ticket import ticket_of
from services.portal.ways import Hopeless, why_not_today


class Readmission:
    """Admits jobs for which nobody waits: over a rate they wait for their turn, if that comes before their deadline."""

    def __init__(self, platform: Platform) -> None:
        self._table, self._redis = platform.control.table, platform.redis
        self._estimator = Estimator(self._table, PriceBook(self._table))
        self._is_warm = False

    async def admitted(self, job: Job) -> Job | Hopeless:
        """The job as it may be sent out, not signed yet: charged to its limits, and with its ticket. Raises RedisUnavailable."""
        levels, model = hierarchy.levels(self._table, job.caller), self._table.models.get(job.model)
        key = self._table.keys.get(job.caller.key_id)
        why = why_not_today(job, hierarchy.effective(levels), key, job.accepted_ms)
        if why or model is None:
            return Hopeless(why or f"the model `{job.model}` is gone")
        organization = self._table.organizations.get(job.caller.organization)
        throttled = key.held.requests_per_minute if key and key.held else None
        account = Account(levels, organization.time_zone if organization else "UTC", throttled)
        try:
            job = job.model_copy(update={"estimate": await self._estimate(job, account, model)})
            charge = charging.charge(account, job.lane, job.estimate, job.accepted_ms, job.deadline_ms)
            charging.check_size(charge)
        except SluiceError as error:
            return Hopeless(error.message)
        decision = await admit(self._redis, charge, _keeping(job), job.deadline_ms - job.accepted_ms, job.id)
        if isinstance(decision, Admitted):
            return job.model_copy(update={"not_before_ms": job.accepted_ms + decision.wait_ms if decision.wait_ms else 0})
        assert not isinstance(decision, Attached), "a replayed job has no claim that another could be bound to"
        return Hopeless(charging.refusal(decision, charge, account, job.accepted_ms).message)

    async def _estimate(self, job: Job, account: Account, model: Model) -> Estimate | None:
        """What the job needs at most, if anything depends on that. Raises SluiceError."""
        if not account.needs_tokens(job.lane, job.accepted_ms) and all(d.tpm is None for d in model.deployments):
            return None
        if not self._is_warm:
            self._is_warm = True
            self._estimator.start()
        money = account.needs_money(job.accepted_ms)
        return await self._estimator.estimate(job.api, job.body, model, job.policy, job.accepted_ms, money=money)


def _keeping(job: Job) -> Keeping | None:
    """Of a job that is to be asked for: its ticket."""
    if not job.keep_s:
        return None
    return Keeping(
        job_id=job.id,
        accepted_ms=job.accepted_ms,
        ticket=ticket_of(job).model_dump_json(exclude_defaults=True).encode(),
        ticket_ms=job.deadline_ms - job.accepted_ms + job.keep_s * 1000,
        list_key=list_key(job.caller.team),
    )
