"""What must hold when a world has come to its end."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from infra.kafka.post import result_id
from infra.kafka.waiter import Memory, Waiter
from infra.redis.client import Script
from infra.redis.tickets import Tickets
from schemas.completion import Completion
from schemas.job import Job, JobStatus
from schemas.reply import Answer, Delta, Event, Reply
from services.router.policy import MAX_ATTEMPTS
from tests.simulator.chaos import Chaos
from tests.simulator.door import Sent
from tests.simulator.process import Process
from tests.simulator.provider import Asked, Ledger
from tests.simulator.servers import Servers

ENDS = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED, JobStatus.INCOMPLETE}
_STATE = Script("state", "return {redis.call('HGET', KEYS[1], 'state') or ''}", "state")


@dataclass(frozen=True, slots=True)
class Report:
    """What a world was like. `called_again`: jobs that were, but for hedges."""

    steps: int
    accepted: int
    calls: int
    called_again: int
    ended_twice: int
    told_again: int
    ended_otherwise: int


async def check(servers: Servers, ledger: Ledger, sent: Sequence[Sent], processes: Sequence[Process], chaos: Chaos) -> Report:
    """Raises AssertionError with everything that doesn't hold."""
    called = ledger.by_job()
    # Nothing fences the records of a process that has lost its partition to another, or is stopped between asking and telling.
    alone = len(processes) == len({process.stages for process in processes}) and not chaos.weather.freezes
    wrong = [
        f"{one.job.id} ({one.job.reply_to.kind}, way {len(one.job.way)}, stream {one.job.stream}): {what}"
        for one in sent
        for what in [
            *await _faults(servers, one, called.get(one.job.id, []), chaos),
            *_of_result(one.job, _times_told(servers, one.job), alone),
        ]
    ]
    wrong += [f"{process.name} is not well: {process.not_ready()}" for process in processes if process.not_ready()]
    wrong += [f"{process.name} still holds {len(process.running)}" for process in processes if process.running]
    assert not wrong, "\n".join(["", *wrong])
    ends = [servers.completions.get(one.job.id, []) for one in sent]
    beside = {attempt.id for completions in ends for one in completions for attempt in one.attempts if attempt.hedge}
    return Report(
        steps=chaos.steps,
        accepted=sum(one.accepted for one in sent),
        calls=len(ledger.calls),
        called_again=sum(len([call for call in calls if call.attempt not in beside]) > 1 for calls in called.values()),
        ended_twice=sum(len(completions) > 1 for completions in ends),
        told_again=sum(_times_told(servers, one.job) > 1 for one in sent),
        ended_otherwise=sum(len({completion.status for completion in completions}) > 1 for completions in ends),
    )


async def _faults(servers: Servers, sent: Sent, calls: list[Asked], chaos: Chaos) -> list[str]:
    job, completions = sent.job, servers.completions.get(sent.job.id, [])
    faults = [*_of_books(completions, calls, servers.put_off[job.id]), *_of_state(servers, job, bool(completions))]
    if sent.accepted and not completions:
        faults.append("it was accepted and has no end")
    if completions and job.reply_to.kind == "inbox":
        faults += await _of_replies(job, servers.replies.get(job.id, []), calls, chaos)
    if job.keep_s and completions:
        faults += await _of_ticket(servers, job, completions)
    return faults


def _times_told(servers: Servers, job: Job) -> int:
    return servers.told[result_id(job.id)]


def _of_result(job: Job, told: int, alone: bool) -> list[str]:
    is_well = job.reply_to.kind == "inbox" or told == 1 or (told > 1 and not alone)
    return [] if is_well else [f"its result was told {told} times"]


def _of_books(completions: list[Completion], calls: list[Asked], put_off: int) -> list[str]:
    booked = {attempt.id for completion in completions for attempt in completion.attempts}
    times = Counter(call.attempt for call in calls)
    return [
        *(f"it ended as {completion.status}" for completion in completions if completion.status not in ENDS),
        *(f"the call {attempt} is on no bill" for attempt in times if attempt not in booked),
        *(f"{attempt} was called {n} times" for attempt, n in times.items() if n > 1),
        *([f"{len(calls)} calls were made for it"] if len(calls) > MAX_ATTEMPTS * (1 + put_off) else []),
    ]


def _of_state(servers: Servers, job: Job, has_ended: bool) -> list[str]:
    (state,) = cast("list[bytes]", servers.redis.now(_STATE, [f"job:{job.id}"]))
    return [f"its record is left {state.decode()!r}"] if has_ended and state not in (b"", b"done") else []


async def _of_ticket(servers: Servers, job: Job, completions: list[Completion]) -> list[str]:
    """Of a job that ended twice, and otherwise the second time, the ticket may tell the second end.

    Only an answer is kept before it is published: a death between publishing a failure and noting it leaves the next life to find
    an end of its own.
    """
    found = await Tickets(servers.redis, servers.files).find(job.id)
    if found is None or found.ended is None:
        return ["its ticket tells no end"]
    if found.ended.status not in {completion.status for completion in completions}:
        return [f"its ticket says {found.ended.status.value}, the log {completions[0].status.value}"]
    return []


async def _of_replies(job: Job, replies: list[Reply], calls: list[Asked], chaos: Chaos) -> list[str]:
    """What a connection reads, as it came, and once more with events repeated and swapped."""
    faults = _of_reading(await _read(replies), job, calls)
    if faults:
        return [f"{fault} ({' '.join(f'{r.attempt}/{r.seq}/{r.event.kind}' for r in replies)})" for fault in faults]
    twisted = _twisted(replies, chaos)
    return [f"twisted: {fault}" for fault in _of_reading(await _read(twisted), job, calls)]


def _twisted(replies: list[Reply], chaos: Chaos) -> list[Reply]:
    twisted: list[Reply] = []
    for reply in replies:
        twisted += [reply] * chaos.chance.choice((1, 1, 2))
    for n in range(len(twisted) - 1):
        if chaos.chance.random() < 0.1:
            twisted[n], twisted[n + 1] = twisted[n + 1], twisted[n]
    return twisted


async def _read(replies: list[Reply]) -> list[Event | str]:
    """What the inbox gives of these to the connection that waits, up to the end or where nothing more comes."""
    waiter, gone = Waiter(Memory(10**9)), asyncio.get_running_loop().create_future()
    read: list[Event | str] = []
    for reply in replies:
        waiter.put(reply)
    while not read or not (isinstance(read[-1], str) or read[-1].kind in ("closed", "answer", "failed")):
        read.append(await waiter.next(0, gone))
    return read


def _of_reading(read: list[Event | str], job: Job, calls: list[Asked]) -> list[str]:
    last = read[-1]
    texts = [call.said for call in calls]
    if isinstance(last, Answer):
        is_known = '"cached":true' in last.body or any(text and text in last.body for text in texts)
        return [] if is_known else [f"it was told what nobody said: {last.body}"]
    told = _told(read)
    for text in told:
        if not any(said.startswith(text) for said in [*texts, ""]):
            return [f"the stream told {text!r}, which is the beginning of no answer"]
    if not isinstance(last, str) and last.kind == "closed" and told[-1] not in texts:
        return [f"the stream ended well after {told[-1]!r}, which is no whole answer"]
    return [] if last != "late" else ["whoever waits is told no end"]


def _told(read: list[Event | str]) -> list[str]:
    """What a stream has told: one text, and one more for each time that another call went on with it."""
    told = [""]
    for event in read:
        for data in event.data if isinstance(event, Delta) else ():
            told += [""] if '"continued":' in data else []
            told[-1] += data.partition('"content":"')[2].partition('"')[0]
    return told
