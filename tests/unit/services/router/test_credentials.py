"""A provider that won't take our credential: it is looked for anew once, then the deployment is out; nobody is asked twice."""

import pytest

from infra.kafka.carriage import Finish, PutOff
from schemas.errors import Fault
from schemas.reply import Answer, Failed
from schemas.topics import Lane
from tests.fakes.clock import in_virtual_time
from tests.unit.services.router.doubles import Bench, answer, deployment, failure, job, model, virtual_clock

DENIED = failure("denied", 401)


def bench(*script: object, deployments: int = 2) -> Bench:
    return Bench(*script, table=model(*(deployment(f"d{n + 1}") for n in range(deployments))), clock=virtual_clock)


def called(on: Bench) -> list[str]:
    return [request.deployment.id for request in on.provider.asked]


@in_virtual_time
async def test_another_deployment_answers_and_the_refused_one_is_asked_no_more() -> None:
    on = bench(DENIED, answer("a"), answer("b"))
    for _ in range(2):
        end = await on.handle()
        assert isinstance(end, Finish)
        assert isinstance(end.last, Answer)
    assert called(on) == ["d1", "d2", "d2"]
    assert on.health.state("d1", virtual_clock())[0] == "quarantined"


@in_virtual_time
async def test_the_only_one_fails_fast() -> None:
    on = bench(DENIED, deployments=1)
    end = await on.handle()
    assert isinstance(end, Finish)
    assert isinstance(end.last, Failed)
    assert end.last.fault.owner == "provider"
    assert called(on) == ["d1"]


@in_virtual_time
async def test_a_batch_job_waits_until_somebody_has_looked_after_it() -> None:
    on = bench(DENIED, deployments=1)
    assert isinstance(await on.handle(job(lane=Lane.BATCH, deadline_ms=virtual_clock() + 3_600_000)), PutOff)


@in_virtual_time
async def test_a_rotated_credential_is_tried_at_once() -> None:
    on = bench(DENIED, answer("with the new one"), deployments=1)
    on.renewed.append("d1")
    end = await on.handle()
    assert isinstance(end, Finish)
    assert isinstance(end.last, Answer)
    assert called(on) == ["d1", "d1"]
    assert on.health.state("d1", virtual_clock())[0] == "closed"


@pytest.mark.parametrize("stream", [False, True])
def test_the_caller_never_learns_which_credential(stream: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        on = bench(DENIED, DENIED)
        end = await on.handle(job(stream=stream))
        assert isinstance(end, Finish)
        assert isinstance(end.last, Failed)
        fault: Fault = end.last.fault
        assert fault.status == 502
        assert len(on.provider.asked) == 2

    run()
