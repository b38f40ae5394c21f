"""Paired differences over seeds, with Student's t interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

CONFIDENCE = 0.95
_LOWER, _HIGHER, _NOISE, _UNKNOWN = "lower", "higher", "within the noise", "one seed"


@dataclass(frozen=True)
class Difference:
    """The mean of differences of pairs, and its confidence interval.

    Attributes:
        mean: Of the first less the second.
        half_width: The interval is mean - half_width to mean + half_width; None for one pair.
        pairs: How many.
    """

    mean: float
    half_width: float | None
    pairs: int

    @property
    def verdict(self) -> str:
        """Whether the interval lies below zero, above, or around it."""
        if self.half_width is None:
            return _UNKNOWN
        if abs(self.mean) <= self.half_width:
            return _NOISE
        return _LOWER if self.mean < 0 else _HIGHER


def paired_difference(
    these: Mapping[int, float], others: Mapping[int, float], confidence: float = CONFIDENCE
) -> Difference | None:
    """The difference over the seeds that both have.

    The interval is that of the mean of the pairs' differences, `t * s / sqrt(n)` with n - 1 degrees
    of freedom. It tells how far seeds matter; the test rows are the same in all of them.

    Args:
        these: Values by seed.
        others: Values by seed.
        confidence: Probability of the interval.

    Returns:
        None where no seed is in both.

    >>> paired_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.0, 1: 2.0, 2: 1.0}).mean
    1.0
    """
    pairs = [these[seed] - others[seed] for seed in these if seed in others]
    if not pairs:
        return None
    mean = statistics.fmean(pairs)
    if len(pairs) == 1:
        return Difference(mean, None, 1)
    t = t_quantile((1 + confidence) / 2, len(pairs) - 1)
    return Difference(mean, t * statistics.stdev(pairs) / math.sqrt(len(pairs)), len(pairs))


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's distribution, by halving; correct to about 1e-10.

    Args:
        probability: In [0.5, 1).
        degrees: Of freedom.

    >>> round(t_quantile(0.975, 4), 3)
    2.776
    """
    low, high = 0.0, 1.0
    while t_distribution(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if t_distribution(middle, degrees) < probability else (low, middle)
        )
    return (low + high) / 2


def t_distribution(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0, by the finite sums for integer degrees of freedom.

    With `angle = atan(t / sqrt(degrees))` they are Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(t, math.sqrt(degrees))
    cosine = math.cos(angle)
    odd = degrees % 2 == 1
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 if odd else 0, degrees - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    between = math.sin(angle) * total
    if odd:
        between = 2 / math.pi * (angle + between)
    return (1 + between) / 2
