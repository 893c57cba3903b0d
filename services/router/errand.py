"""A job while it is sent out."""

from dataclasses import dataclass, field

from schemas.attempt import Attempt
from schemas.control import Deployment, Model
from schemas.job import Job
from services.router.calling import Flight
from services.router.places import Place
from services.router.providers.base import ProviderFailure
from services.router.route import Route
from services.router.stream import Relay


@dataclass(slots=True)
class Errand:
    """A job while it is sent out, and what has become of it so far. `place`: the right to make its next call, of `model`.

    `n`: calls begun for the job. `calls` of that model so far, the next one included. `failure`: what the job ends with if no
    other call is made. `open`: calls that are in no books yet. `answered`: the call that answered, or whose stream goes out.
    `why`: how the job came to be where it is, a sentence for each decision.
    """

    job: Job
    route: Route
    traceparent: str
    place: Place
    n: int = 0
    why: list[str] = field(default_factory=list[str])
    model: Model = field(init=False)
    calls: int = 1
    failure: ProviderFailure | None = None
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    tried: list[str] = field(default_factory=list[str])
    open: list[Flight] = field(default_factory=list[Flight])
    answered: Flight | None = None

    def __post_init__(self) -> None:
        self.model = self.route.model

    def take(self, place: Place) -> None:
        """The next call is made at this place, which is where the route is."""
        same = self.route.model is self.model
        self.calls = self.calls + 1 if same else 1
        if not same:
            self.why.append(f"fallback: {self.model.name} failed, {self.route.model.name} is asked")
        self.model, self.place = self.route.model, place

    @property
    def made(self) -> int:
        """Calls made since the job came here, with those of lives that are over."""
        return self.n - len(self.job.made)

    @property
    def deployment(self) -> Deployment:
        """The one that has answered, or else was asked last."""
        return self.answered.deployment if self.answered else self.place.deployment

    @property
    def relay(self) -> Relay | None:
        """The stream that goes out, or did."""
        return self.answered.relay if self.answered else None

    @property
    def streaming(self) -> bool:
        """True once something has gone out to the caller."""
        return self.relay is not None and self.relay.opened

    @property
    def drains(self) -> bool:
        """True if all that is asked now is to be let end, though nobody waits for it."""
        asked = [flight for flight in self.open if flight.begun and flight.call.ended is None]
        return bool(asked) and all(flight.deployment.on_disconnect == "drain" for flight in asked)

    @property
    def told_as(self) -> int:
        """The attempt in whose name the caller is told."""
        if self.relay is not None:
            return self.relay.n
        return self.answered.call.n if self.answered else self.n

    @property
    def body(self) -> str:
        """The whole answer."""
        return self.answered.answer if self.answered else ""
