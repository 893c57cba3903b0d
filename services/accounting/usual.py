"""What is usual, learned from what was: for whoever looks for jumps. Pure."""

from math import sqrt
from typing import Final

STEADIEST: Final = 1 / 8
"""Of its mean: nothing is taken to be steadier, else any rise of what is busy were a jump. At a z-score of 8 it is the double."""
ABOVE_MOST: Final = 1.25
"""A jump is above the most there has been, too: what runs every hour, or begins every morning, has been there before."""


class Usual:
    """What is usual in a span of time: exponentially weighted mean and variance (T. Finch, Incremental calculation of weighted
    mean and variance, 2009), and the most there has been, which fades."""

    __slots__ = ("mean", "most", "variance")

    def __init__(self) -> None:
        self.mean = 0.0
        self.variance = 0.0
        self.most = 0.0

    def learn(self, value: float, share: float, fading: float) -> None:
        """`share`: what this one counts; `fading`: what is left of the most there has been."""
        gap = value - self.mean
        self.mean += share * gap
        self.variance = (1 - share) * (self.variance + share * gap * gap)
        self.most = max(value, self.most * fading)

    def deviation(self, least_variance: float, least: float) -> float:
        """The standard deviation, as far as it can be believed."""
        return max(sqrt(max(self.variance, least_variance)), self.mean * STEADIEST, least)

    def limit(self, z_score: float, deviation: float) -> float:
        """From where on it is a jump."""
        return max(self.mean + z_score * deviation, self.most * ABOVE_MOST)


def few(number: float) -> str:
    """A number for people: `1,240`, `31.20`, `0.0042`."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if number >= 0.01 or number == 0 else f"{number:.2g}"
