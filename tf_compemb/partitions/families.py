"""Families of partitions that are complementary by construction (Shi et al. 2020, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tf_compemb.partitions.partition import Digit, Naive, Partition, Remainder, ceil_div


def mixed_radix(n: int, moduli: Sequence[int]) -> list[Partition]:
    """Generalised quotient-remainder: the digits of an id in a mixed-radix system.

    Args:
        n: Number of ids.
        moduli: One modulus for each partition, least significant first; product at least n.

    Returns:
        Partition j is `(x // (m_1 ... m_{j-1})) mod m_j`.

    Raises:
        ValueError: The product of the moduli is below n.

    >>> import numpy as np
    >>> [int(p.classes(np.array(73), 100)) for p in mixed_radix(100, [5, 5, 4])]
    [3, 4, 2]
    """
    if math.prod(moduli) < n:
        raise ValueError(
            f"The product of `moduli` must be at least n={n}. "
            f"Received: moduli={list(moduli)}, product {math.prod(moduli)}"
        )
    digits: list[Partition] = []
    divisor = 1
    for modulus in moduli:
        digits.append(Digit(divisor, modulus))
        divisor *= modulus
    return digits


def chinese_remainder(n: int, moduli: Sequence[int]) -> list[Partition]:
    """Chinese remainder partitions: `x mod m_j` for pairwise coprime moduli.

    Args:
        n: Number of ids.
        moduli: Pairwise coprime, product at least n.

    Raises:
        ValueError: Two moduli share a factor, or the product is below n.

    >>> import numpy as np
    >>> [int(p.classes(np.array(23), 35)) for p in chinese_remainder(35, [5, 7])]
    [3, 2]
    """
    for i, first in enumerate(moduli):
        for second in moduli[i + 1 :]:
            if math.gcd(first, second) != 1:
                raise ValueError(
                    f"`moduli` must be pairwise coprime, but {first} and {second} share the "
                    f"factor {math.gcd(first, second)}. Received: moduli={list(moduli)}"
                )
    if math.prod(moduli) < n:
        raise ValueError(
            f"The product of `moduli` must be at least n={n}. "
            f"Received: moduli={list(moduli)}, product {math.prod(moduli)}"
        )
    return [Remainder(m) for m in moduli]


def balanced(n: int, k: int, family: str = "mixed_radix") -> list[Partition]:
    """`k` complementary partitions of nearly equal size, about `n ** (1 / k)` classes each.

    Args:
        n: Number of ids.
        k: Number of partitions.
        family: "mixed_radix" or "chinese_remainder".

    Raises:
        ValueError: `n` or `k` is below 1, or the family is unknown.

    >>> balanced(100, 3)
    [Digit(divisor=1, modulus=5), Digit(divisor=5, modulus=5), Digit(divisor=25, modulus=4)]
    >>> balanced(100, 2, family="chinese_remainder")
    [Remainder(modulus=10), Remainder(modulus=11)]
    """
    if n < 1 or k < 1:
        raise ValueError(f"`n` and `k` must be positive integers. Received: n={n}, k={k}")
    if family == "mixed_radix":
        return mixed_radix(n, smallest_moduli(n, k))
    if family == "chinese_remainder":
        return chinese_remainder(n, _smallest_coprime_moduli(n, k))
    raise ValueError(
        f"`family` must be 'mixed_radix' or 'chinese_remainder'. Received: family={family!r}"
    )


def for_parameters(n: int, output_dim: int, parameters: int) -> list[Partition]:
    """The partitions with the fewest shared rows whose tables fit a number of parameters.

    The full table if it fits; else quotient and remainder with the smallest modulus that fits;
    else the fewest balanced partitions that fit.

    Args:
        n: Number of ids.
        output_dim: Width of every table.
        parameters: At most so many trained numbers.

    Raises:
        ValueError: Not even tables of two rows fit; the message says what would.

    >>> for_parameters(1000, 16, 16 * 300)
    [Digit(divisor=1, modulus=4), Digit(divisor=4, modulus=250)]
    """
    rows = parameters // output_dim
    if rows >= n:
        return [Naive()]
    for modulus in range(2, math.isqrt(n) + 1):
        if modulus + ceil_div(n, modulus) <= rows:
            return mixed_radix(n, [modulus, ceil_div(n, modulus)])
    smallest = n
    for k in range(2, max(2, (n - 1).bit_length()) + 1):
        moduli = smallest_moduli(n, k)
        smallest = min(smallest, sum(moduli))
        if sum(moduli) <= rows:
            return mixed_radix(n, moduli)
    raise ValueError(
        f"No complementary partitions of {n} ids fit {parameters} parameters at "
        f"output_dim={output_dim}; the smallest need {smallest * output_dim}."
    )


def _root(n: int, k: int) -> int:
    """The largest integer whose k-th power is at most n."""
    root = round(n ** (1 / k))
    while root**k > n:
        root -= 1
    while (root + 1) ** k <= n:
        root += 1
    return root


def smallest_modulus(n: int) -> int:
    """The modulus with the fewest classes of remainder and quotient together.

    >>> smallest_modulus(1000)  # 32 + 32
    32
    """
    # Up to here a class more of the remainder saves at least one of the quotient, from here none.
    root = math.isqrt(n)
    return root if root * (root + 1) > n else root + 1


def smallest_moduli(n: int, k: int) -> list[int]:
    """`k` nearly equal moduli whose product is at least n, the largest first.

    >>> smallest_moduli(100, 3)
    [5, 5, 4]
    """
    root = max(1, _root(n, k))
    moduli = [root] * k
    for j in range(k):
        if math.prod(moduli) >= n:
            break
        moduli[j] += 1
    return moduli


def _smallest_coprime_moduli(n: int, k: int) -> list[int]:
    candidate = max(1, _root(n, k))
    while True:
        moduli: list[int] = []
        m = candidate
        while len(moduli) < k:
            if (m > 1 or n == 1) and all(math.gcd(m, other) == 1 for other in moduli):
                moduli.append(m)
            m += 1
        if math.prod(moduli) >= n:
            return moduli
        candidate += 1
