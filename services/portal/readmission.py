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
from services.portal.ways import Hopeless


class Readmission:
    """Admits jobs for which nobody waits: over a rate they wait for their turn, if that comes before their deadline."""

    def __init__(self, platform: Platform) -> None:
        self._table, self._redis, self._clock = platform.control.table, platform.redis, platform.clock
        self._estimator = Estimator(self._table, PriceBook())
        self._warm = False

    async def admitted(self, job: Job) -> Job | Hopeless:
        """The job as it may be sent out, not signed yet; its limits are charged, and its ticket is kept. Raises RedisUnavailable."""
        levels = hierarchy.levels(self._table, job.caller)
        model = self._table.models.get(job.model)
        why = self._not_today(job, hierarchy.effective(levels).model_copy(update={"version": ""}), model)
        if why or model is None:
            return Hopeless(why)
        organization = self._table.organizations.get(job.caller.organization)
        account = Account(levels, organization.time_zone if organization else "UTC")
        try:
            job = job.model_copy(update={"estimate": await self._estimate(job, account, model)})
            charge = charging.charge(account, job.lane, job.estimate, job.accepted_ms, job.deadline_ms)
            charging.check_size(charge)
        except SluiceError as error:
            return Hopeless(error.message)
        decision = await admit(self._redis, charge, _keeping(job), job.deadline_ms - job.accepted_ms, job.id)
        match decision:
            case Admitted():
                turn_ms = job.accepted_ms + decision.wait_ms if decision.wait_ms else 0
                return job.model_copy(update={"not_before_ms": turn_ms})
            case Attached():
                raise AssertionError("a replayed job has no claim")
            case _:
                return Hopeless(charging.refusal(decision, charge, account, job.accepted_ms).message)
