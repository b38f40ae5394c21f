"""Carter and Wegman's universal hash modulo the Mersenne prime 2**31 - 1, on any integer width.

J. L. Carter, M. N. Wegman, "Universal classes of hash functions", JCSS 18(2), 1979. Runtimes with
64-bit integers multiply directly. JAX has 32 bits by default: there the product is summed from
11-bit limbs, and a multiplication by a power of two modulo 2**31 - 1 is a rotation of 31 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

PRIME = 2**31 - 1
_LOW_BITS = 30
_LIMB_BITS = 11


def draw_coefficients(seed: int) -> tuple[int, int, int]:
    """`(a_low, a_high, b)` with `1 <= a < P` and `0 <= b < P`, from a seed, the same for ever."""
    state = np.random.Philox(key=seed % 2**64).random_raw(3)
    a_low, a_high = (1 + int(s) % (PRIME - 1) for s in state[:2])
    return a_low, a_high, int(state[2]) % PRIME


def nth_seed(seed: int, n: int) -> int:
    """The seed of the n-th of several functions of one seed; the first has the seed itself."""
    return seed + n * 2**32


def universal_hash(ids: Any, coefficients: tuple[int, int, int], input_dim: int) -> Any:
    """`(a_low * low + a_high * high + b) mod P` for the low 30 bits of an id and the rest.

    Args:
        ids: Integer tensor or NumPy array, values in `[0, input_dim)`, at most 2**60.
        coefficients: From `draw_coefficients`.
        input_dim: Number of ids; up to 2**30 the high part is 0 and is left out.
    """
    a_low, a_high, b = coefficients
    if "int32" in str(ids.dtype):
        multiply, add = _multiply_32_bits, _add_32_bits
    else:
        multiply, add = _multiply_64_bits, _add_64_bits
    if input_dim <= 2**_LOW_BITS:
        return add(multiply(ids, a_low), b)
    low, high = ids % 2**_LOW_BITS, ids // 2**_LOW_BITS
    return add(add(multiply(low, a_low), multiply(high, a_high)), b)


def _multiply_64_bits(x: Any, a: int) -> Any:
    return (x * a) % PRIME


def _add_64_bits(x: Any, y: Any) -> Any:
    return (x + y) % PRIME


def _multiply_32_bits(x: Any, a: int) -> Any:
    mask = 2**_LIMB_BITS - 1
    total: Any = 0
    for i in range(0, 31, _LIMB_BITS):
        for j in range(0, 31, _LIMB_BITS):
            # 22 bits at most, so no product overflows.
            product = ((x >> i) & mask) * ((a >> j) & mask)
            total = _add_32_bits(_rotate(product, (i + j) % 31), total)
    return total


def _rotate(x: Any, bits: int) -> Any:
    """`x * 2**bits mod P` for x < 2**31: the 31 bits move round."""
    if bits == 0:
        return x
    low = x & (2 ** (31 - bits) - 1)
    return (low << bits) | (x >> (31 - bits))


def _add_32_bits(x: Any, y: Any) -> Any:
    """`(x + y) mod P` for x, y in [0, P], without leaving 32 bits."""
    difference = x + (y - PRIME)
    # The sign bit, spread by the shift, adds P where the difference is negative.
    return difference + ((difference >> 31) & PRIME)
