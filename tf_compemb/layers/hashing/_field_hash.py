"""Hashes of an id, the number of its field, and a part of its vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb.layers.pooled import constants
from tf_compemb.partitions.universal_hash import (
    PRIME,
    draw_coefficients,
    nth_seed,
    universal_hash,
)


def field_hash(
    seed: int, n: int, ids: Any, fields: np.ndarray, parts: np.ndarray, input_dim: int
) -> Any:
    """`(A f + B i + C c + D) mod P` for fields f, ids i and parts c of a vector.

    Args:
        seed: Chooses the functions.
        n: The coefficients are of the n-th and the next function of the seed.
        ids: Integers (m, fields, 1) below `input_dim`.
        fields: Numbers of the fields.
        parts: Numbers of the parts.
        input_dim: Of the field with the most ids.

    Returns:
        Integers (m, fields, parts) in `[0, P)`.
    """
    low, high, shift = draw_coefficients(nth_seed(seed, n))
    of_part, of_field, _ = draw_coefficients(nth_seed(seed, n + 1))
    shifts = [
        [(of_field * int(f) + of_part * int(c) + shift) % PRIME for c in parts] for f in fields
    ]
    return universal_hash(ids, (low, high, constants(np.asarray(shifts))), input_dim)
