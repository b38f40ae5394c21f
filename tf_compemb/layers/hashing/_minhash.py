"""Minhash signatures of ids: ids that occur in the same rows of a sample have similar ones.

A minhash of an id is the smallest of random numbers, one drawn for each sampled row, over the rows
that have the id. Two ids agree in one with probability J, the rows that have both over the rows
that have either (Broder 1997). Of each minhash `BITS` bits are kept, in which others agree by
chance with probability `2**-BITS`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb.partitions.universal_hash import nth_seed

BITS = 4
# An id is found among the few of its bucket, so that a lookup costs the same for any number of ids.
WAYS = 4
# In how many sampled rows an id must be for its rows to say something.
MIN_SUPPORT = 2


def checked_sample(sampled_ids: Any, input_dim: int) -> np.ndarray:
    """`sampled_ids` as an array (rows, ids of a row), in the narrowest integer type.

    Raises:
        ValueError: They are not integers in `[0, input_dim)`, one or several a row.
    """
    sample = np.asarray(sampled_ids)
    if sample.ndim not in (1, 2) or sample.dtype.kind not in "iu":
        raise ValueError(
            "`sampled_ids` must be integers of shape (rows,) or (rows, ids of a row). "
            f"Received: shape {sample.shape}, dtype {sample.dtype}"
        )
    if sample.size and not 0 <= sample.min() <= sample.max() < input_dim:
        raise ValueError(
            f"`sampled_ids` must be in [0, {input_dim}). "
            f"Received: ids from {sample.min()} to {sample.max()}"
        )
    sample = sample if sample.ndim == 2 else sample[:, None]
    return sample.astype("int32" if input_dim < 2**31 else "int64")


def signed_ids(sample: np.ndarray, num_buckets: int) -> np.ndarray:
    """The ids that have a signature, int64 (num_buckets, WAYS), each in bucket `id % num_buckets`.

    Of those in `MIN_SUPPORT` rows or more, each bucket has the ones in the most rows, of equals the
    lower; -1 where there are no more.

    >>> signed_ids(np.array([[5, 3], [3, 9], [5, 5]]), num_buckets=2).tolist()
    [[-1, -1, -1, -1], [3, 5, -1, -1]]
    """
    ids, _, starts = _rows_by_id(sample)
    support = np.diff(starts)
    ids, support = ids[support >= MIN_SUPPORT], support[support >= MIN_SUPPORT]
    order = np.lexsort((ids, -support, ids % num_buckets))
    buckets = ids[order] % num_buckets
    place = np.arange(len(ids)) - np.searchsorted(buckets, buckets)
    kept = place < WAYS
    table = np.full((num_buckets, WAYS), -1, "int64")
    table[buckets[kept], place[kept]] = ids[order][kept]
    return table


def signatures(wanted: np.ndarray, sample: np.ndarray, num_minhashes: int, seed: int) -> np.ndarray:
    """Signatures of ids, uint8 (*wanted.shape, num_minhashes // 2), zeros for -1.

    A byte holds minhash j in its lower bits and minhash j + num_minhashes // 2 in the upper.

    Args:
        wanted: Ids that are in the sample, or -1.
        sample: Ids (rows, ids of a row).
        num_minhashes: Even.
        seed: Chooses the random numbers of the rows, the same for every field.
    """
    ids, rows, starts = _rows_by_id(sample)
    found = np.zeros((wanted.size, num_minhashes), "uint8")
    is_id = wanted.ravel() >= 0
    place = np.searchsorted(ids, wanted.ravel()[is_id])
    for j in range(num_minhashes if len(ids) else 0):
        # The raw bits, which NumPy promises for ever.
        drawn = np.random.Philox(key=nth_seed(seed, 4 + j) % 2**64).random_raw(len(sample))
        found[is_id, j] = np.minimum.reduceat(drawn[rows], starts[:-1])[place] % 2**BITS
    low, high = np.split(found, 2, axis=1)
    return (low + (high << BITS)).reshape(*wanted.shape, -1)


def key_weights(slots: np.ndarray, num_minhashes: int, bits: int = BITS) -> np.ndarray:
    """Weights whose products with minhashes are the keys of the numbers of a vector.

    The key of number i is `sum_t minhash[slots[i, t]] * 2**(bits * t)`, cut into parts of 16 bits.

    Args:
        slots: Which minhashes make each key, (numbers, length).
        num_minhashes: How many there are.
        bits: Of a minhash.

    Returns:
        Float32 (parts, num_minhashes, numbers). Minhashes, weights and products are integers below
        2**16, which a matrix product gives exactly in any precision that has 8 bits and sums in 24.

    >>> int([1, 3, 2] @ key_weights(np.array([[0, 2]]), 3, bits=2)[0, :, 0])  # 1 + 2 * 4
    9
    """
    digits = 16 // bits
    numbers, length = slots.shape
    weights = np.zeros((-(-length // digits), num_minhashes, numbers), "float32")
    for t in range(length):
        weights[t // digits, slots[:, t], np.arange(numbers)] = 2.0 ** (bits * (t % digits))
    return weights


def draw_slots(numbers: int, length: int, num_minhashes: int, seed: int) -> np.ndarray:
    """Which of the minhashes make the key of each number: (numbers, length), distinct in a key."""
    drawn = np.random.Philox(key=nth_seed(seed, 3) % 2**64).random_raw(numbers * num_minhashes)
    order = np.argsort(drawn.reshape(numbers, num_minhashes), axis=1, kind="stable")
    return order[:, :length]


def _rows_by_id(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ids that occur, ascending; the rows that have them, id by id; where each id's begin.

    A row that has an id several times counts once. The last of the beginnings is the end.
    """
    rows = np.repeat(np.arange(len(sample)), sample.shape[1])
    order = np.argsort(sample.ravel(), kind="stable")
    ids, rows = sample.ravel()[order], rows[order]
    is_new = np.ones(len(ids), bool)
    is_new[1:] = (ids[1:] != ids[:-1]) | (rows[1:] != rows[:-1])
    ids, rows = ids[is_new].astype("int64"), rows[is_new]
    distinct, starts = np.unique(ids, return_index=True)
    return distinct, rows, np.append(starts, len(ids))
