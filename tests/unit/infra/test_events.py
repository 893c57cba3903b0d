"""Acts that change no resource."""

from infra.events import Acts
from infra.kafka.envelope import decode
from schemas.event import AdminEvent, Author
from schemas.topics import EVENTS
from tests.fakes.log import MemoryLog


async def test_an_act_is_told_with_who_what_and_why() -> None:
    log = MemoryLog()
    acts = Acts(log, lambda: 1_800_000_000_000)
    await acts.tell("user/ada", "job.cancelled", "job/job_1", "too dear", after={"team": "fraud"})
    (record,) = log.records(EVENTS.name)
    event = decode(record, AdminEvent)
    assert isinstance(event, AdminEvent)
    assert (record.key, event.at_ms, event.actor, event.action) == (b"job/job_1", 1_800_000_000_000, "user/ada", "job.cancelled")
    assert (event.resource, event.reason, event.before, event.after) == ("job/job_1", "too dear", None, {"team": "fraud"})
    assert event.id.startswith("evt_")
    assert dict(record.headers)["ce_id"] == event.id.encode()


async def test_an_author_brings_his_reason_and_the_id_of_the_event() -> None:
    log = MemoryLog()
    await Acts(log, lambda: 0).tell(Author(actor="admin", reason="asked to", event="evt_1"), "looked", "team/fraud")
    (record,) = log.records(EVENTS.name)
    event = decode(record, AdminEvent)
    assert isinstance(event, AdminEvent)
    assert (event.id, event.actor, event.reason) == ("evt_1", "admin", "asked to")
