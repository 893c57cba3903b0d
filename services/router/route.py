"""The route of one job: the model that was asked for, then those it falls back on, with deployments that may be asked. Pure."""

from collections.abc import Mapping

from infra.reachable import may_ask, none_allowed
from schemas.control import Deployment, Model
from schemas.errors import Fault
from schemas.policy import EffectivePolicy
from services.router import policy
from services.router.needs import Needs
from services.router.providers.failures import Why


class Route:
    """Where a job is, and where it may go on. `model` is where it is, with those deployments that its policy lets it ask, and
    that can serve what it `needs` (None: nobody looks).

    A model that leads on to others is followed there: a fallback's own fallbacks come before the next one of who led to it. No
    model comes twice, and one without a deployment to ask is passed over, for those that it falls back on: where the prompt is
    too long for it, on a larger context.
    """

    def __init__(self, models: Mapping[str, Model], asked: Model, rules: EffectivePolicy, needs: Needs | None = None) -> None:
        self._models, self._rules, self._needs = models, rules, needs
        self._rest: list[str] = []
        self._seen = {asked.name}
        self.asked = asked
        self.model = self._allowed(asked)
        self.most_calls = policy.most_calls(asked, rules.route)
        if not self.model.deployments:
            self.move(self._passed_over(asked))

    def ahead(self, why: Why) -> list[Model]:
        """The models that follow if the present one fails for this reason."""
        names, seen, found = [*_fallbacks(self.model, why), *self._rest], set(self._seen), list[Model]()
        while names:
            name = names.pop(0)
            if name in seen or name not in self._models:
                continue
            seen.add(name)
            model = self._allowed(self._models[name])
            if model.deployments:
                found.append(model)
            else:
                names = [*_fallbacks(model, self._passed_over(self._models[name])), *names]
        return found

    def move(self, why: Why) -> bool:
        """Goes on to the next model; False if there is none, and the job stays where it is."""
        following = self.ahead(why)
        if not following:
            return False
        self.model = following[0]
        self._rest = [model.name for model in following[1:]]
        self._seen.add(self.model.name)
        return True

    def refusal(self) -> Fault:
        """Why nobody may be asked, where `model` has no deployment."""
        allowed = self._by_policy(self.asked)
        if self._needs is None or not allowed:
            return none_allowed(self.asked.name, self._rules.data, self._rules.route).fault()
        return self._needs.unmet(self.asked.name, allowed).fault()

    def _allowed(self, model: Model) -> Model:
        allowed, needs = self._by_policy(model), self._needs
        if needs is not None:
            allowed = [d for d in allowed if needs.met_by(d)]
        return model if len(allowed) == len(model.deployments) else model.model_copy(update={"deployments": tuple(allowed)})

    def _by_policy(self, model: Model) -> list[Deployment]:
        data, route = self._rules.data, self._rules.route
        return [d for d in model.deployments if may_ask(d, data, route)]

    def _passed_over(self, model: Model) -> Why:
        """Why a model without a deployment to ask leads on."""
        too_long = self._needs is not None and self._needs.too_long(self._by_policy(model))
        return "context" if too_long else "failed"


def _fallbacks(model: Model, why: Why) -> tuple[str, ...]:
    match why:
        case "failed":
            return model.fallbacks
        case "context":
            return model.context_window_fallbacks
        case "content":
            return model.content_policy_fallbacks
