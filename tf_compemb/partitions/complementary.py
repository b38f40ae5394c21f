"""Whether a set of partitions is complementary: proved for the families, else enumerated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tf_compemb.partitions.partition import Digit, Partition

_LARGEST_ENUMERATION = 10**8


def check_complementary(partitions: Sequence[Partition], input_dim: int) -> None:
    """Raises where two ids share their class in every partition.

    Args:
        partitions: One partition or more.
        input_dim: Number of ids.

    Raises:
        ValueError: The set is not complementary; the message names two ids that collide.

    >>> check_complementary([Digit(1, 4), Digit(1, 6)], 24)
    Traceback (most recent call last):
        ...
    ValueError: The partitions are not complementary: ids 0 and 12 of 24 have the same class in \
every one of [Digit(divisor=1, modulus=4), Digit(divisor=1, modulus=6)]. Add a partition, or use \
larger moduli.
    """
    pair = find_collision(partitions, input_dim)
    if pair is not None:
        raise ValueError(
            f"The partitions are not complementary: ids {pair[0]} and {pair[1]} of {input_dim} "
            f"have the same class in every one of {list(partitions)}. Add a partition, or use "
            "larger moduli."
        )


def find_collision(partitions: Sequence[Partition], input_dim: int) -> tuple[int, int] | None:
    """Two ids with the same class in every partition, or None when the set is complementary.

    Remainders are decided by their least common multiple and chains of digits by their product,
    for any number of ids; every other set by enumeration.

    Raises:
        ValueError: The set has to be enumerated and there are more than 10**8 ids.
    """
    if not partitions:
        raise ValueError("`partitions` must hold at least one partition. Received: partitions=[]")
    digits = [p for p in partitions if isinstance(p, Digit)]
    if _is_chain(digits, input_dim):
        return None
    remainders = [d.num_classes(input_dim) for d in digits if d.divisor(input_dim) == 1]
    if remainders and math.lcm(*remainders) >= input_dim:
        return None
    if len(remainders) == len(partitions):
        return 0, math.lcm(*remainders)
    return _enumerate(partitions, input_dim)


def _is_chain(digits: Sequence[Digit], input_dim: int) -> bool:
    """Whether some digits form a mixed-radix number that reaches `input_dim`."""
    reach = 1
    for divisor, modulus in sorted(
        (d.divisor(input_dim), d.num_classes(input_dim)) for d in digits
    ):
        # A gap between the digits ends the chain; overlapping digits need not be complementary.
        if divisor == reach:
            reach *= modulus
    return reach >= input_dim


def _enumerate(partitions: Sequence[Partition], input_dim: int) -> tuple[int, int] | None:
    if input_dim > _LARGEST_ENUMERATION:
        raise ValueError(
            f"Whether {list(partitions)} is complementary on {input_dim} ids can only be found by "
            f"enumeration, which stops at {_LARGEST_ENUMERATION} ids. Use partitions of one "
            "family (mixed_radix, chinese_remainder), or fewer ids."
        )
    ids = np.arange(input_dim, dtype=np.int64)
    key = np.zeros(input_dim, dtype=np.int64)
    span = 1
    for partition in partitions:
        classes = np.asarray(partition.classes(ids, input_dim))
        count = partition.num_classes(input_dim)
        _check_classes(classes, count, partition)
        if span * count >= 2**62:
            key = np.unique(key, return_inverse=True)[1]
            span = int(key.max()) + 1
        key = key * count + classes
        span *= count
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    return (int(order[same[0]]), int(order[same[0] + 1])) if same.size else None


def _check_classes(classes: np.ndarray, count: int, partition: Partition) -> None:
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= count:
        raise ValueError(
            f"{partition!r} must map ids to integers in [0, {count}). Received: dtype "
            f"{classes.dtype}, values from {classes.min()} to {classes.max()}"
        )
