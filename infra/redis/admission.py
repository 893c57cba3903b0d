"""Admission in one round trip: all limits of a caller, or none; a request that came before is found, and a ticket is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from pydantic_core import to_json

from infra.redis.client import Argument, Redis, Script

_ADMIT = Script.load("admit", "holds")

MINUTE_MS, DAY_MS = 60_000, 86_400_000

MOST_LISTED = 10_000
"""Jobs of a team that can be listed; older ones are still found by their id."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests, or tokens, in a period of `period_ms` at one level; `scope` says whose, such as `team/fraud`."""

    scope: str
    limit: int
    unit: Literal["requests", "tokens"] = "requests"
    period_ms: int = MINUTE_MS

    @property
    def key(self) -> str:
        return f"rate:{self.scope}:{self.unit[0]}{self.period_ms // MINUTE_MS}"


@dataclass(frozen=True, slots=True)
class Room:
    """So many jobs open at once at one level."""

    scope: str
    limit: int

    @property
    def key(self) -> str:
        return f"room:{self.scope}"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be spent at one counter, which belongs to one level and one period. Nano-dollars; None: no limit of that kind.

    `forgotten_ms`: when nobody asks for the counter any more, in unix milliseconds; 0: never.
    """

    key: str
    usd_nano: int | None
    tokens: int | None
    forgotten_ms: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of a caller, as the script takes them (`text`): made once, for they are the same from request to request."""

    rates: tuple[Rate, ...] = ()
    rooms: tuple[Room, ...] = ()
    allowances: tuple[Allowance, ...] = ()
    text: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rates = [(rate.key, rate.limit, rate.period_ms, int(rate.unit == "tokens")) for rate in self.rates]
        rooms = [(room.key, room.limit) for room in self.rooms]
        counters = [(a.key, _or_none(a.usd_nano), _or_none(a.tokens), a.forgotten_ms) for a in self.allowances]
        flat = ([part for one in many for part in one] for many in (rates, rooms, counters))
        object.__setattr__(self, "text", to_json(list(flat)))

    def __bool__(self) -> bool:
        return bool(self.rates or self.rooms or self.allowances)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a job is charged: one request, `tokens` and `usd_nano` at most, a place in each room for `lease_ms` at most.

    `holds` False: the money is held later (batch, when it is sent out); now it is only looked whether any is left.
    """

    limits: Limits = Limits()
    tokens: int = 0
    usd_nano: int = 0
    lease_ms: int = 0
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Keeping:
    """What admission notes of a job beside its limits. `claim` binds later requests with the same `claim_key` to this one.

    One that `attaches` is bound to an earlier one, if there is any; one that doesn't takes the claim.

    `list_key`: where the job is listed, or empty. Times in milliseconds.
    """

    job_id: str
    accepted_ms: int
    claim_key: str = ""
    claim: bytes = b""
    claim_ms: int = 0
    attaches: bool = True
    ticket: bytes = b""
    ticket_ms: int = 0
    list_key: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a rate stands after a request: how much of it is left, and when nothing is in use any more."""

    rate: Rate
    remaining: int
    reset_ms: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request is charged. `wait_ms`: until its turn comes, if it may wait; `again`: its money was held before."""

    wait_ms: int = 0
    rates: Sequence[Standing] = ()
    again: bool = False

    def tightest(self, unit: Literal["requests", "tokens"]) -> Standing | None:
        """The rate of this kind of which the least is left."""
        return min((s for s in self.rates if s.rate.unit == unit), key=lambda s: s.remaining, default=None)


@dataclass(frozen=True, slots=True)
class OverRate:
    """A rate refused; `wait_ms`: until the request may come again."""

    standing: Standing
    wait_ms: int


@dataclass(frozen=True, slots=True)
class NoRoom:
    """As many jobs are open as may be."""

    room: Room


@dataclass(frozen=True, slots=True)
class OverBudget:
    """It doesn't fit: `spent` and `held` for jobs that run, in nano-dollars or tokens."""

    allowance: Allowance
    unit: Literal["usd", "tokens"]
    spent: int
    held: int

    @property
    def limit(self) -> int:
        """What it would exceed."""
        return self.limit_of(self.allowance) or 0

    def limit_of(self, allowance: Allowance) -> int | None:
        """What this allowance has of the unit that refused."""
        return allowance.usd_nano if self.unit == "usd" else allowance.tokens


@dataclass(frozen=True, slots=True)
class Closed:
    """Redis has lost the counters; until they are counted anew nobody knows what may be spent."""


@dataclass(frozen=True, slots=True)
class Attached:
    """The same request was made before. `sent`: it is known to be on its way; `attached`: how many came since, with this one."""

    claim: bytes
    sent: bool
    attached: int


Refused = OverRate | NoRoom | OverBudget | Closed
NOTHING = Charge()


async def admit(
    redis: Redis, charge: Charge = NOTHING, keeping: Keeping | None = None, longest_wait_ms: int = 0, job_id: str = ""
) -> Admitted | Refused | Attached:
    """Charges one request to every limit, or to none if one refuses, and notes what is to be kept.

    A request that may wait is refused by a rate only if its turn would come after `longest_wait_ms`. Raises RedisUnavailable.
    """
    kept = keeping or Keeping(job_id, 0)
    limits = charge.limits
    if not (limits or kept.claim or kept.ticket):
        return Admitted()
    result = cast("list[int | bytes]", await redis.run(_ADMIT, _keys(kept), _arguments(charge, kept, longest_wait_ms)))
    match result[0]:
        case 1 | 3:
            numbers = cast("list[int]", result)
            standings = [Standing(rate, *numbers[2 * i + 2 : 2 * i + 4]) for i, rate in enumerate(limits.rates)]
            return Admitted(numbers[1], standings, again=numbers[0] == 3)
        case 2:
            return Attached(cast("bytes", result[1]), bool(result[2]), int(result[3]))
        case _:
            return _refusal(limits, result)


def _keys(kept: Keeping) -> list[str]:
    keys = [kept.claim_key] if kept.claim else []
    keys += [f"ticket:{kept.job_id}"] if kept.ticket else []
    keys += [kept.list_key] if kept.ticket and kept.list_key else []
    return keys


def _arguments(charge: Charge, kept: Keeping, longest_wait_ms: int) -> list[Argument]:
    holds = "hold" if charge.holds else "look"
    args: list[Argument] = [
        charge.limits.text,
        longest_wait_ms,
        kept.job_id,
        charge.tokens,
        charge.usd_nano,
        charge.lease_ms,
        holds,
    ]
    if kept.claim or kept.ticket:
        args += [kept.claim, kept.claim_ms, int(kept.attaches), kept.ticket, kept.ticket_ms]
        args += [int(bool(kept.list_key)), MOST_LISTED, kept.accepted_ms]
    return args


def _refusal(limits: Limits, result: Sequence[int | bytes]) -> Refused:
    what = cast("bytes", result[1])
    if what == b"closed":
        return Closed()
    number = int(result[2]) - 1
    match what:
        case b"rate":
            wait_ms, remaining, reset_ms = cast("Sequence[int]", result[3:6])
            return OverRate(Standing(limits.rates[number], remaining, reset_ms), wait_ms)
        case b"room":
            return NoRoom(limits.rooms[number])
        case _:
            unit = "usd" if what == b"usd" else "tokens"
            return OverBudget(limits.allowances[number], unit, int(result[3]), int(result[4]))


def _or_none(number: int | None) -> int:
    return -1 if number is None else number
