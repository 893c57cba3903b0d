"""Who may hold how many of the places of a stage. Pure."""

from collections import Counter, OrderedDict

_MOST_REMEMBERED = 4096


class Places:
    """Places of tries under way, so that one dead endpoint, or one team, can't hold them all."""

    def __init__(self, per_host: int, per_team: int) -> None:
        self._per_host, self._per_team = per_host, per_team
        self._hosts: Counter[str] = Counter()
        self._teams: Counter[str] = Counter()
        self._failing: OrderedDict[str, None] = OrderedDict()

    def take(self, host: str, team: str) -> bool:
        """Takes a place for a try, if both have one to spare."""
        if self._hosts[host] >= self._per_host or self._teams[team] >= self._per_team:
            return False
        self._hosts[host] += 1
        self._teams[team] += 1
        return True

    def give_back(self, host: str, team: str, *, answered: bool) -> None:
        """The try is over."""
        for held, name in ((self._hosts, host), (self._teams, team)):
            held[name] -= 1
            if not held[name]:
                del held[name]
        self._failing.pop(host, None)
        if not answered:
            self._failing[host] = None
            while len(self._failing) > _MOST_REMEMBERED:
                self._failing.popitem(last=False)

    def is_failing(self, host: str) -> bool:
        """True if the last try there had no answer."""
        return host in self._failing
