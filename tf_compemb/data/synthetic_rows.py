"""Random Criteo-like rows with a click probability that is known.

The columns follow the Kaggle data: rates of missing values, which columns are missing together,
medians and tails of the integers, and how much of a categorical column its commonest value takes.
The click model is logistic: a constant, an effect of each category, and a slope for each integer
column. The effect of a category is computed from (seed, field, category) and stored nowhere, so a
field may have any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tf_compemb.data.criteo_format import (
    CATEGORICAL_FIELDS,
    DENSE_FIELDS,
    KAGGLE_CARDINALITIES,
    transform_dense,
)

U64 = np.uint64

# Measured on 109,711 rows, an even 0.3 % sample of the Kaggle training data.
# fmt: off
DENSE_MISSING = (.4535, .0, .2114, .2131, .026, .2232, .0423, .0005, .0423, .4535, .0423, .7684,
                 .2131)
DENSE_MEDIAN = (1, 3, 6, 4, 2790, 32, 3, 7, 38, 1, 1, 0, 4)
DENSE_MAXIMUM = (425, 9814, 38443, 349, 2071071, 111105, 6498, 1689, 9465, 7, 122, 193, 1574)
CATEGORICAL_MISSING = (.0, .0, .035, .035, .0, .1233, .0, .0, .0, .0, .0, .035, .0, .0, .0, .035,
                       .0, .0, .4406, .4406, .035, .7606, .0, .035, .4406, .4406)
# The share of all rows, missing ones included, that have the commonest value.
COMMONEST_SHARE = (.501, .114, .025, .035, .673, .395, .02, .594, .899, .219, .031, .025, .031,
                   .35, .016, .025, .46, .033, .346, .191, .025, .137, .433, .052, .146, .041)
# fmt: on
CLICK_RATE = 0.256
# I2 has -1, -2 and -3 as markers; this share of its rows.
NEGATIVE_SHARE = 0.1
# Standard deviation of the logit: with it the best achievable AUC is about 0.80.
LOGIT_DEVIATION = 1.35
# How much of the logit's variance comes from the integer columns.
DENSE_VARIANCE = 0.3
# The largest fields decide: on small ones compression has nothing to lose. Few fields, so that the
# effects are large enough to be learnt from some 100,000 rows.
STRONG_FIELDS = 5
WEAK_FIELD_WEIGHT = 0.2
PILOT_ROWS = 1 << 15
# Sizes up to this stay as they are when cardinalities are scaled down.
UNSCALED_CARDINALITY = 200


def scaled_cardinalities() -> tuple[int, ...]:
    """Returns the Kaggle cardinalities, those above 200 shrunk to `200 (c / 200)^0.2`.

    So that a few hundred thousand rows are enough to learn the effects of most categories.

    >>> scaled_cardinalities()[:3], max(scaled_cardinalities())
    ((297, 247, 1745), 1745)
    """
    unscaled = UNSCALED_CARDINALITY
    return tuple(
        c if c <= unscaled else int(unscaled * (c / unscaled) ** 0.2) for c in KAGGLE_CARDINALITIES
    )


@dataclass(frozen=True)
class SyntheticRows:
    """Generated rows.

    Attributes:
        label: bool `[rows]`.
        probability: float64 `[rows]`, the click probability that the label was drawn with.
        dense: int64 `[rows, 13]`; 0 where missing.
        dense_missing: bool `[rows, 13]`.
        categorical: int64 `[rows, 26]`, ranks (0 is the commonest); -1 where missing.
    """

    label: np.ndarray
    probability: np.ndarray
    dense: np.ndarray
    dense_missing: np.ndarray
    categorical: np.ndarray


class ClickModel:
    """The distribution of the rows, and the planted click probability.

    Args:
        seed: a non-negative integer; with the other arguments it fixes the effects of all
            categories.
        cardinalities: for C1..C26, how many values there are to draw from.
        click_rate: mean click probability.
    """

    def __init__(self, seed: int, cardinalities: Sequence[int], click_rate: float = CLICK_RATE):
        self.seed = seed
        self.cardinalities = tuple(cardinalities)
        self._exponents = [
            _zipf_exponent(size, share / (1 - missing))
            for size, share, missing in zip(
                self.cardinalities, COMMONEST_SHARE, CATEGORICAL_MISSING, strict=True
            )
        ]
        pilot = self._draw(np.random.default_rng([seed, 1]), PILOT_ROWS)
        dense = transform_dense(pilot[0])
        self._centre = dense.mean(axis=0)
        self._spread = np.maximum(dense.std(axis=0), 1e-3)
        self._scales = (1.0, 1.0)
        parts = self._signal_parts(pilot[0], pilot[2])
        shares = (DENSE_VARIANCE, 1 - DENSE_VARIANCE)
        self._scales = tuple(
            LOGIT_DEVIATION * np.sqrt(share) / part.std()
            for share, part in zip(shares, parts, strict=True)
        )
        self._bias = _bias_for(self._signal(pilot[0], pilot[2]), click_rate)

    def rows(self, chunk: int, count: int) -> SyntheticRows:
        """Returns the rows of one chunk; each chunk has its own random numbers."""
        rng = np.random.default_rng([self.seed, 0, chunk])
        dense, dense_missing, categorical = self._draw(rng, count)
        probability = _sigmoid(self._bias + self._signal(dense, categorical))
        label = rng.random(count) < probability
        return SyntheticRows(label, probability, dense, dense_missing, categorical)

    def _draw(
        self, rng: np.random.Generator, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Columns with the same rate of missing values are missing together in the real data.
        absent = {
            rate: rng.random(count) < rate
            for rate in sorted({*DENSE_MISSING, *CATEGORICAL_MISSING})
        }
        dense = np.zeros((count, len(DENSE_FIELDS)), dtype=np.int64)
        for i, (median, largest) in enumerate(zip(DENSE_MEDIAN, DENSE_MAXIMUM, strict=True)):
            dense[:, i] = _long_tailed_integers(rng, count, median, largest)
        negative = rng.random(count) < NEGATIVE_SHARE
        dense[negative, 1] = -rng.choice(3, negative.sum(), p=(0.94, 0.05, 0.01)) - 1
        dense_missing = np.stack([absent[rate] for rate in DENSE_MISSING], axis=1)
        dense[dense_missing] = 0
        categorical = np.empty((count, len(CATEGORICAL_FIELDS)), dtype=np.int64)
        for i, (size, exponent) in enumerate(zip(self.cardinalities, self._exponents, strict=True)):
            ranks = _zipf_ranks(rng.random(count), size, exponent)
            categorical[:, i] = np.where(absent[CATEGORICAL_MISSING[i]], -1, ranks)
        return dense, dense_missing, categorical

    def _signal_parts(
        self, dense: np.ndarray, categorical: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        slopes = _normal_hash(self.seed, 0, np.arange(len(DENSE_FIELDS)))
        of_dense = ((transform_dense(dense) - self._centre) / self._spread) @ slopes
        of_categories = np.zeros(len(categorical))
        strong = sorted(self.cardinalities)[-STRONG_FIELDS]
        for i, size in enumerate(self.cardinalities):
            weight = 1.0 if size >= strong else WEAK_FIELD_WEIGHT
            of_categories += weight * _normal_hash(self.seed, i + 1, categorical[:, i])
        return of_dense * self._scales[0], of_categories * self._scales[1]

    def _signal(self, dense: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        of_dense, of_categories = self._signal_parts(dense, categorical)
        return of_dense + of_categories


def category_codes(field: int, ranks: np.ndarray) -> np.ndarray:
    """Returns the 32-bit numbers that stand for categories in the file, uint32.

    A bijection within a field (MurmurHash3's finaliser, after an offset that depends on the field),
    so two categories never share a code.

    Args:
        field: 0 for C1.
        ranks: integers from 0 to 2^32 - 1.
    """
    x = ranks.astype(np.uint32) + np.uint32((field + 1) * 0x9E3779B1 % 2**32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _long_tailed_integers(
    rng: np.random.Generator, count: int, median: int, largest: int
) -> np.ndarray:
    """Log-normal, rounded down; the largest of 100,000 is about `largest`, and none is larger."""
    spread = np.log((largest + 1) / (median + 1)) / 4.3
    centre = np.log(median + 1.5)
    values = np.exp(centre + spread * rng.standard_normal(count)) - 1
    return np.clip(values, 0, largest).astype(np.int64)


def _zipf_ranks(uniform: np.ndarray, size: int, exponent: float) -> np.ndarray:
    """Ranks `0 .. size - 1` by inverting the integral of `x^-exponent` over `[1, size + 1)`."""
    top = np.log(size + 1.0)
    a = 1.0 - exponent
    x = np.exp(top * uniform) if abs(a) < 1e-9 else (1 + uniform * np.expm1(a * top)) ** (1 / a)
    return np.clip(x.astype(np.int64) - 1, 0, size - 1)


def _zipf_exponent(size: int, commonest: float) -> float:
    """The exponent with which rank 0 has the share `commonest`, by bisection in [0, 8]."""
    low, high = 0.0, 8.0
    for _ in range(50):
        middle = (low + high) / 2
        a = 1.0 - middle + 1e-12
        share = np.expm1(a * np.log(2.0)) / np.expm1(a * np.log(size + 1.0))
        low, high = (middle, high) if share < commonest else (low, middle)
    return (low + high) / 2


def _normal_hash(seed: int, stream: int, values: np.ndarray) -> np.ndarray:
    """A fixed, nearly normal number for each value: mean 0, variance 1, float64."""
    key = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    x = values.astype(np.uint64) * U64(0x9E3779B97F4A7C15) + key
    x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)  # splitmix64
    x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    x ^= x >> U64(31)
    # The sum of four 16-bit uniforms has variance 4 * 65536^2 / 12.
    parts = [(x >> U64(shift)) & U64(0xFFFF) for shift in (0, 16, 32, 48)]
    total = np.sum(parts, axis=0).astype(np.float64)
    return (total - 2 * 65535) / (65536 / np.sqrt(3))


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def _bias_for(signal: np.ndarray, click_rate: float) -> float:
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        too_low = _sigmoid(signal + middle).mean() < click_rate
        low, high = (middle, high) if too_low else (low, middle)
    return (low + high) / 2
