"""Tensor trains of a table: how ids and columns are split, how cores are contracted, sized, drawn.

With s cores, `n_1 ... n_s >= n` and `d_1 ... d_s = d`. Core k is a table of `n_k` rows; row i is a
tensor `(R_{k-1} / t, d_k / t, R_k)` (`R_0 = R_s = 1`, and the first core is not divided by t). The
vector of an id is the product of one row of each core, chosen by the id's digits, the most
significant first. `t = 1` is the plain tensor train, `t > 1` the semi-tensor product of Xia et al.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_compemb._keras import ops
from tf_compemb.partitions import Digit, balanced

# A normal number beyond 2 standard deviations has this second moment.
_TAIL = 2.0
_TAIL_VARIANCE = 1 + _TAIL * math.exp(-(_TAIL**2) / 2) / math.sqrt(2 * math.pi) / (
    math.erfc(_TAIL / math.sqrt(2)) / 2
)


@dataclass(frozen=True)
class TrainShape:
    """The sizes of a tensor train.

    Attributes:
        row_factors: `n_1, ..., n_s`.
        column_factors: `d_1, ..., d_s`.
        ranks: `R_1, ..., R_{s-1}`.
        step: `t`, by which ranks and columns of all cores but the first are divided.
    """

    row_factors: tuple[int, ...]
    column_factors: tuple[int, ...]
    ranks: tuple[int, ...]
    step: int = 1

    def core(self, k: int) -> tuple[int, int, int]:
        """Shape of a row of core k, counted from 0: (rank before, columns, rank after)."""
        before, after = (1, *self.ranks)[k], (*self.ranks, 1)[k]
        t = 1 if k == 0 else self.step
        return before // t, self.column_factors[k] // t, after

    def rank_after(self, cores: int) -> int:
        """The rank after so many cores."""
        return (*self.ranks, 1)[cores - 1]

    def digits(self) -> list[Digit]:
        """Which row of each core an id reads."""
        sizes = self.row_factors
        return [Digit(math.prod(sizes[k + 1 :]), size) for k, size in enumerate(sizes)]

    @property
    def terms(self) -> int:
        """How many products are added up for one number of a vector."""
        return math.prod(rank // self.step for rank in self.ranks)


def row_factors(n: int, count: int) -> tuple[int, ...]:
    """The smallest nearly equal factors whose product is at least n.

    >>> row_factors(1_000_000, 3), row_factors(1000, 2)
    ((100, 100, 100), (32, 32))
    """
    return tuple(p.num_classes(n) for p in balanced(n, count))


def column_factors(d: int, count: int, step: int = 1) -> tuple[int, ...]:
    """Factors of d, as equal as can be, all but the first multiples of `step`.

    The inner ones are the smallest: an inner core costs two ranks.

    Raises:
        ValueError: `step ** (count - 1)` does not divide d.

    >>> column_factors(16, 3), column_factors(16, 3, step=2), column_factors(7, 2)
    ((2, 2, 4), (2, 2, 4), (1, 7))
    """
    divisor = step ** (count - 1)
    if d % divisor:
        raise ValueError(
            f"`output_dim` must be a multiple of {divisor} for {count} cores of "
            f"semi_tensor={step}. Received: output_dim={d}"
        )
    sizes = min(_factorizations(d // divisor, count), key=sum)
    inner, ends = sizes[: max(0, count - 2)], sizes[max(0, count - 2) :]
    ordered = (*ends[:-1], *inner, *ends[-1:])
    return (ordered[0], *(step * size for size in ordered[1:]))


def _factorizations(d: int, count: int, smallest: int = 1) -> list[tuple[int, ...]]:
    """All ascending tuples of `count` integers from `smallest` on whose product is d."""
    if count == 1:
        return [(d,)] if d >= smallest else []
    return [
        (first, *rest)
        for first in range(smallest, math.isqrt(d) + 1)
        if d % first == 0
        for rest in _factorizations(d // first, count - 1, first)
    ]


def useful_ranks(
    rank: int, rows: Sequence[int], columns: Sequence[int], step: int = 1
) -> tuple[int, ...]:
    """`rank` between all cores, cut to where a larger one would add nothing.

    >>> useful_ranks(16, (3, 10, 10), (2, 2, 4)), useful_ranks(16, (100, 100, 100), (2, 2, 4))
    ((6, 16), (16, 16))
    """
    sizes = [n * d for n, d in zip(rows, columns, strict=True)]
    bounds = [min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes))]
    return tuple(max(step, min(rank, bound) // step * step) for bound in bounds)


def contract(first: Any, cores: Sequence[Any], shape: TrainShape) -> Any:
    """Vectors (m, output_dim) of one row of each core.

    Args:
        first: Tensor (m, columns, rank after), the row of the first core, or the product of those
            of the first few.
        cores: For each of the others a tensor (m, width of the core).
        shape: Of the train.
    """
    product = first
    for k, rows in enumerate(cores, len(shape.row_factors) - len(cores)):
        before, columns, after = shape.core(k)
        product = _times(product, ops.reshape(rows, (-1, before, columns * after)), after, shape)
    return ops.reshape(product, (-1, product.shape[1]))


def _times(product: Any, core: Any, after: int, shape: TrainShape) -> Any:
    """(m, D, R) with a core (m, R / t, Q * R') to (m, D * Q * t, R')."""
    t = shape.step
    if t == 1:
        product = ops.matmul(product, core)
        return ops.reshape(product, (-1, product.shape[1] * product.shape[2] // after, after))
    wide, before, columns = product.shape[1], core.shape[1], core.shape[2] // after
    product = ops.transpose(ops.reshape(product, (-1, wide, before, t)), (0, 1, 3, 2))
    product = ops.matmul(ops.reshape(product, (-1, wide * t, before)), core)
    product = ops.reshape(product, (-1, wide, t, columns, after))
    product = ops.transpose(product, (0, 1, 3, 2, 4))
    return ops.reshape(product, (-1, wide * columns * t, after))


def merged(cores: Sequence[Any], shape: TrainShape) -> Any:
    """All products of a row of each of the first cores: (n_1 n_2 ..., columns * rank after).

    One large matrix product a core, instead of a small one for each id.

    Args:
        cores: Tensors (n_k, width of the core), whole.
        shape: Of the train.
    """
    t = shape.step
    count, wide, after = shape.row_factors[0], *shape.core(0)[1:]
    product = cores[0]
    for k, core in enumerate(cores[1:], 1):
        rows, (before, columns, after) = shape.row_factors[k], shape.core(k)
        left = ops.transpose(ops.reshape(product, (count * wide, before, t)), (0, 2, 1))
        right = ops.transpose(ops.reshape(core, (rows, before, columns * after)), (1, 0, 2))
        product = ops.matmul(ops.reshape(left, (-1, before)), ops.reshape(right, (before, -1)))
        product = ops.reshape(product, (count, wide, t, rows, columns, after))
        product = ops.transpose(product, (0, 3, 1, 4, 2, 5))
        count, wide = count * rows, wide * columns * t
    return ops.reshape(product, (count, wide * after))


class CoreNumbers:
    """An initialiser of cores whose contraction has the variance of a full table.

    TT-Rec draws from the tails of a normal law: a product of numbers that are never near zero is
    nearer to normal than a product of normal ones.

    Args:
        input_dim: Number of ids, which the variance 1 / (3 * input_dim) follows.
        shape: Of the train.
    """

    def __init__(self, input_dim: int, shape: TrainShape) -> None:
        cores = len(shape.row_factors)
        variance = 1 / (3 * input_dim * _TAIL_VARIANCE**cores * shape.terms)
        self.scale = variance ** (1 / (2 * cores))

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """A float32 tensor of `shape`."""
        # Python's generator, as in Keras: `keras.utils.set_random_seed` covers it.
        rng = np.random.default_rng(random.getrandbits(64))
        numbers = self.scale * normal_tails(rng, math.prod(shape))
        return ops.convert_to_tensor(numbers.reshape(shape).astype("float32"))


def normal_tails(rng: np.random.Generator, count: int) -> np.ndarray:
    """Numbers of the standard normal law given that they are beyond 2 and -2.

    G. Marsaglia, "Generating a variable from the tail of the normal distribution", Technometrics
    6(1), 1964.
    """
    found: list[np.ndarray] = []
    while sum(map(len, found)) < count:
        first, second = 1 - rng.random((2, count))  # In (0, 1].
        tails = np.sqrt(_TAIL**2 - 2 * np.log(first))
        found.append(tails[second * tails <= _TAIL])
    return np.concatenate(found)[:count] * rng.choice([-1.0, 1.0], count)


def train_of_table(table: np.ndarray, shape: TrainShape) -> list[np.ndarray]:
    """Cores near a table, by singular values of its unfoldings, one after the other (TT-SVD).

    I. V. Oseledets, "Tensor-train decomposition", SIAM J. Sci. Comput. 33(5), 2011, algorithm 1.
    The error is at most the root of s - 1 times that of the best train of these ranks.

    Args:
        table: Array (n, d).
        shape: Of the train, with `step` 1.

    Returns:
        For each core an array (row factor, width).
    """
    count = len(shape.row_factors)
    padded = np.zeros((math.prod(shape.row_factors), table.shape[1]), "float64")
    padded[: len(table)] = table
    tensor = padded.reshape(*shape.row_factors, *shape.column_factors)
    rest = tensor.transpose(list(itertools.chain(*((k, count + k) for k in range(count)))))
    cores = []
    for k in range(count - 1):
        before, columns, after = shape.core(k)
        rows = shape.row_factors[k]
        left, values, right = np.linalg.svd(
            rest.reshape(before * rows * columns, -1), full_matrices=False
        )
        kept = min(after, len(values))
        core = np.zeros((before * rows * columns, after))
        core[:, :kept] = left[:, :kept]
        cores.append(core.reshape(before, rows, columns, after))
        rest = np.zeros((after, right.shape[1]))
        rest[:kept] = values[:kept, None] * right[:kept]
    cores.append(rest.reshape(*shape.core(count - 1)[:1], shape.row_factors[-1], -1, 1))
    return [core.transpose(1, 0, 2, 3).reshape(core.shape[1], -1) for core in cores]
