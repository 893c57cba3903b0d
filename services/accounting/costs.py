"""Spend that jumps: what a feature, a project or a team costs in ten minutes, against its own ten minutes before. Pure."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from schemas.alerting import CostRule
from schemas.budget import NANO, nano
from services.accounting.rates import Finding
from services.accounting.usual import Usual, few

SPAN_MINUTES: Final = 10
LEAST_SPANS: Final = 6
"""Spans with spend that somebody must have had before what he spends is judged: an hour."""
MOST_SCOPES: Final = 10_000

_SHARE: Final = 1 / 36
"""What a span counts in the history: one of six hours ago counts a third of the last."""
_FADING: Final = 0.5 ** (1 / 432)
"""The most there has been fades by half in three days of spans with spend."""
_LEAST_NANO: Final = NANO / 10

Scope = tuple[str, ...]
"""Kind (`feature`, `project`, `team`), team, and the name below the team."""

_FINEST: Final = ("feature", "project", "team")


class _Spent:
    __slots__ = ("spans", "usual")

    def __init__(self) -> None:
        self.spans = 0
        self.usual = Usual()

    def deviation(self) -> float:
        return self.usual.deviation(0, _LEAST_NANO)


class Costs:
    """The history of those who spent last: 10,000 of them."""

    def __init__(self, most: int = MOST_SCOPES) -> None:
        self._most = most
        self._known: OrderedDict[Scope, _Spent] = OrderedDict()

    def learn(self, spent: Mapping[Scope, int], z_score: float) -> None:
        """A span is over. One in which nobody spent says nothing; if it jumped it counts as the limit."""
        for scope, amount in spent.items():
            one = self._known.get(scope)
            if one is None:
                one = self._known[scope] = _Spent()
            self._known.move_to_end(scope)
            value = float(amount)
            if one.spans >= LEAST_SPANS:
                value = min(value, one.usual.limit(z_score, one.deviation()))
            one.spans += 1
            one.usual.learn(value, max(1 / one.spans, _SHARE), _FADING)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def judge(self, spent: Mapping[Scope, int], rule: CostRule) -> list[Finding]:
        """Who has spent too much in the running span: of each team only the finest that says it, features before all."""
        found = sorted((_FINEST.index(scope[0]), scope) for scope in self._jumps(spent, rule)) if rule.enabled else []
        finest = {scope[1]: place for place, scope in reversed(found)}
        return [self._finding(scope, spent[scope]) for place, scope in found if place == finest[scope[1]]]

    def _jumps(self, spent: Mapping[Scope, int], rule: CostRule) -> Iterable[Scope]:
        least = nano(rule.least_usd)
        for scope, amount in spent.items():
            one = self._known.get(scope)
            if one is None or one.spans < LEAST_SPANS or amount < least or amount <= one.usual.mean:
                continue
            if amount >= one.usual.limit(rule.z_score, one.deviation()):
                yield scope

    def _finding(self, scope: Scope, amount: int) -> Finding:
        kind, team, *name = scope
        usual, usd = self._known[scope].usual.mean / NANO, amount / NANO
        who = f"Team {team}" if not name else f"{kind.capitalize()} {name[0]} of team {team}"
        message = f"{who} has spent {few(usd)} USD in {SPAN_MINUTES} minutes; usual are {few(usual)}"
        facts = {"usd": round(usd, 6), "usual_usd": round(usual, 6), "minutes": SPAN_MINUTES}
        return Finding("cost_anomaly", "/".join(scope), message, team, facts={**facts})
